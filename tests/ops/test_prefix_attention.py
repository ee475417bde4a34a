"""Attention after a common prefix, in float64 and float32, is that of sequences which hold the prefix themselves."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egrsd_jax.model.sharding import BATCH, TENSOR, batch_sharding, make_mesh
from egrsd_jax.ops import cached_attention as module
from egrsd_jax.ops.attention import attention
from egrsd_jax.ops.cached_attention import block_cached_attention, cached_attention, plain_cached_attention
from egrsd_jax.ops.cached_rows import CachedRows
from egrsd_jax.ops.prefix_attention import Prefix
from tests.ops.test_cached_attention import with_scales

B, C, H, G, K = 8, 24, 6, 2, 8
LENGTHS = (1, 300, 128, 129, 5, 3, 2, 0)  # own tokens of a row with room for 1,024; the last row has ended
BEFORE = (C, C, C, 0, 0, C, C, C)  # two rows follow nothing
WINDOWS = [None, 1, 5, 28, 140]  # own tokens alone, some of the prefix, all of it for some rows and some for others
FORMS = {"plain": plain_cached_attention, "blocks": block_cached_attention}


def random_prefix(draw):
    return Prefix(*(jnp.asarray(draw.standard_normal((G, C, K))) for _ in range(2)))


def sequences(S=9):
    """Queries, keys and values of two sequences after a prefix, and those that hold it themselves, in front."""
    draw = np.random.default_rng(0)
    prefix = random_prefix(draw)
    own = tuple(jnp.asarray(draw.standard_normal((2, S, heads, K))) for heads in (H, G, G))
    keys, values = (
        jnp.concatenate([jnp.broadcast_to(array.swapaxes(0, 1), (2, C, G, K)), mine], axis=1)
        for array, mine in zip(prefix, own[1:], strict=True)
    )
    query = jnp.concatenate([jnp.zeros((2, C, H, K)), own[0]], axis=1)
    return own, prefix, (query, keys, values)


def rows_of_a_cache(S=1024):
    """Queries and rows after a prefix, and the same rows with the prefix in them where they follow it."""
    draw = np.random.default_rng(1)
    prefix = random_prefix(draw)
    query, keys, values = (draw.standard_normal(shape) for shape in ((B, H, K), (B, G, K, S), (B, G, S, K)))
    length_B, before_B = jnp.asarray(LENGTHS, jnp.int32), jnp.asarray(BEFORE, jnp.int32)
    shared = CachedRows(jnp.array(keys), jnp.array(values), length_B, prefix=prefix, before_B=before_B)
    held_keys, held_values = keys.copy(), values.copy()  # what jax has been given may not be written to
    for row in np.flatnonzero(BEFORE):
        held_keys[row] = np.concatenate([np.asarray(prefix.keys).swapaxes(1, 2), keys[row, :, :, :-C]], axis=2)
        held_values[row] = np.concatenate([prefix.values, values[row, :, :-C]], axis=1)
    whole = CachedRows(jnp.asarray(held_keys), jnp.asarray(held_values), length_B + before_B)
    return jnp.asarray(query), shared, whole


def in_float32(tree):
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if leaf.dtype == jnp.float64 else leaf, tree)


@pytest.mark.parametrize("window", WINDOWS)
def test_sequences_after_a_prefix_attend_as_those_that_hold_it(window):
    """Values and gradients, those of the prefix among them, which all sequences add to."""
    with jax.enable_x64(True):
        own, prefix, whole = sequences()
        positions = jnp.broadcast_to(C + jnp.arange(9), (2, 9))

        def shared(arrays, prefix):
            query, keys, values = arrays
            return attention(query, keys, values, None, prefix=prefix, position_BS=positions, window=window)

        def unshared(arrays, prefix):
            keys, values = (
                jnp.concatenate([jnp.broadcast_to(array.swapaxes(0, 1), (2, C, G, K)), mine], axis=1)
                for array, mine in zip(prefix, arrays[1:], strict=True)
            )
            return attention(whole[0].at[:, C:].set(arrays[0]), keys, values, None, window=window)[:, C:]

        got, wanted = (jax.jit(form)(own, prefix) for form in (shared, unshared))
        assert got.dtype == jnp.float64
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-12)
        gradients = [
            jax.jit(jax.grad(lambda *args, form=form: jnp.sum(jnp.sin(form(*args))), (0, 1)))(own, prefix)
            for form in (shared, unshared)
        ]
        jax.tree.map(partial(np.testing.assert_allclose, rtol=0, atol=1e-12), *gradients)
        narrow = jax.jit(shared)(*in_float32((own, prefix)))
        assert narrow.dtype == jnp.float32
        np.testing.assert_allclose(narrow, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("form", FORMS)
def test_rows_after_a_prefix_attend_as_those_that_hold_it(form, window):
    with jax.enable_x64(True):
        query, shared, whole = rows_of_a_cache()
        got = jax.jit(partial(FORMS[form], window=window))(query, shared)
        wanted = plain_cached_attention(query, whole, window=window)
        np.testing.assert_allclose(got[:-1], wanted[:-1], rtol=0, atol=1e-12)
        assert jnp.isfinite(got).all()
        query, shared = in_float32((query, shared))
    narrow = jax.jit(partial(FORMS[form], window=window))(query, shared)
    assert narrow.dtype == jnp.float32
    np.testing.assert_allclose(narrow[:-1], wanted[:-1], rtol=0, atol=1e-5)


def test_a_prefix_is_not_rounded_where_rows_are_whole_numbers():
    query, shared, _ = rows_of_a_cache()
    rounded = with_scales(shared)
    exact = rounded._replace(
        keys=rounded.keys.astype(jnp.float32) * rounded.key_scales[:, :, None, :],
        values=rounded.values.astype(jnp.float32) * rounded.value_scales[..., None],
        key_scales=None,
        value_scales=None,
    )
    after = {"prefix": shared.prefix, "before_B": shared.before_B}
    for form in FORMS.values():
        got, wanted = (jax.jit(form)(query, rows._replace(**after)) for rows in (rounded, exact))
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_a_prefix_on_a_mesh_is_with_each_devices_heads(form, monkeypatch):
    query, shared, _ = rows_of_a_cache()
    expected = plain_cached_attention(query, shared)
    monkeypatch.setattr(module, "_best", lambda *_: FORMS[form])
    mesh = make_mesh(data=2, tensor=2, devices=jax.devices()[:4])
    heads = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(BATCH, TENSOR))
    of_prefix = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(TENSOR))
    rows = batch_sharding(mesh)
    query, prefix = jax.device_put(query, heads), jax.device_put(shared.prefix, of_prefix)
    shared = jax.device_put(
        shared._replace(prefix=None), CachedRows(heads, heads, rows, None, None, None, rows)
    )._replace(prefix=prefix)
    attend = jax.jit(partial(cached_attention, row_axes=BATCH, head_axis=TENSOR))
    np.testing.assert_allclose(attend(query, shared), expected, rtol=0, atol=1e-6)
    text = attend.lower(query, shared).compile().as_text()
    assert text
    assert not [word for word in ("all-reduce", "all-gather", "all-to-all", "collective-permute") if word in text]


def test_the_kernel_takes_no_prefix():
    wide = CachedRows(jnp.zeros((1, 1, 128, 1024)), jnp.zeros((1, 1, 1024, 128)), jnp.zeros(1, jnp.int32))
    after = wide._replace(prefix=Prefix(*[jnp.zeros((1, C, 128))] * 2), before_B=jnp.zeros(1, jnp.int32))
    assert module._best("splash", after) is block_cached_attention
    assert module._best("splash", wide) is not block_cached_attention
