"""Products against float64, and what they are multiplied and rounded in."""

from functools import partial

import chex
import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from egrsd_jax.ops import products
from egrsd_jax.ops.products import WEIGHT_PRODUCT, lists_bfloat16, processor_multiplies_bfloat16, product

# Those of projections, adapters, attention of sequences and of one token, and of the head; with a single row on either
# side, with several axes of one element, with no axis of its own at all, and in two forms that XLA's library refuses.
PRODUCTS = [
    ("...i,oi->...o", (2, 5, 64), (24, 64)),
    ("...i,io->...o", (7, 64), (64, 24)),
    ("...i,ri->...r", (1, 1, 64), (3, 64)),
    ("...r,or->...o", (6, 3), (1, 3)),
    ("bshk,bthk->bhst", (2, 6, 3, 16), (2, 5, 3, 16)),
    ("bhst,bthk->bshk", (2, 3, 6, 5), (2, 5, 3, 16)),
    ("bgrk,bgks->bgrs", (2, 3, 1, 16), (2, 3, 16, 9)),
    ("bgrs,bgsk->bgrk", (2, 3, 2, 9), (2, 3, 9, 16)),
    ("bd,dv->bv", (1, 64), (64, 40)),
    ("nd,nc->cd", (11, 16), (11, 1)),
    ("k,kn->n", (64,), (64, 7)),
    ("km,kn->mn", (48, 16), (48, 8)),
    ("bkm,bkn->bmn", (2, 7, 16), (2, 7, 8)),
    ("mkr,kn->mrn", (4, 16, 3), (16, 8)),
]
CASES = pytest.mark.parametrize(("subscripts", "left_shape", "right_shape"), PRODUCTS)
NATIVE = pytest.mark.parametrize("native", [False, True], ids=["without bfloat16", "with bfloat16"])


@pytest.fixture(autouse=True)
def fresh_memory_of_the_processor():
    yield
    processor_multiplies_bfloat16.cache_clear()


def operands(left_shape, right_shape, dtype=jnp.bfloat16, seed=0):
    rng = np.random.default_rng(seed)
    return tuple(jnp.asarray(rng.normal(size=shape), dtype) for shape in (left_shape, right_shape))


def in_float64(subscripts, left, right):
    return np.einsum(subscripts, np.asarray(left, np.float64), np.asarray(right, np.float64))


def error(value, exact):
    return np.linalg.norm(np.asarray(value, np.float64) - exact) / np.linalg.norm(exact)


