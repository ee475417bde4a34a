"""What the engine compiles: prefill, insert prompts into rows, decode a chunk, resize the cache, compact the rows.

B rows, N prompts of a prefill, P their positions, R rows that begin together or are kept, T tokens of a decode chunk,
V vocabulary.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from egrsd_jax.model import cache as caches
from egrsd_jax.model.cache import Cache, LayerCache
from egrsd_jax.model.config import ModelConfig
from egrsd_jax.model.decode import DecodeWeights, decode, split_adapters, split_prefix
from egrsd_jax.model.decoder import Params, prefill, read_prefix
from egrsd_jax.model.lora import Lora
from egrsd_jax.model.sharding import (
    BATCH,
    TENSOR,
    batch_sharding,
    batch_shards,
    replicated,
    split_hidden,
    split_rows,
)
from egrsd_jax.ops.prefix_attention import Prefix
from egrsd_jax.ops.products import product
from egrsd_jax.rollout.sampling import SamplingRules, sample_tokens


class PrefilledPrompts(NamedTuple):
    """Prompts after prefill: the last hidden state of each, its keys and values, and how many tokens it has.

    Of prompts that follow a prefix that is kept once, these are the tokens after it; `before_N` counts its own.
    """

    hidden_ND: jax.Array
    keys_LNPGK: jax.Array
    values_LNPGK: jax.Array
    length_N: jax.Array
    before_N: jax.Array


class SamplingState(NamedTuple):
    """How each row is sampled: raw data of its random key, its rules, and its most new tokens; [B] or [R]."""

    key_data: Any
    rules: SamplingRules
    max_new_tokens: Any


class DecodeState(NamedTuple):
    """Unfinished completions, one per row. The next token of a row is sampled from `hidden_BD`."""

    cache: Cache
    hidden_BD: Any
    sampling: SamplingState
    count_B: Any  # tokens sampled so far
    running_B: Any  # False: the row has ended, or has no completion

    @property
    def row_count(self) -> int:
        """B, rows without a completion included."""
        return len(self.running_B)


class SampledTokens(NamedTuple):
    """The tokens of a decode chunk and their log-probabilities, nats, of the whole distribution before any rule; how
    many tokens each row has; whether it is still running; and how many steps the chunk took."""

    tokens_BT: Any
    logp_BT: Any
    count_B: Any
    running_B: Any
    steps: Any


def empty_state(config: ModelConfig, *, rows: int, capacity: int, cache_dtype: str) -> DecodeState:
    """Rows without completions."""
    key_words = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0))).size
    number, whole = jnp.zeros(rows), jnp.zeros(rows, jnp.int32)
    rules = SamplingRules(temperature=number, top_k=whole, top_p=number, min_p=number)
    return DecodeState(
        cache=caches.empty_cache(config, rows, capacity, cache_dtype),
        hidden_BD=jnp.zeros((rows, config.hidden_size), config.dtype),
        sampling=SamplingState(jnp.zeros((rows, key_words), jnp.uint32), rules, whole),
        count_B=whole,
        running_B=jnp.zeros(rows, bool),
    )


class Programs(NamedTuple):
    """The functions below, jitted for one model on one mesh; `insert` and `decode_chunk` donate the state they get."""

    empty_state: Callable[..., DecodeState]
    read_prefix: Callable[..., Prefix]
    prefill: Callable[..., PrefilledPrompts]
    insert: Callable[..., DecodeState]
    resize: Callable[..., DecodeState]
    compact: Callable[..., DecodeState]
    decode_chunk: Callable[..., tuple[DecodeState, SampledTokens]]


@cache
def programs(config: ModelConfig, mesh: Mesh, weights_dtype: str | None = None) -> Programs:
    """The jitted programs. The state is sharded alike before and after each of them, so that nothing compiles twice.

    `weights_dtype` is that of the products of prefill, by default the model's; decoding has it in its weights.
    """
    state = state_sharding(config, mesh)
    prefilling = config.replace(dtype=weights_dtype or config.dtype)
    by_row = batch_sharding(mesh)
    sampled = SampledTokens(by_row, by_row, by_row, by_row, replicated(mesh))
    return Programs(
        empty_state=jax.jit(
            partial(empty_state, config), static_argnames=("rows", "capacity", "cache_dtype"), out_shardings=state
        ),
        read_prefix=jax.jit(
            partial(prefix_of, config=prefilling), static_argnums=2, out_shardings=prefix_sharding(config, mesh)
        ),
        prefill=jax.jit(partial(prefill_prompts, config=prefilling)),
        insert=jax.jit(insert, donate_argnums=0, out_shardings=state),
        resize=jax.jit(resize, static_argnames="capacity", out_shardings=state),
        compact=jax.jit(partial(compact, shards=batch_shards(mesh)), out_shardings=state),
        decode_chunk=jax.jit(
            partial(decode_chunk, config=config),
            static_argnames="steps",
            donate_argnums=2,
            out_shardings=(state, sampled),
        ),
    )


def state_sharding(config: ModelConfig, mesh: Mesh) -> DecodeState:
    """Shardings of a `DecodeState`: rows over data and fsdp, the cache's heads over tensor where they divide."""
    by_row = batch_sharding(mesh)
    by_head = NamedSharding(mesh, PartitionSpec(BATCH, _heads_axis(config, mesh)))
    layer = LayerCache(by_head, by_head, by_head, by_head)
    return DecodeState(
        cache=Cache((layer,) * config.num_layers, by_row, by_row),
        hidden_BD=by_row,
        sampling=SamplingState(by_row, SamplingRules(*(by_row,) * 4), by_row),
        count_B=by_row,
        running_B=by_row,
    )


