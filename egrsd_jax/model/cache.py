"""The key-value cache: a value that goes into a forward pass and comes out of it."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Cache(NamedTuple):
    """Keys and values of every position seen so far, one pair of arrays a layer.

    G key-value heads, K head_dim, S slots. Keys lie as [B, G, K, S] and values as [B, G, S, K], so that both
    products of a decoding step read memory in order. `valid_BS` says which slots hold a real token and `position_BS`
    where in its row that token stands: prompts are padded on the right, so slots are not positions.
    """

    keys: tuple[jax.Array, ...]
    values: tuple[jax.Array, ...]
    valid_BS: jax.Array
    position_BS: jax.Array


def cache_from_prefill(key_LBSGK: jax.Array, value_LBSGK: jax.Array, valid_BS: jax.Array, slots: int) -> Cache:
    """A cache with room for `slots` tokens whose first S slots hold prompts that begin in slot 0."""
    room = slots - valid_BS.shape[1]
    if room < 0:
        raise ValueError(f"slots is {slots}, fewer than the {valid_BS.shape[1]} positions of the prompt")
    keys = jnp.pad(key_LBSGK.transpose(0, 1, 3, 4, 2), ((0, 0),) * 4 + ((0, room),))
    values = jnp.pad(value_LBSGK.transpose(0, 1, 3, 2, 4), ((0, 0),) * 3 + ((0, room), (0, 0)))
    position_BS = jnp.broadcast_to(jnp.arange(slots, dtype=jnp.int32), (valid_BS.shape[0], slots))
    return Cache(tuple(keys), tuple(values), jnp.pad(valid_BS, ((0, 0), (0, room))), position_BS)


def claim_slot(cache: Cache, position_B: jax.Array, slot: jax.Array) -> Cache:
    """`cache` where `slot` counts as a real token at `position_B`; its keys and values are written layer by layer."""
    write = partial(jax.lax.dynamic_update_index_in_dim, index=slot, axis=1)
    return cache._replace(
        valid_BS=write(cache.valid_BS, jnp.ones_like(position_B, dtype=bool)),
        position_BS=write(cache.position_BS, position_B.astype(jnp.int32)),
    )


def visible_slots(cache: Cache, position_B: jax.Array, window: int | None) -> jax.Array:
    """Slots [B, S] that a token at `position_B` looks at: all real ones, or those of the last `window` positions."""
    if window is None:
        return cache.valid_BS
    return cache.valid_BS & (cache.position_BS > position_B[:, None] - window)


def write_slot(
    cache_keys: jax.Array, cache_values: jax.Array, key_BGK: jax.Array, value_BGK: jax.Array, slot: jax.Array
):
    """One layer's keys and values with one token's written into `slot`, the same slot in every row."""
    keys = jax.lax.dynamic_update_index_in_dim(cache_keys, key_BGK, slot, axis=3)
    values = jax.lax.dynamic_update_index_in_dim(cache_values, value_BGK, slot, axis=2)
    return keys, values
