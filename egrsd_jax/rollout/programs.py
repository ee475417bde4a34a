"""What the engine compiles: read prompts, put them into rows, draw tokens, change the cache's size, keep some rows.

B rows, N prompts that are read together, P their positions, R rows that begin together or are kept, T tokens of a
burst, S slots of the cache, V vocabulary.
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
from egrsd_jax.model.decode import DecodeWeights, decode, split_adapters
from egrsd_jax.model.decoder import Params, prefill
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
from egrsd_jax.ops.products import product
from egrsd_jax.rollout.sampling import SamplingRules, sample_tokens


class Prompts(NamedTuple):
    """Prompts that were read and wait for rows: what each ends with, and its keys and values."""

    hidden_ND: jax.Array
    keys_LNPGK: jax.Array
    values_LNPGK: jax.Array
    length_N: jax.Array


class Orders(NamedTuple):
    """How a row's completion is drawn: raw data of its random key, rules, how many tokens it may have; [B] or [R]."""

    key_data: Any
    rules: SamplingRules
    limit: Any


class Rows(NamedTuple):
    """Completions on their way. `hidden_BD` are the states from which each row's next token is drawn."""

    cache: Cache
    hidden_BD: Any
    orders: Orders
    drawn_B: Any  # tokens so far
    running_B: Any  # False: the row has ended, or holds nothing

    @property
    def row_count(self) -> int:
        """B, those that hold nothing among them."""
        return len(self.running_B)


class Drawn(NamedTuple):
    """What a burst drew: tokens and the policy's own log-probabilities of them, nats, of the whole distribution before
    any rule; how many each row was given; whether it goes on; and how many steps the burst took."""

    tokens_BT: Any
    logp_BT: Any
    count_B: Any
    running_B: Any
    steps: Any


def empty_rows(config: ModelConfig, *, rows: int, capacity: int, cache_dtype: str) -> Rows:
    """Rows that hold nothing."""
    key_words = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0))).size
    number, whole = jnp.zeros(rows), jnp.zeros(rows, jnp.int32)
    rules = SamplingRules(temperature=number, top_k=whole, top_p=number, min_p=number)
    return Rows(
        cache=caches.empty_cache(config, rows, capacity, cache_dtype),
        hidden_BD=jnp.zeros((rows, config.hidden_size), config.dtype),
        orders=Orders(jnp.zeros((rows, key_words), jnp.uint32), rules, whole),
        drawn_B=whole,
        running_B=jnp.zeros(rows, bool),
    )


class Programs(NamedTuple):
    """The functions below, jitted for one model on one mesh; `begin` and `draw` take over the rows they get."""

    empty: Callable[..., Rows]
    read_prompts: Callable[..., Prompts]
    begin: Callable[..., Rows]
    resize: Callable[..., Rows]
    keep: Callable[..., Rows]
    draw: Callable[..., tuple[Rows, Drawn]]


@cache
def programs(config: ModelConfig, mesh: Mesh) -> Programs:
    """The jitted programs. Rows lie the same before and after each of them, so that nothing compiles twice."""
    rows = rows_sharding(config, mesh)
    of_rows = batch_sharding(mesh)
    drawn = Drawn(of_rows, of_rows, of_rows, of_rows, replicated(mesh))
    return Programs(
        empty=jax.jit(
            partial(empty_rows, config), static_argnames=("rows", "capacity", "cache_dtype"), out_shardings=rows
        ),
        read_prompts=jax.jit(partial(read_prompts, config=config)),
        begin=jax.jit(begin, donate_argnums=0, out_shardings=rows),
        resize=jax.jit(resize, static_argnames="capacity", out_shardings=rows),
        keep=jax.jit(partial(keep, shards=batch_shards(mesh)), out_shardings=rows),
        draw=jax.jit(
            partial(draw, config=config), static_argnames="steps", donate_argnums=2, out_shardings=(rows, drawn)
        ),
    )


def rows_sharding(config: ModelConfig, mesh: Mesh) -> Rows:
    """Where `Rows` lie: rows over data and fsdp, the cache's heads over tensor where they divide."""
    of_rows, everywhere = batch_sharding(mesh), replicated(mesh)
    heads = TENSOR if config.num_kv_heads % mesh.shape[TENSOR] == 0 else None
    of_heads = NamedSharding(mesh, PartitionSpec(BATCH, heads))
    layer = LayerCache(of_heads, of_heads, of_heads, of_heads)
    return Rows(
        cache=Cache((layer,) * config.num_layers, cursor=everywhere, length_B=of_rows),
        hidden_BD=of_rows,
        orders=Orders(of_rows, SamplingRules(*(of_rows,) * 4), of_rows),
        drawn_B=of_rows,
        running_B=of_rows,
    )


def read_prompts(
    params: Params, lora: Lora | None, tokens_NP: jax.Array, length_N: jax.Array, *, config: ModelConfig
) -> Prompts:
    """Prompts padded on the right, read once however many completions they are to have."""
    return Prompts(*prefill(params, config, tokens_NP, length_N, lora=lora), length_N)


