"""Attention of one new token per row against its cache: the reference, and a form that reads what each row holds.

B rows, S tokens that a cache has room for in each (the capacity), H query heads, G key-value heads, R = H / G, K
head_dim; N blocks that are read together, C tokens of a block.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from egrsd_jax.ops import ragged_attention
from egrsd_jax.ops.cached_rows import MASKED, CachedRows, held_blocks
from egrsd_jax.ops.prefix_attention import Prefix, SoftmaxPart, joined, prefix_part
from egrsd_jax.ops.products import product

BLOCK = 128  # tokens that are read, or not, together: a TPU's vector is as long
DENSE = 512  # a cache with room for so many tokens is read whole: one large product beats a loop of small ones
TOGETHER = {"cpu": 16}  # blocks of one turn of the loop; on other platforms:
TOGETHER_ELSEWHERE = 256


def cached_attention(
    query_BHK: jax.Array,
    rows: CachedRows,
    *,
    window: int | None = None,
    implementation: str = "auto",
    row_axes: Sequence[str] = (),
    head_axis: str | None = None,
) -> jax.Array:
    """Attention of each row's last token over its row, or over the last `window` tokens of it -> [B, H, K].

    A row that follows a prefix is that and its own tokens. Softmax in float32. `row_axes` and `head_axis` name the mesh
    axes that rows and heads are split over, where the arrays are sharded over a mesh. `implementation` is that of
    `ops.attention.attention`: `splash` is a TPU's, and its kernel here, which takes no prefix, is `ragged_attention`;
    others are XLA's own operations, where attention reads whole small caches, and of large ones the blocks that rows
    hold, unless these are most of them.
    """
    attend = partial(_best(implementation, rows), window=window)
    mesh = jax.typeof(query_BHK).sharding.mesh
    if attend.func is plain_cached_attention or mesh.empty or mesh.size == 1:
        return attend(query_BHK, rows)
    shards = math.prod(mesh.shape[axis] for axis in row_axes)
    if len(query_BHK) % shards:  # the compiler splits plain operations over a mesh, but neither kernels nor loops
        return plain_cached_attention(query_BHK, rows, window=window)
    heads = head_axis if head_axis and rows.values.shape[1] % mesh.shape[head_axis] == 0 else None
    by_row, by_head = PartitionSpec(tuple(row_axes)), PartitionSpec(tuple(row_axes), heads)
    scales = None if rows.key_scales is None else by_head
    split = CachedRows(by_head, by_head, by_row, scales, scales)
    if rows.prefix is not None:  # every device has its heads of the prefix, for all of its rows
        split = split._replace(prefix=Prefix(PartitionSpec(heads), PartitionSpec(heads)), before_B=by_row)
    spread = jax.shard_map(attend, mesh=mesh, in_specs=(by_head, split), out_specs=by_head, check_vma=False)
    return spread(query_BHK, rows)


def _best(implementation: str, rows: CachedRows) -> Callable[..., jax.Array]:
    """What reads these rows fastest, of the implementation's kind."""
    if implementation == "auto":
        implementation = {"tpu": "splash"}.get(jax.default_backend(), "xla")
    S = rows.values.shape[2]
    if implementation == "splash" and rows.prefix is None and ragged_attention.obstacle(rows.values) is None:
        return ragged_attention.attention
    return plain_cached_attention if S <= DENSE or S % BLOCK else block_cached_attention


