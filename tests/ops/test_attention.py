"""Attention against its definition written with loops, and the TPU's kernel, interpreted, against XLA's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from egrsd_jax.model.sharding import BATCH, TENSOR, make_mesh
from egrsd_jax.ops import splash_attention
from egrsd_jax.ops.attention import attention


def random_heads(B, S, H, G, K, dtype=jnp.float32):
    draw = np.random.default_rng(0)
    return tuple(jnp.asarray(draw.standard_normal((B, S, heads, K)), dtype) for heads in (H, G, G))


def by_definition(query, key, value, mask, window):
    """softmax(q · k / sqrt(K)) v, one query of one head at a time, in float64."""
    query, key, value = (np.asarray(array, np.float64) for array in (query, key, value))
    B, S, H, K = query.shape
    out = np.zeros(query.shape)
    for b, s, h in np.ndindex(B, S, H):
        shared = h // (H // key.shape[2])
        seen = [t for t in range(s + 1) if mask[b, t] and (window is None or s - t < window)]
        if seen:
            weight = np.exp(key[b, seen, shared] @ query[b, s, h] / np.sqrt(K))
            out[b, s, h] = weight @ value[b, seen, shared] / weight.sum()
    return out


@pytest.mark.parametrize("window", [None, 1, 3, 50])
def test_attention_is_what_its_definition_says(window):
    arrays = random_heads(2, 9, 4, 2, 8)
    mask = jnp.arange(9)[None, :] >= jnp.array([[0], [4]])
    expected = by_definition(*arrays, mask, window)
    got = attention(*arrays, mask, window=window)
    np.testing.assert_allclose(got[0], expected[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(got[1, 4:], expected[1, 4:], rtol=1e-5, atol=1e-5)
    assert jnp.isfinite(got).all()
    unmasked = attention(*arrays, None, window=window)
    np.testing.assert_allclose(unmasked, by_definition(*arrays, mask | True, window), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("window", [None, 3])
def test_sequences_that_share_a_row_attend_as_they_do_alone(window):
    arrays = random_heads(1, 12, 4, 2, 8)
    segments = jnp.array([[7, 7, 7, 7, 7, 2, 9, 9, 9, 9, 0, 0]])
    shared = attention(*arrays, segments, window=window)
    for part in (slice(0, 5), slice(5, 6), slice(6, 10)):
        alone = attention(*(array[:, part] for array in arrays), None, window=window)
        np.testing.assert_allclose(shared[:, part], alone, rtol=1e-5, atol=1e-6)
    assert jnp.isfinite(shared).all()


@pytest.mark.slow
def test_splash_keeps_sequences_that_share_a_row_apart():
    arrays = random_heads(2, 150, 2, 1, 128)
    segments = jnp.sort(jax.random.randint(jax.random.key(0), (2, 150), 0, 5), axis=1)
    options: dict = {"window": None, "row_axes": (), "head_axis": None, "interpret": True}
    got = splash_attention.attention(*arrays, segments, **options)
    np.testing.assert_allclose(got, attention(*arrays, segments), rtol=1e-5, atol=1e-5)


def test_cudnn_takes_segments_of_an_even_row_alone():
    arrays = random_heads(1, 7, 2, 2, 8, jnp.bfloat16)
    with pytest.raises(ValueError, match="rows have 7 positions; with a mask cuDNN takes even numbers alone"):
        attention(*arrays, jnp.ones((1, 7), jnp.int32), implementation="cudnn")


def test_bfloat16_has_a_gradient_in_bfloat16():
    arrays = random_heads(1, 6, 2, 1, 8, jnp.bfloat16)
    wide = tuple(array.astype(jnp.float32) for array in arrays)

    def total(*arrays):
        return jnp.sum(jnp.sin(attention(*arrays, None).astype(jnp.float32)))

    gradient = jax.jit(jax.grad(total, (0, 1, 2)))
    for narrow, exact in zip(gradient(*arrays), gradient(*wide), strict=True):
        assert narrow.dtype == jnp.bfloat16
        np.testing.assert_allclose(narrow.astype(jnp.float32), exact, rtol=0, atol=2**-7 * jnp.abs(exact).max())


@pytest.mark.slow
@pytest.mark.parametrize(("padded", "window"), [(False, None), (True, 70)])
def test_splash_gives_xla_s_result_and_gradient(padded, window):
    B, S = 2, 200  # not a multiple of the kernel's 128
    arrays = random_heads(B, S, 4, 2, 128)
    mask = jnp.arange(S)[None, :] >= jnp.array([[0], [37]]) if padded else None
    real = jnp.ones((B, S), bool) if mask is None else mask

    def result_and_gradient(function):
        def total(*arrays):
            out = jnp.where(real[:, :, None, None], function(*arrays), 0.0)
            return jnp.sum(jnp.sin(out)), out

        (_, out), gradient = jax.jit(jax.value_and_grad(total, (0, 1, 2), has_aux=True))(*arrays)
        return out, *gradient

    def splash(*arrays):
        return splash_attention.attention(*arrays, mask, window=window, row_axes=(), head_axis=None, interpret=True)

    expected = result_and_gradient(lambda *arrays: attention(*arrays, mask, window=window))
    for got, wanted in zip(result_and_gradient(splash), expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5 * jnp.abs(wanted).max())


@pytest.mark.slow
def test_splash_gives_each_device_its_rows_and_heads():
    arrays = random_heads(4, 128, 4, 2, 128)
    mesh = make_mesh(2, 2, 2)
    spread = jax.device_put(arrays, NamedSharding(mesh, PartitionSpec(BATCH, None, TENSOR)))

    @jax.jit
    def splash(*arrays):
        return splash_attention.attention(*arrays, None, window=50, row_axes=BATCH, head_axis=TENSOR, interpret=True)

    got = splash(*spread)
    assert got.sharding.spec == PartitionSpec(BATCH, None, TENSOR)
    np.testing.assert_allclose(got, attention(*arrays, None, window=50), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("implementation", "changes", "message"),
    [
        ("flash", {}, "no such implementation; there are auto, xla, cudnn and splash"),
        ("cudnn", {}, "bfloat16 or float16, not float32"),
        ("cudnn", {"K": 12, "dtype": jnp.bfloat16}, "head_dim is 12"),
        ("splash", {"K": 64}, "head_dim is 64; splash attention takes multiples of 128"),
        ("splash", {"mesh": ("x", "y")}, "the mesh has the axes x, y and no 'data'"),
        ("splash", {"B": 6, "mesh": ("data", "fsdp", "tensor")}, "6 rows do not divide over the 4 devices"),
        (
            "splash",
            {"G": 1, "mesh": ("data", "fsdp", "tensor")},
            "1 key-value heads do not divide over the 2 devices of the mesh axis 'tensor'",
        ),
    ],
)
def test_a_named_implementation_that_cannot_says_why(implementation, changes, message):
    sizes = {"B": 4, "S": 8, "H": 2, "G": 2, "K": 128} | changes
    axes = sizes.pop("mesh", ())
    arrays = random_heads(**sizes)
    if axes:
        mesh = jax.make_mesh((2,) * len(axes), axes, axis_types=(AxisType.Auto,) * len(axes))
        arrays = jax.device_put(arrays, NamedSharding(mesh, PartitionSpec()))
    with pytest.raises(ValueError, match=message):
        attention(*arrays, None, implementation=implementation, row_axes=BATCH, head_axis=TENSOR)
    assert attention(*arrays, None, implementation="auto", row_axes=BATCH, head_axis=TENSOR).shape == arrays[0].shape
