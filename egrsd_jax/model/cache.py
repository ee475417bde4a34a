"""The key-value cache: a value that goes into a forward pass and comes out of it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Cache(NamedTuple):
    """Keys and values of every position seen so far, one pair of arrays a layer.

    G key-value heads, K head_dim, S slots. Keys lie as [B, G, K, S] and values as [B, G, S, K], so that both
    products of a decoding step read memory in order. `valid_BS` says which slots hold a real token.
    """

    keys: tuple[jax.Array, ...]
    values: tuple[jax.Array, ...]
    valid_BS: jax.Array


def cache_from_prefill(key_LBSGK: jax.Array, value_LBSGK: jax.Array, valid_BS: jax.Array, slots: int) -> Cache:
    """A cache with room for `slots` tokens whose first S slots hold the keys and values of a prompt."""
    room = slots - valid_BS.shape[1]
    if room < 0:
        raise ValueError(f"slots is {slots}, fewer than the {valid_BS.shape[1]} positions of the prompt")
    keys = jnp.pad(key_LBSGK.transpose(0, 1, 3, 4, 2), ((0, 0),) * 4 + ((0, room),))
    values = jnp.pad(value_LBSGK.transpose(0, 1, 3, 2, 4), ((0, 0),) * 3 + ((0, room), (0, 0)))
    return Cache(tuple(keys), tuple(values), jnp.pad(valid_BS, ((0, 0), (0, room))))


def write_slot(
    cache_keys: jax.Array, cache_values: jax.Array, key_BGK: jax.Array, value_BGK: jax.Array, slot: jax.Array
):
    """One layer's keys and values with one token's written into `slot`, the same slot in every row."""
    keys = jax.lax.dynamic_update_index_in_dim(cache_keys, key_BGK, slot, axis=3)
    values = jax.lax.dynamic_update_index_in_dim(cache_values, value_BGK, slot, axis=2)
    return keys, values
