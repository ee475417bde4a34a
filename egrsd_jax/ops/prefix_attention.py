"""Attention to tokens that many sequences begin with, whose keys and values are there once and not once for each.

A softmax over two sets of keys is exact in two parts, each relative to its own largest logit: `joined` scales them to
the larger of the two. To the shared keys all rows, positions and heads of a group are one matrix product.

B rows, S positions of each, H query heads, G key-value heads, R = H / G, K head_dim; C tokens of the prefix.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from egrsd_jax.ops.cached_rows import MASKED
from egrsd_jax.ops.products import product


class Prefix(NamedTuple):
    """Keys and values of C tokens that all sequences of a batch begin with, read once, [G, C, K] each.

    Of a stack of L layers they are [L, G, C, K].
    """

    keys: Any
    values: Any

    @property
    def length(self) -> int:
        """C."""
        return self.keys.shape[-2]


class SoftmaxPart(NamedTuple):
    """Attention to some of the keys, not yet divided by the sum over all; float32, or float64 of float64 queries.

    highest: the largest logit of each query and head, [..., H].
    total: the sum of exp(logit - highest), [..., H].
    weighted: the sum of exp(logit - highest) times the value, [..., H, K].
    """

    highest: Any
    total: Any
    weighted: Any


def prefix_part(query_BSHK: jax.Array, prefix: Prefix, visible_BSC: jax.Array | None = None) -> SoftmaxPart:
    """The part of the prefix's tokens, of those that are visible to a position where that is given.

    The largest logit has no gradient: what `joined` makes of it does not depend on it.
    """
    B, S, H, K = query_BSHK.shape
    G, dtype = prefix.keys.shape[0], query_BSHK.dtype
    wide = np.promote_types(dtype, np.float32)
    query_BSGRK = query_BSHK.reshape(B, S, G, H // G, K)
    logit_GBSRC = product("bsgrk,gck->gbsrc", query_BSGRK, prefix.keys.astype(dtype), dtype=wide) * K**-0.5
    if visible_BSC is not None:
        logit_GBSRC = jnp.where(visible_BSC[None, :, :, None, :], logit_GBSRC, MASKED)
    highest_GBSR = jax.lax.stop_gradient(jnp.max(logit_GBSRC, axis=-1))
    weight_GBSRC = jnp.exp(logit_GBSRC - highest_GBSR[..., None])
    total_GBSR = jnp.sum(weight_GBSRC, axis=-1)
    weighted_GBSRK = product("gbsrc,gck->gbsrk", weight_GBSRC.astype(dtype), prefix.values.astype(dtype), dtype=wide)
    highest_BSH, total_BSH = (jnp.moveaxis(x, 0, 2).reshape(B, S, H) for x in (highest_GBSR, total_GBSR))
    return SoftmaxPart(highest_BSH, total_BSH, jnp.moveaxis(weighted_GBSRK, 0, 2).reshape(B, S, H, K))


def joined(one: SoftmaxPart, other: SoftmaxPart) -> jax.Array:
    """Attention to the keys of both parts, [..., H, K]: one softmax over all of them."""
    highest = jnp.maximum(one.highest, other.highest)
    of_one, of_other = jnp.exp(one.highest - highest), jnp.exp(other.highest - highest)
    total = one.total * of_one + other.total * of_other
    return (one.weighted * of_one[..., None] + other.weighted * of_other[..., None]) / total[..., None]
