"""Profiles by entropy decile and position, and effective tokens, against plain loops and the float64 reference."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from egrsd_jax.objective.gate import entropy_gate
from egrsd_jax.objective.losses import ratio_weight
from egrsd_jax.objective.profiles import effective_tokens, entropy_deciles, floor_share, position_profile
from tests.objective import reference
from tests.objective.examples import random_batch

LENGTHS = (20, 0, 7, 10)
MASK = np.arange(20)[None] < np.array(LENGTHS)[:, None]
ENTROPY, DELTA, WEIGHT = (
    np.where(MASK, np.random.default_rng(seed).normal(size=MASK.shape), np.nan).astype(np.float32) for seed in range(3)
)
jitted_deciles = jax.jit(entropy_deciles, static_argnames="bins")

dims = chex.Dimensions(B=5, T=6)
# A grid with many ties, whose quantiles float32 computes without rounding.
TIED_ENTROPIES = arrays(np.float32, dims["BT"], elements=st.sampled_from([0.0, 0.5, 1.0, 2.0, 4.0]))
SOME_LENGTHS = st.lists(st.integers(0, 6), min_size=5, max_size=5)


def close(actual, expected):
    chex.assert_type(actual, jnp.float32)
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6)


def prefix_mask(lengths, width=6):
    return np.arange(width)[None, :] < np.array(lengths)[:, None]


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


class TestEntropyDeciles:
    def weights(self, batch):
        weight_BT = ratio_weight(batch.student_logp_BT, batch.teacher_logp_BT, batch.advantage_B)
        return weight_BT * entropy_gate(batch.entropy_BT, batch.mask_BT, gamma=0.3, window=1)

    @pytest.mark.parametrize("bins", [4, 10])
    def test_agrees_with_the_reference(self, bins):
        batch = random_batch(6, lengths=(6, 0, 6, 5, 4))
        with np.errstate(invalid="ignore"):  # padding holds infinities
            delta_BT = batch.teacher_logp_BT - batch.student_logp_BT
        arguments = (batch.entropy_BT, delta_BT, self.weights(batch), batch.mask_BT)
        deciles = jitted_deciles(*arguments, bins=bins)
        for ours, expected in zip(deciles, reference.entropy_deciles(*arguments, bins=bins), strict=True):
            chex.assert_shape(ours, (bins,))
            close(ours, expected)

    @settings(max_examples=20, deadline=None)
    @given(entropy_BT=TIED_ENTROPIES, lengths=SOME_LENGTHS)
    def test_equal_entropies_share_a_bin_and_every_token_has_one(self, entropy_BT, lengths):
        mask_BT = prefix_mask(lengths)
        # Each token's delta is its entropy, so the bins' means times their sizes are the sum of all entropies.
        deciles = jitted_deciles(entropy_BT, entropy_BT, np.ones_like(entropy_BT), mask_BT, bins=4)
        assert float(deciles.tokens.sum()) == sum(lengths)
        seen = deciles.entropy_max[deciles.tokens > 0]
        assert np.all(np.diff(seen) > 0)
        np.testing.assert_array_equal(deciles.weight_abs_mean, np.asarray(deciles.tokens > 0, np.float32))
        if mask_BT.any():
            close(deciles.tokens @ deciles.delta_abs_mean, entropy_BT[mask_BT].sum())

    def test_without_weights_the_rest_is_the_same(self):
        batch = random_batch(7)
        delta_BT = np.where(batch.mask_BT, batch.student_logp_BT, 0)
        deciles = jitted_deciles(batch.entropy_BT, delta_BT, None, batch.mask_BT)
        assert deciles.weight_abs_mean is None
        whole = jitted_deciles(batch.entropy_BT, delta_BT, self.weights(batch), batch.mask_BT)
        chex.assert_trees_all_equal(deciles, whole._replace(weight_abs_mean=None))

    def test_ties_go_to_the_lower_bin(self):
        # Nine tokens: the quartiles are the entropies of tokens.
        mask_BT = prefix_mask([6, 3, 0, 0, 0])
        entropy_BT = np.where(mask_BT, np.arange(30).reshape(5, 6) % 9, np.nan).astype(np.float32)
        deciles = jitted_deciles(entropy_BT, entropy_BT, mask_BT, mask_BT, bins=4)
        np.testing.assert_array_equal(deciles.tokens, [3, 2, 2, 2])
        np.testing.assert_array_equal(deciles.entropy_max, [2, 4, 6, 8])

    def test_bad_arguments_are_named(self):
        ones = np.ones((2, 3))
        with pytest.raises(ValueError, match=r"bins must be a Python int .* of at least 1; got 0"):
            entropy_deciles(ones, ones, ones, ones, bins=0)
        with pytest.raises(ValueError, match="weight_BT has shape"):
            entropy_deciles(ones, ones, np.ones((2, 4)), ones)
