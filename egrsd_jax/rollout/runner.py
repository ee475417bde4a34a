"""Runs the programs for host code: puts arrays on the mesh, fetches what was sampled, and counts both."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from egrsd_jax.model.cache import CACHE_DTYPES
from egrsd_jax.model.config import ModelConfig
from egrsd_jax.model.decode import DecodeWeights
from egrsd_jax.model.decoder import Params
from egrsd_jax.model.hosts import fetch, put_global
from egrsd_jax.model.lora import Lora
from egrsd_jax.model.sharding import batch_sharding, replicated
from egrsd_jax.ops.prefix_attention import Prefix
from egrsd_jax.rollout import sizes as names
from egrsd_jax.rollout.programs import DecodeState, PrefilledPrompts, SampledTokens, SamplingState, programs
from egrsd_jax.rollout.requests import Request
from egrsd_jax.rollout.sampling import SamplingRules
from egrsd_jax.rollout.sizes import Sizes, at_least


class LoadedParams(NamedTuple):
    """Parameters as they were given, for prefill, and as decoding reads them; `version` counts how often.

    `prefix` is what these parameters make of the tokens that prompts begin with, where the engine has some.
    """

    params: Params
    lora: Lora | None
    weights: DecodeWeights
    version: int
    prefix: Prefix | None = None


class ModelRunner:
    """The programs of one model on one mesh, in the sizes that they are compiled for.

    Attributes:
        used: names of the programs that were called.
        row_steps: decode steps, times the rows that each had.
        tokens: tokens sampled in them.
        prefix: tokens that prompts begin with, read once for all of them; none where it is empty.

    Raises ValueError for a cache dtype that is none.
    """

    def __init__(
        self,
        config: ModelConfig,
        mesh: Mesh,
        stop_ids: Sequence[int],
        sizes: Sizes,
        *,
        cache_dtype: str | None,
        weights_dtype: str | None,
        score_temperature: float,
        prefix: tuple[int, ...],
    ):
        self._cache_dtype = cache_dtype or config.dtype
        if self._cache_dtype not in CACHE_DTYPES:
            raise ValueError(f"cache_dtype is {cache_dtype!r}; it must be one of {', '.join(CACHE_DTYPES)}")
        self.sizes, self.prefix = sizes, prefix
        self.stop_ids = np.asarray(stop_ids, np.int32)
        self.programs = programs(config, mesh, weights_dtype)
        self.used: set[str] = set()
        self.row_steps = self.tokens = 0
        self._score_temperature = np.float32(score_temperature)
        self._by_row, self._everywhere = batch_sharding(mesh), replicated(mesh)

    def empty_state(self, tokens: int) -> DecodeState:
        """All rows without completions, with room for so many tokens each."""
        rows, capacity = self.sizes.max_rows, at_least(self.sizes.capacities, tokens)
        self.used.add(names.empty_name(rows, capacity))
        return self.programs.empty_state(rows=rows, capacity=capacity, cache_dtype=self._cache_dtype)

    def read_prefix(self, loaded: LoadedParams) -> LoadedParams:
        """With the prefix that these parameters need, if the engine has one."""
        if not self.prefix or loaded.prefix is not None:
            return loaded
        self.used.add(names.prefix_name(len(self.prefix)))
        return loaded._replace(prefix=self.programs.read_prefix(loaded.params, loaded.lora, self.prefix))

    def prefill(self, loaded: LoadedParams, prompts: Sequence[Sequence[int]]) -> PrefilledPrompts:
        """Reads at most `sizes.prefill_rows` prompts: all of them, or where each begins with the prefix, the rest."""
        if all(self.begins(prompt) for prompt in prompts):
            read, sizes, after = len(self.prefix), self.sizes.after_prefix, [loaded.prefix]
        else:
            read, sizes, after = 0, self.sizes.prompts, []
        count, width = self.sizes.prefill_rows, at_least(sizes, max(map(len, prompts)) - read)
        tokens_NP, length_N = np.zeros((count, width), np.int32), np.zeros(count, np.int32)
        for number, prompt in enumerate(prompts):
            tokens_NP[number, : len(prompt) - read] = prompt[read:]
            length_N[number] = len(prompt) - read
        self.used.add(names.prefill_name(count, width, read))
        arrays = put_global(tokens_NP, self._by_row), put_global(length_N, self._everywhere)
        return self.programs.prefill(loaded.params, loaded.lora, *arrays, *after)

    def begins(self, prompt: Sequence[int]) -> bool:
        """Whether a prompt begins with the prefix and has a token after it."""
        length = len(self.prefix)
        return 0 < length < len(prompt) and tuple(prompt[:length]) == self.prefix

    def held(self, prompt: Sequence[int]) -> int:
        """Tokens of a prompt that its row holds: those after the prefix, where it begins with that."""
        return len(prompt) - (len(self.prefix) if self.begins(prompt) else 0)

    def insert(
        self,
        state: DecodeState,
        prefilled: PrefilledPrompts,
        prompts: Sequence[int],
        rows: Sequence[int],
        requests: Sequence[Request],
    ) -> DecodeState:
        """Begins each request in its row, with its prompt's number among the prefilled ones."""
        spare = self.sizes.prefill_rows - len(requests)
        prompt_R = np.array([*prompts, *[0] * spare], np.int32)
        row_R = np.array([*rows, *[self.sizes.max_rows] * spare], np.int32)  # a row that there is not is left out
        self.used.add(names.insert_name(prefilled.keys_LNPGK.shape[2], state.cache.capacity))
        arrays = prompt_R, row_R, sampling_state([*requests, *[requests[0]] * spare])
        return self.programs.insert(state, prefilled, *put_global(arrays, self._everywhere))

    def resize(self, state: DecodeState, capacity: int) -> DecodeState:
        """The rows in a cache of this capacity, by way of those between, of which there are few programs."""
        capacities = self.sizes.capacities
        while (now := state.cache.capacity) != capacity:
            neighbour = capacities[capacities.index(now) + (1 if capacity > now else -1)]
            self.used.add(names.resize_name(state.row_count, now, neighbour))
            resized = self.programs.resize(state, capacity=neighbour)
            _free(state)
            state = resized
        return state

    def compact(self, state: DecodeState, kept: Sequence[Sequence[int]], rows: int) -> DecodeState:
        """So many rows, with those that are kept of each batch shard first; `kept` counts within the shard."""
        self.used.add(names.compact_name(state.row_count, rows, state.cache.capacity))
        row_SR = np.zeros((len(kept), rows // len(kept)), np.int32)  # spare rows copy the first one and do not run
        for shard, of_shard in enumerate(kept):
            row_SR[shard, : len(of_shard)] = of_shard
        compacted = self.programs.compact(state, put_global(row_SR.reshape(-1), self._by_row))
        _free(state)
        return compacted

    def decode_chunk(
        self, loaded: LoadedParams, state: DecodeState, active: Collection[int], *, steps: int, max_idle: int
    ) -> tuple[DecodeState, SampledTokens]:
        """Samples in the active rows for `steps` steps, or until `max_idle` rows do not run; NumPy arrays."""
        self.used.add(names.decode_name(state.row_count, state.cache.capacity))
        active_B = np.array([row in active for row in range(state.row_count)])
        state, sampled = self.programs.decode_chunk(
            loaded.weights,
            loaded.lora,
            state,
            put_global(active_B, self._by_row),
            *put_global((self.stop_ids, self._score_temperature, np.int32(max_idle)), self._everywhere),
            *([loaded.prefix] if self.prefix else []),
            steps=steps,
        )
        sampled = fetch(sampled)
        self.row_steps += int(sampled.steps) * state.row_count
        self.tokens += int(sampled.count_B.sum())
        return state, sampled


def sampling_state(requests: Sequence[Request]) -> SamplingState:
    """How each request is sampled, as NumPy arrays with one entry per request."""
    samplings = [request.sampling for request in requests]
    return SamplingState(
        key_data=np.stack([np.asarray(request.key, np.uint32) for request in requests]),
        rules=SamplingRules(
            temperature=np.array([sampling.temperature for sampling in samplings], np.float32),
            top_k=np.array([sampling.top_k for sampling in samplings], np.int32),
            top_p=np.array([sampling.top_p for sampling in samplings], np.float32),
            min_p=np.array([sampling.min_p for sampling in samplings], np.float32),
        ),
        max_new_tokens=np.array([sampling.max_new_tokens for sampling in samplings], np.int32),
    )


def _free(state: DecodeState) -> None:
    """Frees a cache that was copied into another: two exist meanwhile, and never three."""
    for leaf in jax.tree.leaves(state.cache.layers):
        leaf.delete()
