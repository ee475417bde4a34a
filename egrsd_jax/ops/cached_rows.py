"""Rows of a key-value cache, as attention of one new token per row reads them.

B rows, S tokens that a cache has room for in each (the capacity), G key-value heads, K head_dim.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

MASKED = -1e30  # not -inf: a row that may attend to nothing must stay finite


class CachedRows(NamedTuple):
    """What the new tokens attend to: keys [B, G, K, S] and values [B, G, S, K], and how many tokens each row holds.

    A row's tokens are in the places 0 to length - 1; the new one is the last of them. Keys and values that were
    divided by a scale for each token, as whole numbers are, come with these scales [B, G, S]. Rows may follow a
    `prefix` (`prefix_attention.Prefix`) that they do not hold; `before_B` says how many of its tokens come before each
    row's own, all of them or none.
    """

    keys: Any
    values: Any
    length_B: Any
    key_scales: Any = None
    value_scales: Any = None
    prefix: Any = None
    before_B: Any = None


def held_blocks(length_B: jax.Array, capacity: int, block: int, window: int | None) -> tuple[jax.Array, jax.Array]:
    """The first block of each row that its last token attends to, and how many there are from it on; int32 [B].

    A row without tokens has one, so that no row is left without a result.
    """
    last_B = jnp.clip(length_B - 1, 0, capacity - 1) // block
    first_B = jnp.maximum(length_B - (window or capacity), 0) // block
    first_B = jnp.minimum(first_B, last_B)
    return first_B, last_B - first_B + 1
