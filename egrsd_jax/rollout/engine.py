"""Ragged prompts in, completions out: what stands between the loop and the compiled sampler."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from egrsd_jax.data.batch import bucket_length
from egrsd_jax.model.config import ModelConfig
from egrsd_jax.model.hosts import fetch, place
from egrsd_jax.model.lora import Lora
from egrsd_jax.model.qwen3 import Params
from egrsd_jax.model.sharding import batch_sharding, batch_shards, replicated
from egrsd_jax.rollout.generate import Drawn, generate
from egrsd_jax.rollout.sampling import SamplingRules


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn. `max_new_tokens` counts the stop token."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    max_new_tokens: int = 1024

    def __post_init__(self):
        for name, good, want in (
            ("temperature", self.temperature >= 0, "at least 0 (0 is greedy)"),
            ("top_k", self.top_k >= 0, "at least 0 (0 is no limit)"),
            ("top_p", 0 < self.top_p <= 1, "over 0 and at most 1 (1 is no limit)"),
            ("min_p", 0 <= self.min_p <= 1, "between 0 and 1 (0 is no limit)"),
            ("max_new_tokens", self.max_new_tokens >= 1, "at least 1"),
        ):
            if not good:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be {want}")


@dataclass(frozen=True)
class Completion:
    """What the policy said: token ids with its stop token, their log-probabilities in nats, and how it ended."""

    tokens: list[int]
    logp: np.ndarray
    stopped: bool  # False: cut off by max_new_tokens


class Engine:
    """Draws completions, `slots` rows at a time, on a mesh; one compiled program a prompt bucket and sampling limit."""

    def __init__(self, config: ModelConfig, mesh: Mesh, stop_ids: Sequence[int], *, slots: int):
        shards = batch_shards(mesh)
        if slots < 1 or slots % shards:
            raise ValueError(f"slots is {slots}; it must be a positive multiple of the mesh's {shards} batch shards")
        self._config, self._mesh, self._slots = config, mesh, slots
        self._stop_ids = np.asarray(stop_ids, np.int32)

    def generate(
        self,
        params: Params,
        lora: Lora | None,
        prompts: Sequence[Sequence[int]],
        keys: jax.Array,
        sampling: Sampling,
        *,
        score_temperature: float = 1.0,
    ) -> list[Completion]:
        """One completion a prompt, in their order. `keys` holds one random key a prompt.

        A completion depends on its prompt, its key and the parameters alone, not on what else is drawn beside it.
        """
        if len(keys) != len(prompts):
            raise ValueError(f"there are {len(prompts)} prompts and {len(keys)} keys; each prompt needs its own")
        if [] in (empty := [list(prompt) for prompt in prompts]):
            raise ValueError(f"prompt {empty.index([])} is empty; a completion needs a token before it")
        by_length = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        completions: dict[int, Completion] = {}
        for start in range(0, len(prompts), self._slots):
            rows = by_length[start : start + self._slots]
            drawn = self._run(
                params, lora, [prompts[row] for row in rows], keys[np.asarray(rows)], sampling, score_temperature
            )
            completions |= zip(rows, _completions(drawn, len(rows)), strict=True)
        return [completions[index] for index in range(len(prompts))]

    def _run(self, params, lora, prompts, keys, sampling: Sampling, score_temperature: float) -> Drawn:
        width = bucket_length(max(map(len, prompts)))
        tokens_BP = np.zeros((self._slots, width), np.int32)
        length_B = np.zeros(self._slots, np.int32)
        for row, prompt in enumerate(prompts):
            tokens_BP[row, : len(prompt)] = prompt
            length_B[row] = len(prompt)
        spare = jnp.zeros(self._slots - len(prompts), jnp.int32)
        keys_B = jnp.concatenate([keys, keys[spare]])  # rows without a prompt need a key too; they draw nothing
        rules = SamplingRules(
            temperature=np.full(self._slots, sampling.temperature, np.float32),
            top_k=np.full(self._slots, sampling.top_k, np.int32),
            top_p=np.full(self._slots, sampling.top_p, np.float32),
            min_p=np.full(self._slots, sampling.min_p, np.float32),
        )
        rows = batch_sharding(self._mesh)
        return generate(
            params,
            lora,
            *place((tokens_BP, length_B, jax.random.key_data(keys_B), rules), rows),
            *place((self._stop_ids, np.float32(score_temperature)), replicated(self._mesh)),
            config=self._config,
            max_new_tokens=sampling.max_new_tokens,
        )


def sample_keys(key: jax.Array, problems: Sequence[int] | np.ndarray, samples: Sequence[int] | np.ndarray) -> jax.Array:
    """One key a completion, from a run's or a step's key, a number that tells problems apart, and one that tells the
    samples of a problem apart: whatever else is drawn changes none of them."""
    fold = jax.vmap(lambda problem, sample: jax.random.fold_in(jax.random.fold_in(key, problem), sample))
    return fold(jnp.asarray(problems, jnp.uint32), jnp.asarray(samples, jnp.uint32))


def _completions(drawn: Drawn, count: int) -> list[Completion]:
    tokens, logp, length, stopped = fetch(drawn)
    return [
        Completion(tokens[row, : length[row]].tolist(), logp[row, : length[row]], bool(stopped[row]))
        for row in range(count)
    ]