def prefix_sharding(config: ModelConfig, mesh: Mesh) -> NamedSharding:
    """Of a prefix's keys and values: heads as the cache has them, on every device that has rows."""
    return NamedSharding(mesh, PartitionSpec(None, _heads_axis(config, mesh)))


def _heads_axis(config: ModelConfig, mesh: Mesh) -> str | None:
    """The mesh axis that key-value heads are split over, where they divide."""
    return TENSOR if config.num_kv_heads % mesh.shape[TENSOR] == 0 else None


def prefix_of(params: Params, lora: Lora | None, tokens: tuple[int, ...], *, config: ModelConfig) -> Prefix:
    """What all prompts begin with, read once."""
    return read_prefix(params, config, tokens, lora=lora)


def prefill_prompts(
    params: Params,
    lora: Lora | None,
    tokens_NP: jax.Array,
    length_N: jax.Array,
    prefix: Prefix | None = None,
    *,
    config: ModelConfig,
) -> PrefilledPrompts:
    """Prompts padded on the right, each read once however many completions it gets.

    Those that follow a prefix are given and returned without it.
    """
    hidden_ND, keys, values = prefill(params, config, tokens_NP, length_N, lora=lora, prefix=prefix)
    before_N = jnp.full_like(length_N, 0 if prefix is None else prefix.length)
    return PrefilledPrompts(hidden_ND, keys, values, length_N, before_N)


def insert(
    state: DecodeState, prompts: PrefilledPrompts, prompt_R: jax.Array, row_R: jax.Array, sampling: SamplingState
) -> DecodeState:
    """Begins completions of the prompts `prompt_R` in the rows `row_R`; a row number of B or more is left out."""

    def put(old: jax.Array, new: jax.Array) -> jax.Array:
        return old.at[row_R].set(new.astype(old.dtype), mode="drop")  # prefill may be narrower

    of_prompts = prompts.keys_LNPGK, prompts.values_LNPGK, prompts.length_N, prompts.before_N
    return DecodeState(
        cache=caches.insert(state.cache, *of_prompts, prompt_R, row_R),
        hidden_BD=put(state.hidden_BD, prompts.hidden_ND[prompt_R]),
        sampling=jax.tree.map(put, state.sampling, sampling),
        count_B=put(state.count_B, jnp.zeros_like(row_R)),
        running_B=put(state.running_B, jnp.ones_like(row_R, bool)),
    )


def resize(state: DecodeState, *, capacity: int) -> DecodeState:
    """The same rows in a cache with room for `capacity` tokens each."""
    return state._replace(cache=caches.resize(state.cache, capacity))


