"""Continuous batching: rows decoded together; what ends makes room for what waits.

A burst is one call of a compiled program that draws tokens for all rows. It ends early when enough rows have ended that
waiting prompts are worth reading. Prompts are read a group at a time, each once, and every sample of a prompt begins
with a copy of what was read. The cache is as long as the longest running row needs, in a few sizes. When nothing waits
any more, there are fewer rows, in a few sizes too: the last completions, which are the longest, run among themselves.
"""

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from egrsd_jax.model.cache import CACHE_DTYPES
from egrsd_jax.model.config import ModelConfig
from egrsd_jax.model.decode import DecodeWeights, lay_out
from egrsd_jax.model.decoder import Params
from egrsd_jax.model.hosts import fetch, put_global
from egrsd_jax.model.lora import Lora
from egrsd_jax.model.sharding import batch_sharding, batch_shards, replicated, round_up
from egrsd_jax.rollout.programs import Drawn, Orders, Prompts, Rows, programs
from egrsd_jax.rollout.requests import Completion, OnTokens, Request, Sampling
from egrsd_jax.rollout.sampling import SamplingRules
from egrsd_jax.rollout.stop_texts import end_of_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BURST = 32  # steps at most before the host looks at what was drawn
REFILL = 8  # rows are refilled when one in so many has ended
Numbers = Sequence[int] | np.ndarray

SMALLEST_PROMPT, SMALLEST_CACHE = 16, 128  # tokens; larger ones double
FEWER = 4  # so many times fewer rows go on when nothing waits, and at least 2


class Loaded(NamedTuple):
    """The parameters that completions are drawn with: as they were given, and as decoding reads them."""

    params: Params
    lora: Lora | None
    weights: DecodeWeights
    version: int


@dataclass
class Waiting:
    """Requests in the order in which they begin, group by group; a group's requests share at most N prompts."""

    groups: list[list[int]]
    prompts: Prompts | None = None  # of the first group, once they are read
    places: dict[tuple[int, ...], int] = field(default_factory=dict)  # of each of its prompts among those read

    def __len__(self) -> int:
        return sum(map(len, self.groups))


@dataclass
class Writing:
    """A row's completion so far."""

    request: int
    started: float
    tokens: list[int] = field(default_factory=list)
    logp: list[np.ndarray] = field(default_factory=list)


