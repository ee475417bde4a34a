"""Attention of whole sequences; that of a single new token is in `cached_attention`."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from egrsd_jax.ops import splash_attention
from egrsd_jax.ops.cached_rows import MASKED
from egrsd_jax.ops.prefix_attention import Prefix, SoftmaxPart, joined, prefix_part
from egrsd_jax.ops.products import product

CUDNN_HEAD_DIM = 128  # the most that cuDNN takes on every GPU it supports; a multiple of 8 besides


def attention(
    query_BSHK: jax.Array,
    key_BSGK: jax.Array,
    value_BSGK: jax.Array,
    segment_BS: jax.Array | None,
    *,
    prefix: Prefix | None = None,
    position_BS: jax.Array | None = None,
    window: int | None = None,
    implementation: str = "auto",
    row_axes: Sequence[str] = (),
    head_axis: str | None = None,
) -> jax.Array:
    """Causal grouped-query attention -> [B, S, H, K], softmax in float32.

    H query heads share G key-value heads, K is head_dim. `segment_BS` numbers the sequences that share a row; none
    attends to another, nor to padding with a number of its own (a mask of False and True is such numbers). It is None
    where each row is one sequence with padding on the right only: the causal mask alone then keeps padding away from
    every real position. With `window` a position attends to itself and the `window` - 1 positions before it.
    `row_axes` and `head_axis` name the mesh axes that rows and heads are split over, where arrays are on a mesh.
    Each sequence may follow a `prefix` of tokens that are not in its row; `position_BS` are then the positions of its
    tokens, the prefix counted, which a window needs.

    `implementation` is `cudnn` (flash attention on a GPU, half precision), `splash` (TPU), `xla`, or `auto`: the best
    that this platform and these shapes allow. The first two need memory linear in S, but cuDNN takes segments as a mask
    of two bytes for each of a row's S² pairs, whatever the heads. Raises ValueError where a named
    one cannot take these arrays, and says why.
    """
    if implementation == "auto":
        best = {"gpu": "cudnn", "tpu": "splash"}.get(jax.default_backend(), "xla")
        reason = _obstacle(best, query_BSHK, key_BSGK, segment_BS, prefix, row_axes, head_axis)
        implementation = "xla" if reason else best
    elif reason := _obstacle(implementation, query_BSHK, key_BSGK, segment_BS, prefix, row_axes, head_axis):
        raise ValueError(f"attention {implementation!r}: {reason}")
    arrays = query_BSHK, key_BSGK, value_BSGK
    if implementation == "splash":
        return splash_attention.attention(*arrays, segment_BS, window=window, row_axes=row_axes, head_axis=head_axis)
    if implementation == "cudnn":
        options: dict[str, Any] = {"is_causal": True, "implementation": "cudnn"}
        if segment_BS is not None:  # as numbers to add, S² of a row, for all heads the same ones
            seen_BST = _seen(query_BSHK.shape[1], segment_BS, window)
            return jax.nn.dot_product_attention(*arrays, mask=seen_BST[:, None], **options)
        near = None if window is None else (window - 1, 0)
        return jax.nn.dot_product_attention(*arrays, local_window_size=near, **options)
    if prefix is not None:
        return _after_prefix(*arrays, segment_BS, window, prefix, position_BS)
    return _plain_attention(*arrays, segment_BS, window)


def _after_prefix(query_BSHK, key_BSGK, value_BSGK, segment_BS, window, prefix: Prefix, position_BS) -> jax.Array:
    """`_plain_attention` where every sequence follows the prefix: one softmax over its tokens and over the row's."""
    S, H, K = query_BSHK.shape[1:]
    dtype = query_BSHK.dtype
    wide = np.promote_types(dtype, np.float32)
    visible_BSC = None
    if window is not None:
        assert position_BS is not None, "a window after a prefix needs positions"
        position_C = jnp.arange(prefix.length, dtype=position_BS.dtype)
        visible_BSC = position_BS[:, :, None] - position_C[None, None, :] < window
    far = prefix_part(query_BSHK, prefix, visible_BSC)
    key_BSHK, value_BSHK = (jnp.repeat(array, H // array.shape[2], axis=2) for array in (key_BSGK, value_BSGK))
    seen_BST = _seen(S, segment_BS, window)
    logit_BHST = product("bshk,bthk->bhst", query_BSHK, key_BSHK, dtype=wide)
    logit_BHST = jnp.where(seen_BST[:, None], logit_BHST * K**-0.5, MASKED)
    highest_BHS = jax.lax.stop_gradient(jnp.max(logit_BHST, axis=-1))
    weight_BHST = jnp.exp(logit_BHST - highest_BHS[..., None])
    weighted_BSHK = product("bhst,bthk->bshk", weight_BHST.astype(dtype), value_BSHK, dtype=wide)
    total_BHS = jnp.sum(weight_BHST, axis=-1)
    near = SoftmaxPart(highest_BHS.swapaxes(1, 2), total_BHS.swapaxes(1, 2), weighted_BSHK)
    return joined(far, near).astype(dtype)


def _plain_attention(query_BSHK, key_BSGK, value_BSGK, segment_BS, window: int | None) -> jax.Array:
    """The definition in XLA's own operations, with weights [B, H, S, S] in memory.

    Not `jax.nn.dot_product_attention`, whose bfloat16 gradient does not lower under strict dtype promotion. Keys are
    repeated for every query head that shares them: on a CPU the products are then up to three times faster.
    """
    S, H, K = query_BSHK.shape[1:]
    key_BSHK, value_BSHK = (jnp.repeat(array, H // array.shape[2], axis=2) for array in (key_BSGK, value_BSGK))
    seen_BST = _seen(S, segment_BS, window)
    wide = np.promote_types(query_BSHK.dtype, np.float32)
    logit_BHST = product("bshk,bthk->bhst", query_BSHK, key_BSHK, dtype=wide)
    logit_BHST = jnp.where(seen_BST[:, None], logit_BHST * K**-0.5, MASKED)
    weight_BHST = jax.nn.softmax(logit_BHST, axis=-1).astype(value_BSHK.dtype)
    return product("bhst,bthk->bshk", weight_BHST, value_BSHK)


def _seen(S: int, segment_BS: jax.Array | None, window: int | None) -> jax.Array:
    """Which positions attend to which, bool [B or 1, S, S]: of their segment, none later, none before the window."""
    distance_ST = jnp.arange(S)[:, None] - jnp.arange(S)[None, :]
    near_1ST = ((distance_ST >= 0) & (distance_ST < (window or S)))[None]
    return near_1ST if segment_BS is None else near_1ST & (segment_BS[:, :, None] == segment_BS[:, None, :])


def shares_prefix(implementation: str) -> bool:
    """Whether sequences may follow a common prefix without cost: where attention is XLA's own on this platform anyhow.

    The kernels of GPUs and TPUs hold no [S, S] array, and have no sequences that share both a row and a prefix.
    """
    return implementation == "xla" or (implementation == "auto" and jax.default_backend() == "cpu")


def _obstacle(implementation, query_BSHK, key_BSGK, segment_BS, prefix, row_axes, head_axis) -> str | None:
    """Why an implementation cannot take these arrays, or None where it can."""
    if implementation == "xla":
        return None
    if prefix is not None:
        return "it takes no common prefix; only xla does"
    if implementation == "cudnn":
        return _cudnn_obstacle(query_BSHK, segment_BS)
    if implementation == "splash":
        return splash_attention.obstacle(query_BSHK, key_BSGK, row_axes, head_axis)
    return "there is no such implementation; there are auto, xla, cudnn and splash"


def _cudnn_obstacle(query_BSHK: jax.Array, segment_BS: jax.Array | None) -> str | None:
    """Why cuDNN cannot take these arrays, or None where it can."""
    if query_BSHK.dtype not in (jnp.bfloat16, jnp.float16):
        return f"cuDNN computes in bfloat16 or float16, not {query_BSHK.dtype}"
    if (K := query_BSHK.shape[-1]) > CUDNN_HEAD_DIM or K % 8:
        return f"head_dim is {K}; cuDNN takes multiples of 8 up to {CUDNN_HEAD_DIM}"
    if segment_BS is not None and segment_BS.shape[1] % 2:
        return f"rows have {segment_BS.shape[1]} positions; with a mask cuDNN takes even numbers alone"
    return None