def dots(jaxpr):
    """(operands' dtypes, result's dtype) of every product in a program and in the programs within it."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield {variable.aval.dtype.name for variable in equation.invars}, equation.outvars[0].aval.dtype.name
        for inner in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda value: hasattr(value, "eqns") or hasattr(value, "jaxpr")
        ):
            if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                yield from dots(getattr(inner, "jaxpr", inner))


@NATIVE
@CASES
def test_a_bfloat16_product_is_the_exact_one_rounded_once(monkeypatch, native, subscripts, left_shape, right_shape):
    monkeypatch.setattr(products, "processor_multiplies_bfloat16", lambda: native)
    left, right = operands(left_shape, right_shape)
    exact = in_float64(subscripts, left, right)
    result = jax.jit(partial(product, subscripts))(left, right)
    assert result.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(result, np.float64), exact, rtol=2**-8, atol=1e-5)
    assert error(result, exact) <= error(jnp.einsum(subscripts, left, right), exact) * (1 + 1e-3)
    wide = jax.jit(partial(product, subscripts, dtype=jnp.float32))(left, right)
    assert wide.dtype == jnp.float32
    assert error(wide, exact) < 1e-6


@pytest.mark.parametrize(("native", "dtype"), [(True, None), (True, jnp.float32), (False, None)])
@CASES
def test_gradients_are_no_further_from_float64_than_jax_has_them(
    monkeypatch, native, dtype, subscripts, left_shape, right_shape
):
    monkeypatch.setattr(products, "processor_multiplies_bfloat16", lambda: native)
    left, right = operands(left_shape, right_shape)
    bar = jnp.asarray(
        np.random.default_rng(1).normal(size=in_float64(subscripts, left, right).shape), dtype or "bfloat16"
    )

    def pulled(multiply):
        return jax.vjp(multiply, left, right)[1](bar)

    exact = jax.vjp(partial(jnp.einsum, subscripts), *(jnp.asarray(x, jnp.float32) for x in (left, right)))[1](
        jnp.asarray(bar, jnp.float32)
    )
    gradients = pulled(jax.jit(partial(product, subscripts, dtype=dtype)))
    before = pulled(partial(jnp.einsum, subscripts, preferred_element_type=dtype))
    for gradient, former, true in zip(gradients, before, exact, strict=True):
        assert gradient.dtype == jnp.bfloat16
        assert error(gradient, true) <= error(former, np.asarray(true)) * (1 + 1e-3) + 1e-9
        assert error(gradient, true) < 2**-8


@CASES
def test_products_of_bfloat16_take_bfloat16_and_result_in_float32_forward_and_backward(
    monkeypatch, subscripts, left_shape, right_shape
):
    monkeypatch.setattr(products, "processor_multiplies_bfloat16", lambda: True)

    def loss(left, right):
        return jnp.sum(product(subscripts, left, right).astype(jnp.float32) ** 2)

    program = jax.make_jaxpr(jax.grad(loss, (0, 1)))(*operands(left_shape, right_shape))
    found_dots = list(dots(program.jaxpr))
    # One product forward and two backward, each in the form of a CPU and in that of every other platform.
    assert len(found_dots) == 6
    assert all(of == {"bfloat16"} for of, _ in found_dots)
    assert sorted(result for _, result in found_dots) == ["bfloat16"] * 3 + ["float32"] * 3


def test_the_form_is_that_of_the_platform_that_is_compiled_for(monkeypatch):
    monkeypatch.setattr(products, "processor_multiplies_bfloat16", lambda: True)
    traced = jax.jit(partial(product, "mk,kn->mn")).trace(*operands((2, 16), (16, 3)))
    narrow, wide = "-> tensor<2x3xbf16>", "-> tensor<2x3xf32>"
    for platform, results in (("cpu", wide), ("tpu", narrow), ("cuda", narrow)):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert [line for line in text.splitlines() if "dot_general" in line and results in line], platform
        assert text.count("dot_general") == 1, platform


def test_without_bfloat16_in_the_processor_operands_are_multiplied_in_float32(monkeypatch):
    monkeypatch.setattr(products, "processor_multiplies_bfloat16", lambda: False)
    text = jax.jit(partial(product, "mk,kn->mn")).lower(*operands((2, 16), (16, 3))).as_text()
    (line,) = (line for line in text.splitlines() if "dot_general" in line)
    assert "(tensor<2x16xf32>, tensor<16x3xf32>) -> tensor<2x3xf32>" in line


@pytest.mark.skipif(not processor_multiplies_bfloat16(), reason="XLA converts bfloat16 on this processor anyway")
@pytest.mark.parametrize(
    ("subscripts", "left_shape", "right_shape"),
    [
        ("mk,kn->mn", (1, 768), (768, 512)),
        ("...k,nk->...n", (1, 1, 768), (512, 768)),
        ("nk,mk->nm", (512, 768), (1, 768)),
        ("km,kn->mn", (768, 512), (768, 64)),
        ("km,kn->nm", (768, 64), (768, 512)),
    ],
)
def test_the_matrix_is_not_converted_for_a_single_row_or_a_gradient(subscripts, left_shape, right_shape):
    left, right = operands(left_shape, right_shape)

    def converts(multiply):
        text = jax.jit(multiply).lower(left, right).compile().as_text()
        return "f32[768,512]" in text or "f32[512,768]" in text

    assert not converts(partial(product, subscripts))
    assert converts(partial(jnp.einsum, subscripts, preferred_element_type=jnp.float32)), "XLA no longer needs this"


@CASES
def test_float32_is_multiplied_by_jax_alone_bit_for_bit(subscripts, left_shape, right_shape):
    left, right = operands(left_shape, right_shape, jnp.float32)
    highest = partial(jnp.einsum, subscripts, precision="highest")
    program = jax.make_jaxpr(jax.grad(lambda *both: jnp.sum(product(subscripts, *both)), (0, 1)))(left, right)
    assert "cond" not in str(program)
    assert all(form == ({"float32"}, "float32") for form in dots(program.jaxpr))
    values, pull = jax.vjp(partial(product, subscripts), left, right)
    expected, expected_pull = jax.vjp(highest, left, right)
    chex.assert_trees_all_equal((values, pull(values)), (expected, expected_pull(values)))


@NATIVE
def test_it_works_under_vmap_scan_and_rematerialisation(monkeypatch, native):
    monkeypatch.setattr(products, "processor_multiplies_bfloat16", lambda: native)
    x_BD, w_LDD = operands((4, 16), (3, 16, 16))
    w_LDD = w_LDD / 4

    def layer(x_D, w_DD):
        return jnp.tanh(product("...i,oi->...o", x_D, w_DD))

    def unrolled(x_BD, w_LDD):
        for w_DD in w_LDD:
            x_BD = layer(x_BD, w_DD)
        return jnp.sum(x_BD.astype(jnp.float32))

    def scanned(x_BD, w_LDD, *, remat=True):
        body = jax.checkpoint(layer) if remat else layer
        one_row = jax.vmap(lambda x_D: jax.lax.scan(lambda x, w: (body(x, w), None), x_D, w_LDD)[0])
        return jnp.sum(one_row(x_BD).astype(jnp.float32))

    expected, *gradients = jax.value_and_grad(unrolled, (0, 1))(x_BD, w_LDD)
    for remat in (False, True):
        value, *others = jax.jit(jax.value_and_grad(partial(scanned, remat=remat), (0, 1)))(x_BD, w_LDD)
        chex.assert_trees_all_close(value, expected, rtol=1e-6)
        for other, gradient in zip(jax.tree.leaves(others), jax.tree.leaves(gradients), strict=True):
            assert error(other, np.asarray(gradient, np.float64)) < 2**-6  # vmap adds rows' gradients in bfloat16


@NATIVE
@pytest.mark.parametrize("in_axes", [(0, None), (None, 1), (1, 0)])
@pytest.mark.parametrize(("subscripts", "left_shape", "right_shape"), PRODUCTS[::3])
def test_vmap_is_one_more_axis_of_the_product(monkeypatch, native, in_axes, subscripts, left_shape, right_shape):
    monkeypatch.setattr(products, "processor_multiplies_bfloat16", lambda: native)
    left, right = (
        jnp.stack([x, 2 * x, -x], axis=axis) if axis is not None else x
        for x, axis in zip(operands(left_shape, right_shape), in_axes, strict=True)
    )
    mapped = jax.jit(jax.vmap(partial(product, subscripts), in_axes))(left, right)
    exact = jax.vmap(partial(jnp.einsum, subscripts), in_axes)(left.astype(jnp.float32), right.astype(jnp.float32))
    np.testing.assert_allclose(np.asarray(mapped, np.float32), exact, rtol=2**-8, atol=1e-5)


@NATIVE
@pytest.mark.parametrize("spec", [(P("a"), P()), (P(), P("a")), (P(None, "a"), P(None, "a"))])
def test_sharded_over_eight_devices_it_is_the_same(monkeypatch, native, spec):
    monkeypatch.setattr(products, "processor_multiplies_bfloat16", lambda: native)
    left, right = operands((8, 64), (16, 64))
    bar = jnp.ones((8, 16), jnp.bfloat16)

    def both(left, right):
        value, pull = jax.vjp(partial(product, "bi,oi->bo"), left, right)
        return value, pull(bar)

    mesh = jax.make_mesh((8,), ("a",), axis_types=(jax.sharding.AxisType.Auto,))
    put = (jax.device_put(x, NamedSharding(mesh, s)) for x, s in zip((left, right), spec, strict=True))
    for sharded, whole in zip(jax.tree.leaves(jax.jit(both)(*put)), jax.tree.leaves(both(left, right)), strict=True):
        # Where the inner axis is split, eight parts are added: rounded once in float32, or each part in bfloat16.
        assert error(sharded, np.asarray(whole, np.float64)) < (2**-8 if spec[0] == P(None, "a") else 1e-9)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_policies_keep_products_with_weights_by_name_and_no_others(dtype):
    keep = jax.checkpoint_policies.save_only_these_names(WEIGHT_PRODUCT)

    def saved(subscripts, left_shape, right_shape):
        @partial(jax.checkpoint, policy=keep)
        def function(left, right):
            return jnp.sum(jnp.tanh(product(subscripts, left, right)))

        residuals = jax.tree.leaves(jax.vjp(function, *operands(left_shape, right_shape, dtype))[1])
        return {(leaf.shape, leaf.dtype.name) for leaf in residuals}

    name = jnp.dtype(dtype).name
    assert ((2, 5, 24), name) in saved("...i,oi->...o", (2, 5, 64), (24, 64))
    assert ((2, 3, 6, 5), name) not in saved("bshk,bthk->bhst", (2, 6, 3, 16), (2, 5, 3, 16))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx512f avx512_bf16\nbugs\t\t: spectre\n", True),
        ("flags\t\t: fpu avx512f amx_bf16 amx_tile\n", True),
        ("Features\t: fp asimd i8mm bf16\n", True),
        ("flags\t\t: fpu avx2\nmodel name\t: avx512_bf16\nvmx flags\t: bf16\n", False),
        ("", False),
    ],
)
def test_the_processor_is_asked_through_linux(text, expected):
    assert lists_bfloat16(text) is expected