def plain_cached_attention(query_BHK: jax.Array, rows: CachedRows, *, window: int | None = None) -> jax.Array:
    """The definition: it reads all of the cache and masks what a row does not hold."""
    if rows.prefix is not None:
        return _after_prefix(query_BHK, rows, _by_whole_rows(query_BHK, rows, window), window)
    B, H, K = query_BHK.shape
    G, dtype = rows.values.shape[1], query_BHK.dtype
    query_BGRK = query_BHK.reshape(B, G, H // G, K)
    wide = np.promote_types(dtype, np.float32)
    logit_BGRS = product("bgrk,bgks->bgrs", query_BGRK, rows.keys.astype(dtype), dtype=wide)
    weight_BGRS = jax.nn.softmax(_visible(logit_BGRS, rows, K, window), axis=-1)
    if rows.value_scales is not None:
        weight_BGRS = weight_BGRS * rows.value_scales[:, :, None, :]
    weight_BGRS = weight_BGRS.astype(dtype)
    return product("bgrs,bgsk->bgrk", weight_BGRS, rows.values.astype(dtype)).reshape(B, H, K)


def block_cached_attention(query_BHK: jax.Array, rows: CachedRows, *, window: int | None = None) -> jax.Array:
    """The blocks that rows hold, where these are less than half of all; else the whole cache, at half the cost of as
    many blocks. The capacity is a multiple of BLOCK."""
    B, S = query_BHK.shape[0], rows.values.shape[2]
    first_B, count_B = held_blocks(rows.length_B, S, BLOCK, window)
    few = 2 * jnp.sum(count_B) < B * (S // BLOCK)

    def by_blocks() -> SoftmaxPart:
        return _by_blocks(query_BHK, rows, first_B, count_B, window)

    if rows.prefix is not None:
        own = jax.lax.cond(few, by_blocks, lambda: _by_whole_rows(query_BHK, rows, window))
        return _after_prefix(query_BHK, rows, own, window)

    def divided() -> jax.Array:
        own = by_blocks()
        return (own.weighted / own.total[..., None]).astype(query_BHK.dtype)

    return jax.lax.cond(few, divided, lambda: plain_cached_attention(query_BHK, rows, window=window))


def _after_prefix(query_BHK, rows: CachedRows, own: SoftmaxPart, window: int | None) -> jax.Array:
    """One softmax over the prefix, for rows that follow it, and over what rows hold."""
    place_1C = jnp.arange(rows.prefix.length, dtype=jnp.int32)[None, :]
    before_B1 = rows.before_B[:, None]
    visible_BC = place_1C < before_B1
    if window is not None:
        visible_BC &= before_B1 + rows.length_B[:, None] - 1 - place_1C < window
    far = prefix_part(query_BHK[:, None], rows.prefix, visible_BC[:, None])
    return joined(SoftmaxPart(*(array[:, 0] for array in far)), own).astype(query_BHK.dtype)


def _by_whole_rows(query_BHK, rows: CachedRows, window: int | None) -> SoftmaxPart:
    """The part of what rows hold, from all of the cache.

    As sums and not as products: after a prefix caches are small, and products of the R queries of a group with one row
    are each too small for two threads, where a sum over all rows is not: on two cores a rollout took 6.5 s with sums
    and 7.1 with products.
    """
    B, H, K = query_BHK.shape
    wide = np.promote_types(query_BHK.dtype, np.float32)
    keys_BGKS, values_BGSK = rows.keys.astype(wide), rows.values.astype(wide)
    query_BGRK = query_BHK.reshape(B, keys_BGKS.shape[1], -1, K).astype(wide)
    logit_BGRS = jnp.sum(query_BGRK[..., None] * keys_BGKS[:, :, None], axis=3)
    logit_BGRS = _visible(logit_BGRS, rows, K, window)
    highest_BGR = jnp.max(logit_BGRS, axis=-1)
    weight_BGRS = jnp.exp(logit_BGRS - highest_BGR[..., None])
    total_BGR = jnp.sum(weight_BGRS, axis=-1)
    if rows.value_scales is not None:
        weight_BGRS = weight_BGRS * rows.value_scales[:, :, None, :]
    weighted_BGRK = jnp.sum(weight_BGRS[..., None] * values_BGSK[:, :, None], axis=3)
    return SoftmaxPart(highest_BGR.reshape(B, H), total_BGR.reshape(B, H), weighted_BGRK.reshape(B, H, K))


def _visible(logit_BGRS: jax.Array, rows: CachedRows, K: int, window: int | None) -> jax.Array:
    """The logits of all places from the products of queries and keys, masked where a row holds nothing visible."""
    S = logit_BGRS.shape[-1]
    age_BS = rows.length_B[:, None] - 1 - jnp.arange(S, dtype=jnp.int32)[None, :]
    visible_BS = (age_BS >= 0) & (age_BS < (window or S))
    if rows.key_scales is not None:
        logit_BGRS = logit_BGRS * rows.key_scales[:, :, None, :]
    return jnp.where(visible_BS[:, None, None, :], logit_BGRS * K**-0.5, MASKED)


def _by_blocks(query_BHK, rows: CachedRows, first_B, count_B, window: int | None) -> SoftmaxPart:
    """The part of what rows hold: a loop over the blocks of all rows, one row after the other, N at a time, with an
    online softmax."""
    B, H, K = query_BHK.shape
    G, dtype, C = rows.values.shape[1], query_BHK.dtype, BLOCK
    wide = np.promote_types(dtype, np.float32)
    N = min(TOGETHER.get(jax.default_backend(), TOGETHER_ELSEWHERE), B * (rows.values.shape[2] // C))
    query_BGRK = query_BHK.reshape(B, G, H // G, K)
    end_B = jnp.cumsum(count_B)  # among the blocks of all rows

    def taken(array: jax.Array, row_N: jax.Array, start_N: jax.Array, axis: int) -> jax.Array:
        def one(row: jax.Array, start: jax.Array) -> jax.Array:
            return jax.lax.dynamic_slice_in_dim(
                jax.lax.dynamic_index_in_dim(array, row, keepdims=False), start, C, axis
            )

        return jax.vmap(one)(row_N, start_N)

    def turn(number: jax.Array, running: tuple[jax.Array, jax.Array, jax.Array]):
        max_BGR, total_BGR, sum_BGRK = running
        block_N = number * N + jnp.arange(N, dtype=jnp.int32)
        row_N = jnp.sum(end_B[None, :] <= block_N[:, None], axis=1)  # B beyond the last block
        of_row_NB = row_N[:, None] == jnp.arange(B)[None, :]
        row_N = jnp.minimum(row_N, B - 1)
        start_N = (first_B + count_B - end_B)[row_N] + block_N
        start_N = jnp.where(block_N < end_B[-1], start_N * C, 0)
        age_NC = rows.length_B[row_N][:, None] - 1 - start_N[:, None] - jnp.arange(C, dtype=jnp.int32)[None, :]
        visible_NC = age_NC >= 0 if window is None else (age_NC >= 0) & (age_NC < window)
        key_NGKC = taken(rows.keys, row_N, start_N, 2).astype(dtype)
        logit_NGRC = product("ngrk,ngkc->ngrc", query_BGRK[row_N], key_NGKC, dtype=wide)
        if rows.key_scales is not None:
            logit_NGRC = logit_NGRC * taken(rows.key_scales, row_N, start_N, 1)[:, :, None, :]
        logit_NGRC = jnp.where(visible_NC[:, None, None, :], logit_NGRC * K**-0.5, MASKED)
        of_row_NB11 = of_row_NB[:, :, None, None]
        highest_BGR = jnp.max(jnp.where(of_row_NB11, jnp.max(logit_NGRC, axis=-1)[:, None], MASKED), axis=0)
        new_BGR = jnp.maximum(max_BGR, highest_BGR)
        weight_NGRC = jnp.exp(logit_NGRC - new_BGR[row_N][..., None])
        kept_BGR, own_NB = jnp.exp(max_BGR - new_BGR), of_row_NB.astype(wide)
        total_BGR = total_BGR * kept_BGR + product("nb,ngr->bgr", own_NB, jnp.sum(weight_NGRC, axis=-1))
        if rows.value_scales is not None:
            weight_NGRC = weight_NGRC * taken(rows.value_scales, row_N, start_N, 1)[:, :, None, :]
        value_NGCK = taken(rows.values, row_N, start_N, 1).astype(dtype)
        part_NGRK = product("ngrc,ngck->ngrk", weight_NGRC.astype(dtype), value_NGCK, dtype=wide)
        return new_BGR, total_BGR, sum_BGRK * kept_BGR[..., None] + product("nb,ngrk->bgrk", own_NB, part_NGRK)

    shape = B, G, H // G
    nothing = jnp.full(shape, MASKED, wide), jnp.zeros(shape, wide), jnp.zeros((*shape, K), wide)
    highest_BGR, total_BGR, sum_BGRK = jax.lax.fori_loop(0, (end_B[-1] + N - 1) // N, turn, nothing)
    return SoftmaxPart(highest_BGR.reshape(B, H), total_BGR.reshape(B, H), sum_BGRK.reshape(B, H, K))
