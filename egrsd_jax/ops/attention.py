"""Attention: one function for the whole sequence, one for a single new token against a cache."""

import jax
import jax.numpy as jnp

MASKED = -1e30  # not -inf: a row that may look at nothing must stay finite


def attention(
    query_BSHK: jax.Array, key_BSGK: jax.Array, value_BSGK: jax.Array, mask_BS: jax.Array | None
) -> jax.Array:
    """Causal grouped-query attention -> [B, S, H, K], softmax in float32.

    H query heads share G key-value heads, K is head_dim. `mask_BS` is True on real positions and None where padding is
    on the right only: the causal mask alone then keeps it away from every real position. On a GPU with a half
    precision dtype this is cuDNN's flash attention, elsewhere XLA's own.
    """
    mask = None if mask_BS is None else mask_BS[:, None, None, :]
    half = query_BSHK.dtype in (jnp.bfloat16, jnp.float16)
    flash = jax.default_backend() == "gpu" and half
    with jax.numpy_dtype_promotion("standard"):  # jax's own function mixes bfloat16 and float32
        return jax.nn.dot_product_attention(
            query_BSHK, key_BSGK, value_BSGK, mask=mask, is_causal=True, implementation="cudnn" if flash else "xla"
        )


def cached_attention(
    query_BHK: jax.Array, key_BGKS: jax.Array, value_BGSK: jax.Array, valid_BS: jax.Array
) -> jax.Array:
    """Attention of one token a row over the valid slots of its cache -> [B, H, K], softmax in float32."""
    B, H, K = query_BHK.shape
    groups = key_BGKS.shape[1]
    query_BGRK = query_BHK.reshape(B, groups, H // groups, K)
    logit_BGRS = jnp.einsum("bgrk,bgks->bgrs", query_BGRK, key_BGKS, preferred_element_type=jnp.float32) * K**-0.5
    logit_BGRS = jnp.where(valid_BS[:, None, None, :], logit_BGRS, MASKED)
    weight_BGRS = jax.nn.softmax(logit_BGRS, axis=-1).astype(value_BGSK.dtype)
    return jnp.einsum("bgrs,bgsk->bgrk", weight_BGRS, value_BGSK).reshape(B, H, K)
