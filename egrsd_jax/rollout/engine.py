"""Continuous batching: completions decoded together; a row whose completion ends is free for a request of the queue.

A decode chunk is one call of a compiled program that samples tokens in all rows. It ends early when enough rows have
ended that a prefill of queued prompts is worth it. Prompts are prefilled a group at a time, each once, and every sample
of a prompt begins with a copy of its keys and values. The cache's capacity follows the longest active row, in a few
sizes. Once the queue is empty the number of rows shrinks, in a few sizes too: the last completions, which are the
longest, are decoded in fewer rows.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.sharding import Mesh

from egrsd_jax.data.prefix import common_prefix
from egrsd_jax.model.config import ModelConfig
from egrsd_jax.model.decode import lay_out
from egrsd_jax.model.decoder import Params
from egrsd_jax.model.lora import Lora
from egrsd_jax.model.sharding import batch_shards, round_up
from egrsd_jax.ops.attention import shares_prefix
from egrsd_jax.rollout.generation import Generation
from egrsd_jax.rollout.requests import Completion, OnTokens, Request
from egrsd_jax.rollout.runner import LoadedParams, ModelRunner
from egrsd_jax.rollout.sizes import Sizes

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Numbers = Sequence[int] | np.ndarray


class Engine:
    """Samples completions on a mesh; the `Sampler` of training and evaluation. It owns programs, parameters and sizes.

    Args:
        config: the model.
        mesh: rows are sharded over its axes data and fsdp, heads and hidden units over tensor.
        stop_ids: tokens that end a completion.
        max_rows: rows decoded together, a multiple of the mesh's batch shards.
        max_prompt_tokens, max_new_tokens: the most that a request may have; with these the list of programs is known.
        tokenizer: for stop texts; without it a request that has some is refused.
        cache_dtype: float32, bfloat16, or int8; by default the model's.
        weights_dtype: what prompts and tokens are multiplied with, float32 or bfloat16; by default the model's.
        score_temperature: divides the logits before the log-probabilities that are returned.
        prefix: tokens that prompts begin with: they are read once for each set of parameters, and of a prompt that
            begins with them only the rest. Any other prompt is read whole.

    Raises ValueError for arguments out of range.
    """

    def __init__(
        self,
        config: ModelConfig,
        mesh: Mesh,
        stop_ids: Sequence[int],
        *,
        max_rows: int,
        max_prompt_tokens: int,
        max_new_tokens: int,
        tokenizer: "PreTrainedTokenizerBase | None" = None,
        cache_dtype: str | None = None,
        weights_dtype: str | None = None,
        score_temperature: float = 1.0,
        prefix: Sequence[int] = (),
    ):
        if weights_dtype not in (None, "float32", "bfloat16"):
            raise ValueError(f"weights_dtype is {weights_dtype!r}; it must be float32 or bfloat16")
        if prefix and len(prefix) >= max_prompt_tokens:
            raise ValueError(f"the prefix has {len(prefix)} tokens; prompts of {max_prompt_tokens} have none after it")
        sizes = Sizes.of(
            max_rows=max_rows,
            max_prompt_tokens=max_prompt_tokens,
            max_new_tokens=max_new_tokens,
            shards=batch_shards(mesh),
            prefix=len(prefix),
        )
        self._runner = ModelRunner(
            config,
            mesh,
            stop_ids,
            sizes,
            cache_dtype=cache_dtype,
            weights_dtype=weights_dtype,
            score_temperature=score_temperature,
            prefix=tuple(prefix),
        )
        self._config, self._tokenizer, self._weights_dtype = config, tokenizer, weights_dtype
        self._limits = max_prompt_tokens, max_new_tokens
        self._loaded: LoadedParams | None = None
        self._version = 0

    @property
    def max_rows(self) -> int:
        """Rows decoded together."""
        return self._runner.sizes.max_rows

    @property
    def tokens(self) -> int:
        """Tokens sampled since the engine was made or `reset_counts` called."""
        return self._runner.tokens

    @property
    def occupancy(self) -> float:
        """Batch occupancy since then: the share of rows, over all decode steps, that had an unfinished completion."""
        return self._runner.tokens / self._runner.row_steps if self._runner.row_steps else 0.0

    def reset_counts(self) -> None:
        """`tokens` and `occupancy` count from here."""
        self._runner.tokens = self._runner.row_steps = 0

    @property
    def used(self) -> set[str]:
        """The names of the programs that this engine has called."""
        return set(self._runner.used)

    def program_names(self) -> list[str]:
        """Every program that this engine may compile."""
        return self._runner.sizes.program_names()

    def update_params(self, params: Params, lora: Lora | None = None) -> int:
        """The parameters of all completions from now on; returns how often they have been given."""
        loaded = self._loaded
        if loaded is not None and _same_arrays(loaded.params, params):
            weights = loaded.weights
        else:
            self._loaded = loaded = None  # frees the old copies before the new ones are made
            weights = lay_out(params, self._config, self._weights_dtype)
        self._version += 1
        self._loaded = LoadedParams(params, lora, weights, self._version)
        return self._version

    def close(self) -> None:
        """Frees the parameters; `update_params` gives new ones."""
        self._loaded = None

    def generate(
        self, requests: Sequence[Request], *, on_tokens: OnTokens | None = None
    ) -> Iterator[tuple[int, Completion]]:
        """Each request's number and completion, in the order in which they end; see `Sampler`.

        In float32 a completion is the same in whatever row, with whatever others and on whatever mesh it is sampled; in
        bfloat16 sums round differently there and a token may change. Raises ValueError for a request that cannot be
        served, before any is, and RuntimeError before parameters were given.
        """
        self._check(requests)
        if (loaded := self._loaded) is None:
            raise RuntimeError("the engine has no parameters yet; call update_params first")
        return self._generate(loaded, requests, on_tokens)

    def _generate(
        self, loaded: LoadedParams, requests: Sequence[Request], on_tokens: OnTokens | None
    ) -> Iterator[tuple[int, Completion]]:
        if requests:  # nothing is put on the device before the first completion is asked for
            newest, loaded = loaded is self._loaded, self._runner.read_prefix(loaded)
            if newest:
                self._loaded = loaded  # the prefix is kept until parameters change
            generation = Generation(self._runner, loaded, requests, tokenizer=self._tokenizer, on_tokens=on_tokens)
            yield from generation.completions()

    def _check(self, requests: Sequence[Request]) -> None:
        most_prompt, most_new = self._limits
        for number, request in enumerate(requests):
            length, new = len(request.prompt), request.sampling.max_new_tokens
            if not length:
                raise ValueError(f"prompt {number} is empty; a completion needs a token before it")
            if length > most_prompt:
                raise ValueError(f"prompt {number} has {length} tokens; this engine takes at most {most_prompt}")
            if new > most_new:
                raise ValueError(f"request {number} asks for {new} new tokens; this engine gives at most {most_new}")
            if request.sampling.stop and self._tokenizer is None:
                raise ValueError(f"request {number} has stop texts, which need an engine with a tokenizer")


def engine_for(
    config: ModelConfig,
    mesh: Mesh,
    stop_ids: Sequence[int],
    prompts: Sequence[Sequence[int]],
    *,
    max_rows: int,
    max_new_tokens: int,
    policy: tuple[Params, Lora | None] | None = None,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    cache_dtype: str | None = None,
    weights_dtype: str | None = None,
    score_temperature: float = 1.0,
) -> Engine:
    """An engine for the longest of the prompts, with `max_rows` rounded up to what the mesh divides.

    What all prompts begin with is read once where that is worth it (`data.prefix`) and attention can take it. With
    `policy` it has its parameters; the other arguments are `Engine`'s.
    """
    engine = Engine(
        config,
        mesh,
        stop_ids,
        max_rows=round_up(max_rows, batch_shards(mesh)),
        max_prompt_tokens=max(map(len, prompts)),
        max_new_tokens=max_new_tokens,
        tokenizer=tokenizer,
        cache_dtype=cache_dtype,
        weights_dtype=weights_dtype,
        score_temperature=score_temperature,
        prefix=common_prefix(prompts) if shares_prefix(config.attention) else (),
    )
    if policy is not None:
        engine.update_params(*policy)
    return engine


def sample_keys(key: jax.Array, problems: Numbers, samples: Numbers) -> np.ndarray:
    """Raw data of one key per completion, from a run's or a step's key, the number of the problem and the number of the
    sample of it: a completion's key does not depend on which others are sampled."""
    return np.asarray(_sample_keys(key, np.asarray(problems, np.uint32), np.asarray(samples, np.uint32)))


@jax.jit
def _sample_keys(key: jax.Array, problem_R: jax.Array, sample_R: jax.Array) -> jax.Array:
    fold = jax.vmap(lambda problem, sample: jax.random.fold_in(jax.random.fold_in(key, problem), sample))
    return jax.random.key_data(fold(problem_R, sample_R))


def _same_arrays(one: Any, other: Any) -> bool:
    return all(a is b for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))