class Engine:
    """Draws completions on a mesh; the `Sampler` that training and evaluation use.

    Args:
        config: the model.
        mesh: rows lie over its axes data and fsdp, heads and hidden units over tensor.
        stop_ids: tokens that end a completion.
        max_rows: rows decoded together, a multiple of the mesh's batch shards.
        max_prompt_tokens, max_new_tokens: the most that a request may have; with these the list of programs is known.
        tokenizer: what stop texts are found with; without it a request that has some is refused.
        cache_dtype: float32, bfloat16, or int8; by default the model's.
        score_temperature: divides the logits before the log-probabilities that are returned.

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
        score_temperature: float = 1.0,
    ):
        shards = batch_shards(mesh)
        if max_rows < 1 or max_rows % shards:
            raise ValueError(
                f"max_rows is {max_rows}; it must be a positive multiple of the mesh's {shards} batch shards"
            )
        if max_prompt_tokens < 1 or max_new_tokens < 1:
            raise ValueError(
                f"max_prompt_tokens is {max_prompt_tokens} and max_new_tokens {max_new_tokens}; both must be at least 1"
            )
        if (cache_dtype or config.dtype) not in CACHE_DTYPES:
            raise ValueError(f"cache_dtype is {cache_dtype!r}; it must be one of {', '.join(CACHE_DTYPES)}")
        self._config, self._mesh, self._max_rows, self._tokenizer = config, mesh, max_rows, tokenizer
        self._stop_ids = np.asarray(stop_ids, np.int32)
        self._limits = max_prompt_tokens, max_new_tokens
        self._cache_dtype = cache_dtype or config.dtype
        self._score_temperature = np.float32(score_temperature)
        self._group = round_up(max(max_rows // REFILL, 1), shards)  # prompts that are read together
        self._prompt_sizes = _doubling(SMALLEST_PROMPT, max_prompt_tokens)
        self._cache_sizes = _doubling(SMALLEST_CACHE, round_up(max_prompt_tokens + max_new_tokens, 64))
        self._row_sizes = [max_rows]
        while (fewer := round_up(max(self._row_sizes[0] // FEWER, 2), shards)) < self._row_sizes[0]:
            self._row_sizes.insert(0, fewer)
        self._programs = programs(config, mesh)
        self._loaded: Loaded | None = None
        self._version = 0
        self.used: set[str] = set()
        self.row_steps = 0  # steps since the engine was made, times the rows that were decoded in each
        self.tokens = 0  # tokens that came of it

    @property
    def max_rows(self) -> int:
        """Rows decoded together."""
        return self._max_rows

    @property
    def occupancy(self) -> float:
        """Share of the rows that were decoded in each step, since the engine was made, that a completion stood in."""
        return self.tokens / self.row_steps if self.row_steps else 0.0

    def program_names(self) -> list[str]:
        """Every program that this engine may compile; `used` are those that it has."""
        prompts, caches = self._prompt_sizes, self._cache_sizes
        pairs = [(prompt, cache) for prompt in prompts for cache in caches if cache > prompt // 2]
        neighbours = [pair for one, other in itertools.pairwise(caches) for pair in ((one, other), (other, one))]
        rows = self._row_sizes
        return [
            *(f"empty {self._max_rows} rows at capacity {cache}" for cache in caches),
            *(f"read {self._group} prompts of {prompt}" for prompt in prompts),
            *(f"begin prompts of {prompt} at capacity {cache}" for prompt, cache in pairs),
            *(_drawing(count, cache) for count in rows for cache in caches),
            *(_resizing(count, one, other) for count in rows for one, other in neighbours),
            *(_keeping(many, few, cache) for few in rows for many in rows if few < many for cache in caches),
        ]

    def update_params(self, params: Params, lora: Lora | None = None) -> int:
        """The parameters of all completions from now on; returns how often they have been given."""
        known = self._loaded
        if known is not None and _same_arrays(known.params, params):
            weights = known.weights
        else:
            self._loaded = known = None  # the old copies make room for the new
            weights = lay_out(params, self._config)
        self._version += 1
        self._loaded = Loaded(params, lora, weights, self._version)
        return self._version

    def close(self) -> None:
        """Lets go of the parameters; `update_params` gives new ones."""
        self._loaded = None

    def generate(
        self, requests: Sequence[Request], *, on_tokens: OnTokens | None = None
    ) -> Iterator[tuple[int, Completion]]:
        """Each request's number and completion, in the order in which they end; see `Sampler`.

        In float32 a completion is the same in whatever row, among whatever others and on whatever mesh it is drawn; in
        bfloat16 sums round differently there and a token may change. Raises ValueError for a request that cannot be
        served, before any is, and RuntimeError before parameters were given.
        """
        self._check(requests)
        if (loaded := self._loaded) is None:
            raise RuntimeError("the engine has no parameters yet; call update_params first")
        return self._generate(loaded, requests, on_tokens)

    def _generate(self, loaded: Loaded, requests: Sequence[Request], on_tokens: OnTokens | None):
        waiting = Waiting(self._grouped(requests))
        writing: dict[int, Writing] = {}
        if not requests:
            return
        rows = self._empty_rows(max(_most_tokens(requests[number], 0) for number in waiting.groups[0]))
        while waiting.groups or writing:
            rows = self._refill(loaded, requests, waiting, writing, rows)
            if not waiting.groups:
                rows = self._fewer(writing, rows)
            rows = self._fit(requests, writing, rows)
            enough = min(self._group, len(waiting)) if waiting.groups else self._enough_to_be_fewer(writing, rows)
            rows, drawn = self._burst(loaded, rows, writing, enough)
            for row in list(writing):
                done = self._take(requests, writing[row], drawn, row, loaded.version, on_tokens)
                if done is not None:
                    yield writing.pop(row).request, done

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

    def _grouped(self, requests: Sequence[Request]) -> list[list[int]]:
        """Requests by prompt, prompts by length, in groups of prompts that are read together."""
        by_prompt: dict[tuple[int, ...], list[int]] = {}
        for number, request in enumerate(requests):
            by_prompt.setdefault(tuple(request.prompt), []).append(number)
        prompts = sorted(by_prompt, key=len)
        return [
            [number for prompt in prompts[start : start + self._group] for number in by_prompt[prompt]]
            for start in range(0, len(prompts), self._group)
        ]

    def _refill(
        self,
        loaded: Loaded,
        requests: Sequence[Request],
        waiting: Waiting,
        writing: dict[int, Writing],
        rows: Rows,
    ) -> Rows:
        """Begins waiting requests in the rows that are free."""
        while waiting.groups and len(writing) < self._max_rows:
            if waiting.prompts is None:
                self._read(loaded, requests, waiting)
            group = waiting.groups[0]
            free = [row for row in range(self._max_rows) if row not in writing]
            count = min(len(free), len(group), self._group)
            beginning, waiting.groups[0] = group[:count], group[count:]
            rows = self._begin(requests, waiting, beginning, free[:count], rows)
            writing |= {row: Writing(number, time.perf_counter()) for row, number in zip(free, beginning, strict=False)}
            if not waiting.groups[0]:
                waiting.groups.pop(0)
                waiting.prompts = None
        return rows

    def _read(self, loaded: Loaded, requests: Sequence[Request], waiting: Waiting) -> None:
        """Reads the prompts of the first waiting group."""
        prompts = list(dict.fromkeys(tuple(requests[number].prompt) for number in waiting.groups[0]))
        waiting.places = {prompt: place for place, prompt in enumerate(prompts)}
        width = _least(self._prompt_sizes, max(map(len, prompts)))
        tokens_NP = np.zeros((self._group, width), np.int32)
        length_N = np.zeros(self._group, np.int32)
        for place, prompt in enumerate(prompts):
            tokens_NP[place, : len(prompt)] = prompt
            length_N[place] = len(prompt)
        self.used.add(f"read {self._group} prompts of {width}")
        tokens_NP = put_global(tokens_NP, batch_sharding(self._mesh))
        length_N = put_global(length_N, replicated(self._mesh))
        waiting.prompts = self._programs.read_prompts(loaded.params, loaded.lora, tokens_NP, length_N)

    def _begin(
        self, requests: Sequence[Request], waiting: Waiting, numbers: list[int], free: list[int], rows: Rows
    ) -> Rows:
        """Puts requests of the first waiting group into rows."""
        assert waiting.prompts is not None
        asked = [requests[number] for number in numbers]
        longest = max(len(request.prompt) for request in asked)
        rows = self._resized(rows, max(rows.cache.capacity, _least(self._cache_sizes, longest + 1)))
        spare = self._group - len(numbers)
        prompt_R = np.array([waiting.places[tuple(request.prompt)] for request in asked] + [0] * spare, np.int32)
        row_R = np.array(free + [self._max_rows] * spare, np.int32)
        orders = _orders([*asked, *[asked[0]] * spare])
        width = waiting.prompts.keys_LNPGK.shape[2]
        self.used.add(f"begin prompts of {width} at capacity {rows.cache.capacity}")
        arrays = put_global((prompt_R, row_R, orders), replicated(self._mesh))
        return self._programs.begin(rows, waiting.prompts, *arrays)

    def _fewer(self, writing: dict[int, Writing], rows: Rows) -> Rows:
        """The rows that are written, in as few as there is a size for; they take new places on their batch shard."""
        shards = batch_shards(self._mesh)
        before = rows.row_count // shards
        kept = [[row for row in writing if row // before == shard] for shard in range(shards)]
        count = _least(self._row_sizes, shards * max(map(len, kept)))
        if count == rows.row_count:
            return rows
        self.used.add(_keeping(rows.row_count, count, rows.cache.capacity))
        after = count // shards
        row_SR = np.zeros((shards, after), np.int32)  # the spare ones are nobody's
        going_on = dict(writing)
        writing.clear()
        for shard, of_shard in enumerate(kept):
            row_SR[shard, : len(of_shard)] = [row % before for row in of_shard]
            writing |= {shard * after + number: going_on[row] for number, row in enumerate(of_shard)}
        fewer = self._programs.keep(rows, put_global(row_SR.reshape(-1), batch_sharding(self._mesh)))
        _let_go(rows)
        return fewer

    def _enough_to_be_fewer(self, writing: dict[int, Writing], rows: Rows) -> int:
        """How many rows must not run for a smaller size to hold the others; one more where it does already, but not
        shard by shard."""
        smaller = max((size for size in self._row_sizes if size < rows.row_count), default=0)
        return rows.row_count - min(smaller, len(writing) - 1)

    def _fit(self, requests: Sequence[Request], writing: dict[int, Writing], rows: Rows) -> Rows:
        """The rows with a cache that holds what the next burst may add, and not over twice that."""
        most = max(_most_tokens(requests[row.request], len(row.tokens)) for row in writing.values())
        wanted = _least(self._cache_sizes, most)
        return self._resized(rows, wanted if not wanted <= rows.cache.capacity <= 2 * wanted else rows.cache.capacity)

    def _resized(self, rows: Rows, capacity: int) -> Rows:
        """The rows with a cache of this capacity, by way of the sizes between: of those there are few programs."""
        while (now := rows.cache.capacity) != capacity:
            place = self._cache_sizes.index(now) + (1 if capacity > now else -1)
            self.used.add(_resizing(rows.row_count, now, self._cache_sizes[place]))
            resized = self._programs.resize(rows, capacity=self._cache_sizes[place])
            _let_go(rows)
            rows = resized
        return rows

    def _burst(self, loaded: Loaded, rows: Rows, writing: dict[int, Writing], enough: int) -> tuple[Rows, Drawn]:
        keep_B = np.array([row in writing for row in range(rows.row_count)])
        self.used.add(_drawing(rows.row_count, rows.cache.capacity))
        everywhere = replicated(self._mesh)
        rows, drawn = self._programs.draw(
            loaded.weights,
            loaded.lora,
            rows,
            put_global(keep_B, batch_sharding(self._mesh)),
            *put_global((self._stop_ids, self._score_temperature, np.int32(enough)), everywhere),
            steps=BURST,
        )
        drawn = fetch(drawn)
        self.row_steps += int(drawn.steps) * rows.row_count
        self.tokens += int(drawn.count_B.sum())
        return rows, drawn

    def _take(
        self,
        requests: Sequence[Request],
        row: Writing,
        drawn: Drawn,
        place: int,
        version: int,
        on_tokens: OnTokens | None,
    ) -> Completion | None:
        """Adds what a burst drew to a row; its completion where it has ended."""
        count, request = int(drawn.count_B[place]), requests[row.request]
        new = drawn.tokens_BT[place, :count].tolist()
        ended_by_text = None
        if request.sampling.stop:
            assert self._tokenizer is not None
            ended_by_text = end_of_text(self._tokenizer, row.tokens, new, request.sampling.stop)
            new = new[:ended_by_text]
        row.tokens += new
        row.logp.append(drawn.logp_BT[place, : len(new)])
        if on_tokens is not None and new:
            on_tokens(row.request, new)
        if drawn.running_B[place] and ended_by_text is None:
            return None
        stopped = ended_by_text is not None or row.tokens[-1] in self._stop_ids
        return Completion(
            tokens=row.tokens,
            logp=np.concatenate(row.logp),
            ended="stop" if stopped else "length",
            seconds=time.perf_counter() - row.started,
            version=version,
        )

    def _empty_rows(self, tokens: int) -> Rows:
        """Rows with room for so many tokens each."""
        capacity = _least(self._cache_sizes, tokens)
        self.used.add(f"empty {self._max_rows} rows at capacity {capacity}")
        return self._programs.empty(rows=self._max_rows, capacity=capacity, cache_dtype=self._cache_dtype)


def sample_keys(key: jax.Array, problems: Numbers, samples: Numbers) -> np.ndarray:
    """Raw data of one key a completion, from a run's or a step's key, a number that tells problems apart, and one that
    tells the samples of a problem apart: whatever else is drawn changes none of them."""
    fold = jax.vmap(lambda problem, sample: jax.random.fold_in(jax.random.fold_in(key, problem), sample))
    keys = fold(jnp.asarray(problems, jnp.uint32), jnp.asarray(samples, jnp.uint32))
    return np.asarray(jax.random.key_data(keys))


def _orders(requests: Sequence[Request]) -> Orders:
    rules: list[Sampling] = [request.sampling for request in requests]
    return Orders(
        key_data=np.stack([np.asarray(request.key, np.uint32) for request in requests]),
        rules=SamplingRules(
            temperature=np.array([rule.temperature for rule in rules], np.float32),
            top_k=np.array([rule.top_k for rule in rules], np.int32),
            top_p=np.array([rule.top_p for rule in rules], np.float32),
            min_p=np.array([rule.min_p for rule in rules], np.float32),
        ),
        limit=np.array([rule.max_new_tokens for rule in rules], np.int32),
    )


def _let_go(rows: Rows) -> None:
    """Frees a cache of which another was made: two are held meanwhile, and never three."""
    for leaf in jax.tree.leaves(rows.cache.layers):
        leaf.delete()


def _drawing(rows: int, capacity: int) -> str:
    return f"draw in {rows} rows at capacity {capacity}"


def _resizing(rows: int, capacity: int, other: int) -> str:
    return f"resize {rows} rows from capacity {capacity} to {other}"


def _keeping(rows: int, fewer: int, capacity: int) -> str:
    return f"keep {fewer} of {rows} rows at capacity {capacity}"


def _most_tokens(request: Request, drawn: int) -> int:
    """How many tokens a row may hold after the next burst, its prompt among them."""
    return len(request.prompt) + min(drawn + BURST, request.sampling.max_new_tokens)


def _doubling(least: int, most: int) -> list[int]:
    """least, twice that, ..., and `most` itself or, where that is less, `least`."""
    sizes = [least]
    while sizes[-1] < most:
        sizes.append(min(2 * sizes[-1], most))
    return sizes


def _least(sizes: Sequence[int], wanted: int) -> int:
    return next(size for size in sizes if size >= wanted)


def _same_arrays(one: Any, other: Any) -> bool:
    return all(a is b for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))
