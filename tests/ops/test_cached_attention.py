"""Attention of one token against its cache: the definition, the loop over blocks, and the TPU's kernel, interpreted."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egrsd_jax.model.sharding import BATCH, TENSOR, batch_sharding, make_mesh
from egrsd_jax.ops import cached_attention as module
from egrsd_jax.ops import ragged_attention
from egrsd_jax.ops.cached_attention import (
    block_cached_attention,
    cached_attention,
    plain_cached_attention,
)
from egrsd_jax.ops.cached_rows import CachedRows

LENGTHS = (1, 300, 128, 129, 5, 640, 2, 0)  # tokens of a row with room for 1,024; the last row has ended


def random_rows(K=8, S=1024, dtype=jnp.float32):
    """Queries and rows of 4 heads that share 2; what is beyond a row's tokens is large."""
    draw = np.random.default_rng(0)
    B, G, H = len(LENGTHS), 2, 4
    query, keys, values = (draw.standard_normal(shape) for shape in ((B, H, K), (B, G, K, S), (B, G, S, K)))
    beyond = np.arange(S)[None, :] >= np.array(LENGTHS)[:, None]
    keys = np.where(beyond[:, None, None, :], 1e4, keys)
    values = np.where(beyond[:, None, :, None], 1e4, values)
    rows = CachedRows(jnp.asarray(keys, dtype), jnp.asarray(values, dtype), jnp.asarray(LENGTHS))
    return jnp.asarray(query, dtype), rows


def with_scales(rows):
    """The same rows as whole numbers, each token's with a scale."""
    key_scales = jnp.max(jnp.abs(rows.keys), axis=2) / 127
    value_scales = jnp.max(jnp.abs(rows.values), axis=3) / 127
    keys = jnp.round(rows.keys / key_scales[:, :, None, :]).astype(jnp.int8)
    values = jnp.round(rows.values / value_scales[..., None]).astype(jnp.int8)
    return CachedRows(keys, values, rows.length_B, key_scales, value_scales)


def by_definition(query, rows, window):
    """softmax(q · k / sqrt(K)) v, one query of one head at a time, in float64."""
    query, keys, values = (np.asarray(array, np.float64) for array in (query, rows.keys, rows.values))
    if rows.key_scales is not None:
        keys = keys * np.asarray(rows.key_scales, np.float64)[:, :, None, :]
        values = values * np.asarray(rows.value_scales, np.float64)[..., None]
    out = np.zeros(query.shape)
    for b, h in np.ndindex(query.shape[:2]):
        shared = h // (query.shape[1] // keys.shape[1])
        held = slice(max(0, LENGTHS[b] - (window or 10_000)), LENGTHS[b])
        weight = np.exp(query[b, h] @ keys[b, shared, :, held] / np.sqrt(query.shape[2]))
        out[b, h] = weight @ values[b, shared, held] / max(weight.sum(), 1e-30)
    return out


FORMS = {
    "plain": plain_cached_attention,
    "blocks": block_cached_attention,
    "kernel": partial(ragged_attention.attention, interpret=True),
}


@pytest.mark.parametrize("whole_numbers", [False, True])
@pytest.mark.parametrize("window", [None, 1, 130])
@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_what_the_definition_says(form, window, whole_numbers):
    query, rows = random_rows()
    rows = with_scales(rows) if whole_numbers else rows
    got = jax.jit(partial(FORMS[form], window=window))(query, rows)
    np.testing.assert_allclose(got[:-1], by_definition(query, rows, window)[:-1], rtol=1e-5, atol=1e-6)
    assert jnp.isfinite(got).all()


def test_rows_that_fill_their_cache_are_read_whole_and_alike():
    query, rows = random_rows()
    full = rows._replace(
        keys=jnp.clip(rows.keys, -3, 3), values=jnp.clip(rows.values, -3, 3), length_B=jnp.full(len(LENGTHS), 1000)
    )
    plain = jax.jit(plain_cached_attention)(query, full)
    np.testing.assert_array_equal(jax.jit(block_cached_attention)(query, full), plain)
    np.testing.assert_allclose(
        jax.jit(FORMS["kernel"], static_argnames="window")(query, full, window=None), plain, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(("form", "block"), [("blocks", module.BLOCK), ("kernel", ragged_attention.BLOCKS[0])])
def test_no_block_beyond_a_rows_tokens_is_read(form, block):
    """Keys that are not numbers leave no trace; they would if they were read and masked."""
    query, rows = random_rows()
    unread_BS = jnp.arange(1024)[None, :] // block > jnp.maximum(rows.length_B - 1, 0)[:, None] // block
    rows = rows._replace(
        keys=jnp.where(unread_BS[:, None, None, :], jnp.nan, rows.keys),
        values=jnp.where(unread_BS[:, None, :, None], jnp.nan, rows.values),
    )
    assert jnp.isfinite(jax.jit(partial(FORMS[form], window=None))(query, rows)).all()
    assert not jnp.isfinite(plain_cached_attention(query, rows)).all()


@pytest.mark.parametrize("form", ["blocks", "kernel"])
def test_rows_and_heads_of_a_mesh_stay_on_their_devices(form, monkeypatch):
    query, rows = random_rows()
    expected = plain_cached_attention(query, rows)
    monkeypatch.setattr(module, "_best", lambda *_: FORMS[form])
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    query, rows = jax.device_put((query, rows), batch_sharding(mesh))
    attend = jax.jit(partial(cached_attention, row_axes=BATCH, head_axis=TENSOR))
    np.testing.assert_allclose(attend(query, rows), expected, rtol=1e-5, atol=1e-6)
    assert "all-reduce" not in attend.lower(query, rows).compile().as_text()


def test_the_form_is_chosen_by_platform_and_shape():
    _, small = random_rows(S=512)
    _, large = random_rows()
    _, wide = random_rows(K=128)
    assert module._best("auto", small) is plain_cached_attention
    assert module._best("auto", large) is block_cached_attention
    assert module._best("cudnn", large) is block_cached_attention
    assert module._best("splash", large) is block_cached_attention  # its head_dim is 8
    assert module._best("splash", wide) is ragged_attention.attention
