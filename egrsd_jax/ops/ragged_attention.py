"""Attention of one new token per row, as a kernel for TPUs: it reads the blocks that rows hold and no others.

The grid is a list of blocks, those of one row after another, as long as the rows need, with an online softmax over the
blocks of a row. Letters as in `cached_attention`.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from egrsd_jax.ops.cached_rows import MASKED, CachedRows, held_blocks

LANES = 128  # a TPU register is 128 wide: head_dim and capacity are multiples of it
BLOCKS = (512, 256, 128)  # tokens; a larger block has fewer turns of the grid


def obstacle(value_BGSK: jax.Array) -> str | None:
    """Why the kernel cannot take a cache of this shape, or None where it can."""
    S, K = value_BGSK.shape[2:]
    if K % LANES:
        return f"head_dim is {K}; the kernel takes multiples of {LANES}"
    return f"the capacity is {S}; the kernel takes multiples of {LANES}" if S % LANES else None


def attention(query_BHK: jax.Array, rows: CachedRows, *, window: int | None, interpret: bool = False) -> jax.Array:
    """What `plain_cached_attention` computes, of the rows and heads of one device -> [B, H, K].

    `interpret` runs the kernel's Python instead, on any platform.
    """
    # Imported late: only TPUs need them.
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import tpu as pltpu

    B, H, K = query_BHK.shape
    G, S = rows.values.shape[1:3]
    C = next(size for size in BLOCKS if S % size == 0)
    first_B, count_B = held_blocks(rows.length_B, S, C, window)
    last_B, end_B = first_B + count_B - 1, jnp.cumsum(count_B)
    block_T = jnp.arange(B * (S // C), dtype=jnp.int32)
    row_T = jnp.minimum(jnp.searchsorted(end_B, block_T, side="right"), B - 1).astype(jnp.int32)
    block_T = jnp.clip(block_T - end_B[row_T] + last_B[row_T] + 1, 0, S // C - 1)

    def of_row(turn: Any, row_T: Any, *_: Any) -> tuple:
        return row_T[turn], 0, 0, 0

    def at_block(turn: Any, row_T: Any, block_T: Any, *_: Any) -> tuple:
        return row_T[turn], 0, block_T[turn], 0

    def at_lanes(turn: Any, row_T: Any, block_T: Any, *_: Any) -> tuple:
        return row_T[turn], 0, 0, block_T[turn]

    arrays = [query_BHK.reshape(B, G, H // G, K), rows.keys, rows.values]
    specs = [pl.BlockSpec((1, G, H // G, K), of_row), pl.BlockSpec((1, G, K, C), at_lanes)]
    specs.append(pl.BlockSpec((1, G, C, K), at_block))
    if rows.key_scales is not None and rows.value_scales is not None:
        arrays += [rows.key_scales[:, :, None, :], rows.value_scales[:, :, None, :]]
        specs += [pl.BlockSpec((1, G, 1, C), at_lanes)] * 2
    running = [pltpu.VMEM((G, H // G, size), jnp.float32) for size in (LANES, LANES, K)]
    call = pl.pallas_call(
        partial(_kernel, window=window, scaled=rows.key_scales is not None, pl=pl),
        out_shape=jax.ShapeDtypeStruct((B, G, H // G, K), query_BHK.dtype),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=5,
            grid=(end_B[-1],),
            in_specs=specs,
            out_specs=pl.BlockSpec((1, G, H // G, K), of_row),
            scratch_shapes=running,
        ),
        interpret=interpret,
        name="ragged_attention",
    )
    return call(row_T, block_T, first_B, last_B, rows.length_B, *arrays).reshape(B, H, K)


def _kernel(row_T, block_T, first_B, last_B, length_B, query, keys, values, *others, window, scaled, pl):
    """One block of one row: `others` are the scales, the output, and the row's running max, total and sum."""
    key_scales, value_scales = others[:2] if scaled else (None, None)
    out, max_GR, total_GR, sum_GRK = others[-4:]
    row, block = row_T[pl.program_id(0)], block_T[pl.program_id(0)]

    @pl.when(block == first_B[row])
    def _begin():
        max_GR[...] = jnp.full_like(max_GR, MASKED)
        total_GR[...] = jnp.zeros_like(total_GR)
        sum_GRK[...] = jnp.zeros_like(sum_GRK)

    _, G, R, K = query.shape
    C, dtype = values.shape[2], query.dtype
    age_RC = length_B[row] - 1 - block * C - jax.lax.broadcasted_iota(jnp.int32, (R, C), 1)
    visible_RC = age_RC >= 0 if window is None else (age_RC >= 0) & (age_RC < window)
    dot = partial(jnp.dot, preferred_element_type=jnp.float32)
    if dtype == jnp.float32:
        dot = partial(dot, precision=jax.lax.Precision.HIGHEST)
    for group in range(G):
        logit_RC = dot(query[0, group], keys[0, group].astype(dtype)) * K**-0.5
        if key_scales is not None:
            logit_RC = logit_RC * key_scales[0, group]
        logit_RC = jnp.where(visible_RC, logit_RC, MASKED)
        old_R1 = max_GR[group, :, :1]
        new_R1 = jnp.maximum(old_R1, jnp.max(logit_RC, axis=1, keepdims=True))
        weight_RC, kept_R1 = jnp.exp(logit_RC - new_R1), jnp.exp(old_R1 - new_R1)
        total_R1 = total_GR[group, :, :1] * kept_R1 + jnp.sum(weight_RC, axis=1, keepdims=True)
        if value_scales is not None:
            weight_RC = weight_RC * value_scales[0, group]
        part_RK = dot(weight_RC.astype(dtype), values[0, group].astype(dtype))
        sum_GRK[group] = sum_GRK[group] * kept_R1 + part_RK
        max_GR[group] = jnp.broadcast_to(new_R1, max_GR.shape[1:])
        total_GR[group] = jnp.broadcast_to(total_R1, total_GR.shape[1:])

    @pl.when(block == last_B[row])
    def _end():
        out[0] = (sum_GRK[...] / total_GR[:, :, :1]).astype(out.dtype)