def compact(state: DecodeState, row_R: jax.Array, *, shards: int) -> DecodeState:
    """Some of the rows of each of the mesh's batch shards, as many of each; `row_R` counts within the shard.

    So no row leaves its device: a choice among all rows would add up caches over all devices.
    """

    def chosen(old: jax.Array) -> jax.Array:
        by_shard, row_SR = old.reshape(shards, -1, *old.shape[1:]), row_R.reshape(shards, -1)
        taken = jax.vmap(lambda values, rows: values[rows])(by_shard, row_SR)
        return taken.reshape(-1, *old.shape[1:])

    return jax.tree.map(chosen, state)


def decode_chunk(
    weights: DecodeWeights,
    lora: Lora | None,
    state: DecodeState,
    active_B: jax.Array,
    stop_ids: jax.Array,
    score_temperature: jax.Array,
    max_idle: jax.Array,
    prefix: Prefix | None = None,
    *,
    config: ModelConfig,
    steps: int,
) -> tuple[DecodeState, SampledTokens]:
    """Samples one token per step in every running row, for `steps` steps or until `max_idle` rows do not run.

    `active_B` is False for rows that end before the first step. Token t of a completion is sampled with
    `fold_in(its key, t)`. Log-probabilities are of logits / score_temperature. Rows may follow the `prefix`.
    """
    # Sliced once, and not in every turn of the loop.
    adapters, prefixes = split_adapters(lora, config), split_prefix(prefix, config)
    keys_B = jax.random.wrap_key_data(state.sampling.key_data)
    B = len(active_B)

    def unfinished(loop: tuple[DecodeState, SampledTokens]) -> jax.Array:
        return (loop[1].steps < steps) & (jnp.sum(~loop[0].running_B) < max_idle)

    def advance(loop: tuple[DecodeState, SampledTokens]) -> tuple[DecodeState, SampledTokens]:
        state, sampled = loop
        hidden_BD = split_hidden(state.hidden_BD)
        logit_BV = product("bd,dv->bv", hidden_BD.astype(weights.head_DV.dtype), weights.head_DV, dtype=jnp.float32)
        logit_BV = logit_BV[:, : config.vocab_size]
        logit_BV = split_rows(logit_BV)
        keys_now = jax.vmap(jax.random.fold_in)(keys_B, state.count_B)
        token_B = sample_tokens(keys_now, logit_BV, state.sampling.rules)
        logp_BV = jax.nn.log_softmax(logit_BV / score_temperature)
        logp_B = jnp.take_along_axis(logp_BV, token_B[:, None], axis=1)[:, 0]
        sampled = _record(sampled, token_B, logp_B, state.running_B)
        hidden_BD, cache = decode(weights, config, token_B, state.cache, adapters, prefixes)
        is_stop_B = jnp.any(token_B[:, None] == stop_ids[None, :], axis=1)
        ended_B = is_stop_B | (state.count_B + 1 >= state.sampling.max_new_tokens)
        running_B = state.running_B & ~ended_B
        cache = cache._replace(length_B=jnp.where(running_B, cache.length_B, 0))  # nothing is read for an ended row
        state = state._replace(cache=cache, hidden_BD=hidden_BD, count_B=state.count_B + 1, running_B=running_B)
        return state, sampled

    nothing = SampledTokens(
        tokens_BT=jnp.zeros((B, steps), jnp.int32),
        logp_BT=jnp.zeros((B, steps), jnp.float32),
        count_B=jnp.zeros(B, jnp.int32),
        running_B=active_B,
        steps=jnp.int32(0),
    )
    running_B = state.running_B & active_B
    cache = state.cache._replace(length_B=jnp.where(running_B, state.cache.length_B, 0))
    start = state._replace(cache=cache, running_B=running_B), nothing
    state, sampled = jax.lax.while_loop(unfinished, advance, start)
    return state, sampled._replace(running_B=state.running_B)


def _record(sampled: SampledTokens, token_B: jax.Array, logp_B: jax.Array, running_B: jax.Array) -> SampledTokens:
    """`sampled` with one more token in every running row."""
    write = partial(jax.lax.dynamic_update_index_in_dim, index=sampled.steps, axis=1)
    return sampled._replace(
        tokens_BT=write(sampled.tokens_BT, jnp.where(running_B, token_B, 0)),
        logp_BT=write(sampled.logp_BT, jnp.where(running_B, logp_B, 0.0)),
        count_B=sampled.count_B + running_B.astype(jnp.int32),
        steps=sampled.steps + 1,
    )
