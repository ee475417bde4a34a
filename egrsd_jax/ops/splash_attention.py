"""Splash attention, the flash attention of TPUs: masked blocks are skipped, and no [S, S] array is ever made."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

LANES = 128  # a TPU register is 128 wide: head_dim and block sizes are multiples of it
BLOCKS = (512, 256, 128)  # a larger block reads keys less often; 512 fits every TPU's on-chip memory


def obstacle(query_BSHK: jax.Array, key_BSGK: jax.Array, row_axes: Sequence[str], head_axis: str | None) -> str | None:
    """Why the kernel cannot take these arrays, or None where it can."""
    B, _, _, K = query_BSHK.shape
    G = key_BSGK.shape[2]
    if K % LANES:
        return f"head_dim is {K}; splash attention takes multiples of {LANES}"
    mesh = jax.typeof(query_BSHK).sharding.mesh
    named = [*row_axes, head_axis] if head_axis else [*row_axes]
    if not mesh.empty and (unknown := set(named) - set(mesh.axis_names)):
        return f"the mesh has the axes {', '.join(mesh.axis_names)} and no {min(unknown)!r}"
    rows = 1 if mesh.empty else math.prod(mesh.shape[axis] for axis in row_axes)
    heads = 1 if mesh.empty or head_axis is None else mesh.shape[head_axis]
    if B % rows:
        return f"{B} rows do not divide over the {rows} devices that the mesh axes {', '.join(row_axes)} have"
    if G % heads:
        return f"{G} key-value heads do not divide over the {heads} devices of the mesh axis {head_axis!r}"
    return None


def attention(
    query_BSHK: jax.Array,
    key_BSGK: jax.Array,
    value_BSGK: jax.Array,
    segment_BS: jax.Array | None,
    *,
    window: int | None,
    row_axes: Sequence[str],
    head_axis: str | None,
    interpret: bool = False,
) -> jax.Array:
    """Causal grouped-query attention -> [B, S, H, K], as `ops.attention.attention` describes it.

    The compiler does not split a kernel over a mesh by itself, so that each device is given its own rows and heads
    here. `interpret` runs the kernel's Python instead, on any platform.
    """
    S = query_BSHK.shape[1]
    room = ((0, 0), (0, -S % LANES))  # at the end of the rows, where the causal mask hides it from every real position
    query, key, value = (jnp.pad(array, (*room, (0, 0), (0, 0))) for array in (query_BSHK, key_BSGK, value_BSGK))
    segment = None if segment_BS is None else jnp.pad(segment_BS.astype(jnp.int32), room)
    on_device = partial(_one_device, window=window, interpret=interpret)
    mesh = jax.typeof(query_BSHK).sharding.mesh
    if mesh.empty:
        return on_device(query, key, value, segment)[:, :S]
    rows, heads = PartitionSpec(tuple(row_axes)), PartitionSpec(tuple(row_axes), None, head_axis)
    spread = jax.shard_map(on_device, mesh=mesh, in_specs=(heads, heads, heads, rows), out_specs=heads, check_vma=False)
    return spread(query, key, value, segment)[:, :S]


def _one_device(query_BSHK, key_BSGK, value_BSGK, segment_BS, *, window: int | None, interpret: bool) -> jax.Array:
    """Attention of the rows and heads of one device; S is a multiple of 128."""
    # Imported late: only TPUs need them.
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    _, S, H, K = query_BSHK.shape
    causal = masks.CausalMask((S, S)) if window is None else masks.LocalMask((S, S), (window - 1, 0), 0)
    block = next(size for size in BLOCKS if S % size == 0)
    sizes = splash.BlockSizes(
        block_q=block,
        block_kv=block,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_q_dq=block,
        block_kv_dq=block,
    )
    kernel: Any = splash.make_splash_mha_single_device(
        masks.MultiHeadMask([causal] * H), block_sizes=sizes, interpret=interpret
    )

    def one_row(query_SHK, key_SGK, value_SGK, segment_S):
        heads_first = [array.swapaxes(0, 1) for array in (query_SHK, key_SGK, value_SGK)]
        if segment_S is None:
            return kernel(*heads_first).swapaxes(0, 1)
        return kernel(*heads_first, segment_ids=splash.SegmentIds(segment_S, segment_S)).swapaxes(0, 1)

    # The kernel does not scale. In float32: rounded to bfloat16, the scale itself would be off by a part in 500.
    scaled = (query_BSHK.astype(jnp.float32) / math.sqrt(K)).astype(query_BSHK.dtype)
    return jax.vmap(one_row)(scaled, key_BSGK, value_BSGK, segment_BS)
