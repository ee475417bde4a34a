"""Reductions over the real entries of a padded array: whatever padding holds changes neither a value nor a gradient.

A mask is bool, int or float; non-zero is real. Results are float32, and no real entry at all is no error: the sum and
the mean of nothing are 0.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from egrsd_jax.ops.arguments import check_choice, check_same_shape, check_shapes, check_static_int

REDUCTIONS = ("token", "sequence")  # `constant`, which needs a length, comes on top

Axis = int | tuple[int, ...] | None


def is_real(mask: ArrayLike) -> jax.Array:
    """The mask as bool: True where it is not zero."""
    return jnp.asarray(mask).astype(bool)


def fill_padding(values: ArrayLike, mask: ArrayLike, fill: float = 0.0) -> jax.Array:
    """The values in float32 with `fill` wherever the mask is zero.

    Do this before any arithmetic: NaN or infinity in padding, once it has met a function, comes back through its
    gradient as 0 * NaN = NaN even if the result is masked afterwards.

    Raises:
        ValueError: `values` and `mask` differ in shape.
    """
    check_same_shape(values=values, mask=mask)
    return jnp.where(is_real(mask), jnp.asarray(values).astype(jnp.float32), jnp.float32(fill))


def masked_count(mask: ArrayLike, *, axis: Axis = None) -> jax.Array:
    """How many entries are real. Counted in int32, since a float32 count stops growing at 2^24; returned as float32."""
    return jnp.sum(is_real(mask), axis=axis, dtype=jnp.int32).astype(jnp.float32)


def masked_sum(values: ArrayLike, mask: ArrayLike, *, axis: Axis = None) -> jax.Array:
    """Sum over the real entries; 0 where there are none."""
    return jnp.sum(fill_padding(values, mask), axis=axis, where=is_real(mask))


def masked_mean(values: ArrayLike, mask: ArrayLike, *, axis: Axis = None) -> jax.Array:
    """Mean over the real entries; 0 where there are none."""
    return masked_sum(values, mask, axis=axis) / jnp.maximum(masked_count(mask, axis=axis), 1.0)


def masked_max(
    values: ArrayLike, mask: ArrayLike, *, initial: float, axis: Axis = None, keepdims: bool = False
) -> jax.Array:
    """The larger of `initial` and the maximum over the real entries, so `initial` where there are none."""
    return jnp.max(fill_padding(values, mask), axis=axis, where=is_real(mask), initial=initial, keepdims=keepdims)


def masked_min(
    values: ArrayLike, mask: ArrayLike, *, initial: float, axis: Axis = None, keepdims: bool = False
) -> jax.Array:
    """The smaller of `initial` and the minimum over the real entries, so `initial` where there are none."""
    return jnp.min(fill_padding(values, mask), axis=axis, where=is_real(mask), initial=initial, keepdims=keepdims)


def masked_quantile(values: ArrayLike, mask: ArrayLike, quantile: ArrayLike) -> jax.Array:
    """Quantile over all real entries, linear between the two nearest ones (as NumPy's default); 0 where there are none.

    A quantile that falls on an entry is that entry exactly, so `<=` and `>=` against it have one answer: in float32
    0.7 * 20 may come out slightly off 14, and then it is taken as 14.

    Args:
        values: any shape.
        mask: the same shape.
        quantile: in [0, 1], a scalar or a vector.

    Returns:
        float32 of the shape of `quantile`; NaN if a real entry is.
    """
    filled = fill_padding(values, mask, jnp.inf).ravel()
    quantile = jnp.asarray(quantile, jnp.float32)
    if filled.size == 0:
        return jnp.zeros_like(quantile)
    last = jnp.maximum(masked_count(mask) - 1.0, 0.0)
    position = quantile * last
    nearest = jnp.round(position)
    rounding = 4.0 * jnp.finfo(jnp.float32).eps * last
    position = jnp.where(jnp.abs(position - nearest) <= rounding, nearest, position)
    below = jnp.floor(position)
    ordered = jnp.sort(filled)
    low, high = (ordered[rank.astype(jnp.int32)] for rank in (below, jnp.minimum(below + 1.0, last)))
    between = low + (position - below) * (high - low)
    result = jnp.where(jnp.any(jnp.isnan(filled)), jnp.float32(jnp.nan), between)
    return jnp.where(masked_count(mask) > 0, result, jnp.float32(0.0))


def reduction_count(mask_BT: ArrayLike, reduction: str, *, max_length: int | None = None) -> jax.Array:
    """What `reduce_tokens` divides by: real tokens (`token`), sequences that have any (`sequence`), or `max_length`
    times these (`constant`).

    A batch's loss, and so its gradient, is exactly the sum over micro-batches m of `count_m / count_batch * loss_m`.

    Args:
        mask_BT: B sequences, T completion positions.
        reduction: `token`, `sequence` or `constant`.
        max_length: needed by `constant` alone, tokens.

    Raises:
        ValueError: another reduction, a mask that is not [B, T], or no `max_length` for `constant`.
    """
    check_choice("reduction", reduction, (*REDUCTIONS, "constant"))
    check_shapes(mask_BT=mask_BT)
    if reduction == "token":
        return masked_count(mask_BT)
    sequences = masked_count(jnp.any(is_real(mask_BT), axis=1))
    if reduction == "sequence":
        return sequences
    return sequences * check_static_int("max_length", max_length, 1)


def reduce_tokens(
    values_BT: ArrayLike, mask_BT: ArrayLike, reduction: str, *, max_length: int | None = None
) -> jax.Array:
    """Mean over the real tokens (`token`), over non-empty sequences of each one's own mean (`sequence`), or of each
    one's sum / `max_length` (`constant`, which gives long and short completions' tokens one weight: Dr.GRPO).

    Args:
        values_BT: a number for each token.
        mask_BT: non-zero on completion tokens.
        reduction: `token`, `sequence` or `constant`.
        max_length: needed by `constant` alone, tokens.

    Returns:
        A float32 scalar; 0 for a batch without a real token.

    Raises:
        ValueError: another reduction, shapes that disagree, or no `max_length` for `constant`.
    """
    check_shapes(values_BT=values_BT, mask_BT=mask_BT)
    count = jnp.maximum(reduction_count(mask_BT, reduction, max_length=max_length), 1.0)
    if reduction == "sequence":
        # An empty sequence's mean is 0 here, and the count leaves it out.
        return jnp.sum(masked_mean(values_BT, mask_BT, axis=1)) / count
    return masked_sum(values_BT, mask_BT) / count


def lowest_weight(array_BT: ArrayLike, mask_BT: ArrayLike, share: ArrayLike) -> jax.Array:
    """N / K at the K = max(1, floor(share N)) lowest of the N real entries, 0 elsewhere: a mean over all is theirs.

    Of equal entries the first ones count, row by row.

    Args:
        array_BT: anything in padding.
        mask_BT: non-zero on real entries.
        share: over 0, at most 1.

    Returns:
        BT in float32, without a gradient.
    """
    check_shapes(array_BT=array_BT, mask_BT=mask_BT)
    order = jnp.argsort(fill_padding(jax.lax.stop_gradient(array_BT), mask_BT, jnp.inf).ravel(), stable=True)
    rank_BT = jnp.zeros(order.size, jnp.int32).at[order].set(jnp.arange(order.size)).reshape(jnp.shape(mask_BT))
    count = masked_count(mask_BT)
    kept = jnp.maximum(1.0, jnp.floor(jnp.asarray(share, jnp.float32) * count))
    return jnp.where(is_real(mask_BT) & (rank_BT.astype(jnp.float32) < kept), count / kept, 0.0)
