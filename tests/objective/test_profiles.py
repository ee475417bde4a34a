"""Position profiles and effective tokens against plain loops."""

import chex
import jax
import numpy as np
import pytest

from egrsd_jax.objective.profiles import effective_tokens, floor_share, position_profile

LENGTHS = (20, 0, 7, 10)
MASK = np.arange(20)[None] < np.array(LENGTHS)[:, None]
ENTROPY, DELTA, WEIGHT = (
    np.where(MASK, np.random.default_rng(seed).normal(size=MASK.shape), np.nan).astype(np.float32) for seed in range(3)
)


def test_profile_equals_loops_over_tokens():
    found = jax.jit(position_profile)(ENTROPY, DELTA, WEIGHT, MASK)
    bins = [[] for _ in range(10)]
    for row, length in enumerate(LENGTHS):
        for t in range(length):
            bins[(10 * t) // length].append((ENTROPY[row, t], DELTA[row, t], WEIGHT[row, t]))
    np.testing.assert_array_equal(found.tokens, [len(each) for each in bins])
    expected = np.array([np.mean(np.array(each, np.float64), axis=0) for each in bins])
    actual = np.stack([found.entropy_mean, found.delta_mean, found.weight_mean], axis=1)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
    sizes = [np.mean(np.abs(np.array(each, np.float64)[:, 1])) for each in bins]
    np.testing.assert_allclose(found.delta_abs_mean, sizes, rtol=1e-5)


def test_without_weights_the_rest_is_the_same():
    found, whole = position_profile(ENTROPY, DELTA, None, MASK), position_profile(ENTROPY, DELTA, WEIGHT, MASK)
    assert found.weight_mean is None
    chex.assert_trees_all_equal(found, whole._replace(weight_mean=None))


def test_an_empty_bin_has_zeros():
    found = position_profile(ENTROPY[2:3, :7], DELTA[2:3, :7], WEIGHT[2:3, :7], MASK[2:3, :7])
    assert float(found.tokens.sum()) == 7
    np.testing.assert_array_equal(found.entropy_mean[np.asarray(found.tokens) == 0], 0)


def test_effective_tokens_counts_equal_weights_and_discounts_unequal_ones():
    mask = np.array([[1, 1, 1, 0]])
    assert float(effective_tokens(np.array([[-2.0, 2, 2, np.nan]]), mask)) == pytest.approx(3)
    assert float(effective_tokens(np.array([[5.0, 0, 0, 9]]), mask)) == pytest.approx(1)
    assert float(effective_tokens(np.zeros((1, 4)), mask)) == 0


def test_floor_share_counts_tokens_at_the_floor():
    gate, mask = np.array([[0.1, 0.5, 0.1, 0.0]], np.float32), np.array([[1, 1, 1, 0]])
    assert float(floor_share(gate, mask, 0.1)) == pytest.approx(2 / 3)
