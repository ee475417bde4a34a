"""Reductions compare with NumPy on the real entries alone; float32 tolerance 1e-6 relative."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from egrsd_jax.ops import masked

dims = chex.Dimensions(B=3, T=4)
VALUES = arrays(np.float32, dims["BT"], elements=st.floats(-10, 10, width=32))
MASKS = arrays(np.bool_, dims["BT"])
POISON = np.resize(np.array([np.nan, np.inf, -np.inf], np.float32), dims["BT"])

REDUCERS = {
    "sum": (masked.masked_sum, lambda real: real.sum() if real.size else 0.0),
    "mean": (masked.masked_mean, lambda real: real.mean() if real.size else 0.0),
    "max": (lambda v, m: masked.masked_max(v, m, initial=1.0), lambda real: max(real.max(initial=1.0), 1.0)),
    "min": (lambda v, m: masked.masked_min(v, m, initial=1.0), lambda real: min(real.min(initial=1.0), 1.0)),
    "quantile": (lambda v, m: masked.masked_quantile(v, m, 0.3), lambda r: np.quantile(r, 0.3) if r.size else 0.0),
}


@pytest.mark.parametrize("name", REDUCERS)
@settings(max_examples=25, deadline=None)
@given(values=VALUES, mask=MASKS)
def test_padding_never_enters(name, values, mask):
    ours, numpys = REDUCERS[name]
    result = ours(np.where(mask, values, POISON), mask)
    chex.assert_shape(result, ())
    chex.assert_type(result, jnp.float32)
    np.testing.assert_allclose(result, numpys(values[mask].astype(np.float64)), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("name", REDUCERS)
def test_gradients_stay_finite_and_out_of_padding(name):
    mask = np.array([[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 0]], bool)
    values = np.where(mask, np.arange(12, dtype=np.float32).reshape(3, 4), POISON)
    gradient = jax.grad(lambda v: REDUCERS[name][0](v, mask))(values)
    chex.assert_tree_all_finite(gradient)
    np.testing.assert_array_equal(gradient[~mask], 0.0)


@pytest.mark.parametrize("dtype", [np.bool_, np.int32, np.float32, jnp.bfloat16])
def test_any_dtype_of_mask_and_bfloat16_values(dtype):
    mask = np.array([[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 0]])
    values = jnp.arange(12, dtype=jnp.bfloat16).reshape(3, 4)
    mean = masked.masked_mean(values, jnp.asarray(mask, dtype))
    chex.assert_type(mean, jnp.float32)
    np.testing.assert_allclose(mean, (0 + 1 + 8 + 9 + 10) / 5, rtol=1e-6)


def test_along_an_axis():
    mask = np.array([[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 0]], bool)
    values = np.where(mask, np.arange(12.0).reshape(3, 4), POISON)
    np.testing.assert_allclose(masked.masked_sum(values, mask, axis=1), [1.0, 0.0, 27.0], rtol=1e-6)
    np.testing.assert_allclose(masked.masked_mean(values, mask, axis=1), [0.5, 0.0, 9.0], rtol=1e-6)
    np.testing.assert_array_equal(masked.masked_count(mask, axis=1), [2.0, 0.0, 3.0])
    chex.assert_shape(masked.masked_max(values, mask, initial=0.0, axis=1, keepdims=True), (3, 1))


def test_quantiles_of_a_vector():
    values = np.arange(11, dtype=np.float32)
    mask = values < 10
    quantiles = masked.masked_quantile(values, mask, np.array([0.0, 0.25, 0.5, 1.0]))
    np.testing.assert_allclose(quantiles, np.quantile(np.arange(10.0), [0.0, 0.25, 0.5, 1.0]), rtol=1e-6)


@pytest.mark.parametrize("count", [11, 21, 31, 101])
def test_a_quantile_that_falls_on_an_entry_is_that_entry(count):
    values = np.random.default_rng(count).permutation(np.sqrt(np.arange(128, dtype=np.float32)))
    mask = values < np.float32(np.sqrt(count))
    tenths = np.arange(11) / 10
    entries = np.sort(values[mask])[:: (count - 1) // 10]
    np.testing.assert_array_equal(masked.masked_quantile(values, mask, tenths), entries)


def test_quantiles_of_nothing_and_of_nan():
    np.testing.assert_array_equal(masked.masked_quantile(np.zeros((0, 3)), np.zeros((0, 3)), np.array([0.2, 1.0])), 0.0)
    np.testing.assert_array_equal(masked.masked_quantile([np.nan, np.inf], [0, 0], 0.5), 0.0)
    assert np.isnan(masked.masked_quantile([1.0, np.nan, 3.0], [1, 1, 0], 0.0))


def test_a_count_above_two_to_the_24_is_not_lost():
    mask = jnp.ones((1, 2**24 + 2), bool)
    assert float(jax.jit(masked.masked_count)(mask)) == 2**24 + 2


def test_fill_padding_replaces_padding_alone():
    filled = masked.fill_padding(np.array([1.0, np.nan]), np.array([1, 0]), -3.0)
    np.testing.assert_array_equal(filled, [1.0, -3.0])
    with pytest.raises(ValueError, match="mask has shape"):
        masked.fill_padding(np.zeros(2), np.zeros(3))


class TestReduction:
    MASK = np.array([[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 0]], bool)
    VALUES = np.where(MASK, np.array([[1.0, 3.0, 0, 0], [0, 0, 0, 0], [3.0, 6.0, 9.0, 0]]), POISON)

    def test_token_is_the_mean_of_all_tokens(self):
        np.testing.assert_allclose(masked.reduce_tokens(self.VALUES, self.MASK, "token"), 22 / 5, rtol=1e-6)
        assert float(masked.reduction_count(self.MASK, "token")) == 5

    def test_sequence_is_the_mean_of_non_empty_sequences_means(self):
        np.testing.assert_allclose(masked.reduce_tokens(self.VALUES, self.MASK, "sequence"), (2 + 6) / 2, rtol=1e-6)
        assert float(masked.reduction_count(self.MASK, "sequence")) == 2

    @pytest.mark.parametrize("reduction", masked.REDUCTIONS)
    @pytest.mark.parametrize("shape", [(3, 4), (0, 4), (3, 0)])
    def test_nothing_reduces_to_zero(self, reduction, shape):
        values, mask = np.full(shape, np.nan), np.zeros(shape, bool)
        assert float(masked.reduce_tokens(values, mask, reduction)) == 0.0
        assert float(masked.reduction_count(mask, reduction)) == 0.0

    def test_bad_arguments_are_named(self):
        with pytest.raises(ValueError, match="reduction must be one of 'token', 'sequence', 'constant'; got 'mean'"):
            masked.reduce_tokens(self.VALUES, self.MASK, "mean")
        with pytest.raises(ValueError, match="reduction must be one of"):
            masked.reduction_count(self.MASK, None)  # pyright: ignore[reportArgumentType]
        with pytest.raises(ValueError, match="mask_BT has shape"):
            masked.reduce_tokens(self.VALUES, self.MASK[:2], "token")
        with pytest.raises(ValueError, match="mask_BT must have 2 dimension"):
            masked.reduction_count(self.MASK[0], "token")

    def test_constant_divides_every_sum_by_one_length(self):
        values, mask = (
            np.array([[1.0, 2.0, np.nan], [4.0, np.nan, np.nan], [np.nan] * 3]),
            [[1, 1, 0], [1, 0, 0], [0] * 3],
        )
        found = masked.reduce_tokens(values, np.array(mask), "constant", max_length=10)
        np.testing.assert_allclose(found, (3.0 / 10 + 4.0 / 10) / 2, rtol=1e-6)
        with pytest.raises(ValueError, match="max_length must be a Python int"):
            masked.reduce_tokens(values, np.array(mask), "constant")