def begin(rows: Rows, prompts: Prompts, prompt_R: jax.Array, row_R: jax.Array, orders: Orders) -> Rows:
    """Rows `row_R` begin completions of the prompts `prompt_R`; a row number of B or more is nobody's."""

    def put(old: jax.Array, new: jax.Array) -> jax.Array:
        return old.at[row_R].set(new, mode="drop")

    return Rows(
        cache=caches.insert(rows.cache, prompts.keys_LNPGK, prompts.values_LNPGK, prompts.length_N, prompt_R, row_R),
        hidden_BD=put(rows.hidden_BD, prompts.hidden_ND[prompt_R]),
        orders=jax.tree.map(put, rows.orders, orders),
        drawn_B=put(rows.drawn_B, jnp.zeros_like(row_R)),
        running_B=put(rows.running_B, jnp.ones_like(row_R, bool)),
    )


def resize(rows: Rows, *, capacity: int) -> Rows:
    """The same rows with room for `capacity` tokens each."""
    return rows._replace(cache=caches.resize(rows.cache, capacity))


def keep(rows: Rows, row_R: jax.Array, *, shards: int) -> Rows:
    """Some of the rows of each of the mesh's batch shards, as many of each; `row_R` counts within the shard.

    So no row leaves its device: a choice among all rows would add up caches over all devices.
    """

    def kept(old: jax.Array) -> jax.Array:
        by_shard, place_SR = old.reshape(shards, -1, *old.shape[1:]), row_R.reshape(shards, -1)
        chosen = jax.vmap(lambda rows, places: rows[places])(by_shard, place_SR)
        return chosen.reshape(-1, *old.shape[1:])

    new = jax.tree.map(kept, rows._replace(cache=rows.cache._replace(cursor=None)))
    return new._replace(cache=new.cache._replace(cursor=rows.cache.cursor))


def draw(
    weights: DecodeWeights,
    lora: Lora | None,
    rows: Rows,
    keep_B: jax.Array,
    stop_ids: jax.Array,
    score_temperature: jax.Array,
    enough: jax.Array,
    *,
    config: ModelConfig,
    steps: int,
) -> tuple[Rows, Drawn]:
    """A token a step for every running row, for `steps` steps, or until at least `enough` rows do not run.

    `keep_B` is False for rows that are to end before the first step. Token t of a completion is drawn with
    `fold_in(its key, t)`. Log-probabilities are of logits / score_temperature.
    """
    adapters = split_adapters(lora, config)  # sliced once, and not in every turn of the loop
    keys_B = jax.random.wrap_key_data(rows.orders.key_data)
    B = len(keep_B)

    def unfinished(loop: tuple[Rows, Drawn]) -> jax.Array:
        return (loop[1].steps < steps) & (jnp.sum(~loop[0].running_B) < enough)

    def advance(loop: tuple[Rows, Drawn]) -> tuple[Rows, Drawn]:
        rows, drawn = loop
        hidden_BD = split_hidden(rows.hidden_BD)
        logit_BV = product("bd,dv->bv", hidden_BD, weights.head_DV, dtype=jnp.float32)
        logit_BV = split_rows(logit_BV)
        keys_now = jax.vmap(jax.random.fold_in)(keys_B, rows.drawn_B)
        token_B = sample_tokens(keys_now, logit_BV, rows.orders.rules)
        logp_BV = jax.nn.log_softmax(logit_BV / score_temperature)
        logp_B = jnp.take_along_axis(logp_BV, token_B[:, None], axis=1)[:, 0]
        drawn = _record(drawn, token_B, logp_B, rows.running_B)
        hidden_BD, cache = decode(weights, config, token_B, rows.cache, adapters)
        ended_B = jnp.any(token_B[:, None] == stop_ids[None, :], axis=1) | (rows.drawn_B + 1 >= rows.orders.limit)
        running_B = rows.running_B & ~ended_B
        rows = rows._replace(cache=cache, hidden_BD=hidden_BD, drawn_B=rows.drawn_B + 1, running_B=running_B)
        return rows, drawn

    nothing = Drawn(
        tokens_BT=jnp.zeros((B, steps), jnp.int32),
        logp_BT=jnp.zeros((B, steps), jnp.float32),
        count_B=jnp.zeros(B, jnp.int32),
        running_B=keep_B,
        steps=jnp.int32(0),
    )
    rows, drawn = jax.lax.while_loop(unfinished, advance, (rows._replace(running_B=rows.running_B & keep_B), nothing))
    return rows, drawn._replace(running_B=rows.running_B)


def _record(drawn: Drawn, token_B: jax.Array, logp_B: jax.Array, running_B: jax.Array) -> Drawn:
    """`drawn` with one more token in every running row."""
    write = partial(jax.lax.dynamic_update_index_in_dim, index=drawn.steps, axis=1)
    return drawn._replace(
        tokens_BT=write(drawn.tokens_BT, jnp.where(running_B, token_B, 0)),
        logp_BT=write(drawn.logp_BT, jnp.where(running_B, logp_B, 0.0)),
        count_B=drawn.count_B + running_B.astype(jnp.int32),
        steps=drawn.steps + 1,
    )
