"""Token regimes, their shares and restored weights, against the float64 reference; float32 tolerance 1e-6."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from egrsd_jax.objective.regimes import (
    FORK,
    LOCK,
    MID,
    PADDING,
    PIVOT,
    REGIME_NAMES,
    regime_metrics,
    regime_shares,
    token_regimes,
)
from tests.objective import reference
from tests.objective.examples import POISON, random_batch, rows, with_extra_padding

dims = chex.Dimensions(B=5, T=6)
# A grid with many ties, whose quantiles float32 computes without rounding.
TIED_ENTROPIES = arrays(np.float32, dims["BT"], elements=st.sampled_from([0.0, 0.5, 1.0, 2.0, 4.0]))
LENGTHS = st.lists(st.integers(0, 6), min_size=5, max_size=5)


def close(actual, expected):
    chex.assert_type(actual, jnp.float32)
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6)


def prefix_mask(lengths, width=6):
    return np.arange(width)[None, :] < np.array(lengths)[:, None]


def names_of(codes_BT):
    names = {LOCK: "lock", FORK: "fork", PIVOT: "pivot", MID: "mid", PADDING: ""}
    return np.vectorize(names.get, otypes=[object])(np.asarray(codes_BT))


class TestTokenRegimes:
    def test_worked_by_hand(self):
        # Eleven tokens: the median is 1.0 and the 70th percentile 2.0, both entropies of tokens.
        entropy_BT = np.full((5, 6), np.nan, np.float32)
        entropy_BT[0] = [3.0, 2.5, 2.0, 0.1, 0.2, 1.0]
        entropy_BT[1, :5] = [4.0, 0.3, 1.5, 0.4, 0.5]
        codes_BT = token_regimes(entropy_BT, prefix_mask([6, 5, 0, 0, 0]), window=1, entropy_max=4.0)
        chex.assert_type(codes_BT, jnp.int32)
        np.testing.assert_array_equal(codes_BT[0], [FORK, FORK, PIVOT, LOCK, LOCK, LOCK])
        np.testing.assert_array_equal(codes_BT[1], [PIVOT, LOCK, MID, LOCK, LOCK, PADDING])
        np.testing.assert_array_equal(codes_BT[2:], PADDING)

    def test_lock_comes_first_where_the_thresholds_meet(self):
        codes_BT = token_regimes(np.full((5, 6), 2.0), np.ones((5, 6)), window=2, entropy_max=2.0)
        np.testing.assert_array_equal(codes_BT, np.full((5, 6), LOCK))

    def test_fork_comes_before_pivot_where_the_thresholds_meet(self):
        # Both thresholds are 1, so the 3 that sees a 1 ahead meets the conditions of a fork and of a pivot.
        entropy_BT = np.ones((5, 6))
        entropy_BT[0, 4] = 3.0
        codes_BT = token_regimes(entropy_BT, np.ones((5, 6)), window=1, entropy_max=3.0)
        np.testing.assert_array_equal(codes_BT, np.where(entropy_BT == 3.0, FORK, LOCK))

    @settings(max_examples=40, deadline=None)
    @given(entropy_BT=TIED_ENTROPIES, lengths=LENGTHS, window=st.integers(0, 4))
    def test_agrees_with_the_reference_through_ties(self, entropy_BT, lengths, window):
        # At 1/4 and 3/4 the interpolation of these entropies is exact, so no tie depends on rounding.
        mask_BT = prefix_mask(lengths)
        options = {"window": window, "entropy_max": 4.0, "low_quantile": 0.25, "high_quantile": 0.75}
        codes_BT = token_regimes(np.where(mask_BT, entropy_BT, POISON[0]), mask_BT, **options)
        np.testing.assert_array_equal(names_of(codes_BT), reference.token_regimes(entropy_BT, mask_BT, **options))

    @pytest.mark.parametrize("seed", range(3))
    def test_agrees_with_the_reference_at_the_default_quantiles(self, seed):
        batch, options = random_batch(seed, lengths=(6, 0, 6, 5, 4)), {"window": 2, "entropy_max": 3.0}
        expected_BT = reference.token_regimes(batch.entropy_BT, batch.mask_BT, **options)
        np.testing.assert_array_equal(names_of(token_regimes(batch.entropy_BT, batch.mask_BT, **options)), expected_BT)
        assert {"lock", "pivot", "mid"} <= set(expected_BT.ravel())

    def test_one_maximum_for_all_changes_no_regime_but_one_a_sequence_does(self):
        entropy_BT, mask_BT = np.array([[4.0, 3.0, 2.0], [1.0, 0.75, 0.5]]), np.ones((2, 3))
        codes_BT = token_regimes(entropy_BT, mask_BT, window=0, entropy_max=4.0)
        np.testing.assert_array_equal(token_regimes(entropy_BT, mask_BT, window=0, entropy_max=8.0), codes_BT)
        per_sequence_BT = token_regimes(entropy_BT, mask_BT, window=0, entropy_max=np.array([[4.0], [1.0]]))
        np.testing.assert_array_equal(per_sequence_BT[0], per_sequence_BT[1])
        assert np.any(codes_BT[0] != codes_BT[1])

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"low_quantile": -0.1}, "low_quantile must be .*; got -0.1"),
            ({"high_quantile": 0.4}, r"high_quantile must be a number in \[low_quantile, 1\]; got 0.4"),
            ({"entropy_max": 0.0}, "entropy_max must be a number of nats above 0, or B1 of them; got 0.0"),
            ({"entropy_max": np.ones((1, 3))}, "entropy_max must be"),
            ({"window": -1}, "window must be .*; got -1"),
        ],
    )
    def test_bad_arguments_are_named(self, options, message):
        with pytest.raises(ValueError, match=message):
            token_regimes(np.ones((2, 3)), np.ones((2, 3)), **{"window": 1, "entropy_max": 2.0, **options})


class TestRegimeMetrics:
    OPTIONS = ({"gamma": 0.3, "window": 2}, {"gamma": 1.0, "window": 2, "denominator": "lookahead"})

    @pytest.mark.parametrize("options", OPTIONS, ids=str)
    def test_shares_and_restored_weights(self, options):
        batch = random_batch(3, lengths=(6, 0, 6, 5, 4))
        metrics = regime_metrics(batch.entropy_BT, batch.mask_BT, **options)
        entropy_max = reference.entropy_maximum(
            batch.entropy_BT, batch.mask_BT, window=2, denominator=options.get("denominator", "raw")
        )
        names_BT = reference.token_regimes(batch.entropy_BT, batch.mask_BT, window=2, entropy_max=entropy_max)
        gates = [
            reference.entropy_gate(
                batch.entropy_BT, batch.mask_BT, gamma=options["gamma"], window=window, entropy_max=entropy_max
            )
            for window in (2, 0)
        ]
        restored_BT = gates[0] - gates[1]
        close(metrics["restored_weight"], restored_BT[batch.mask_BT].mean())
        for name in REGIME_NAMES:
            inside_BT = names_BT == name
            close(metrics[f"{name}_share"], inside_BT.sum() / batch.mask_BT.sum())
            close(metrics[f"{name}_restored"], restored_BT[inside_BT].mean() if inside_BT.any() else 0.0)
        assert metrics["pivot_restored"] > metrics["lock_restored"]
        assert len(metrics) == 9

    @settings(max_examples=20, deadline=None)
    @given(entropy_BT=TIED_ENTROPIES, lengths=LENGTHS, gamma=st.floats(0, 1))
    def test_shares_sum_to_one_and_nothing_is_taken_away(self, entropy_BT, lengths, gamma):
        metrics = regime_metrics(entropy_BT, prefix_mask(lengths), gamma=gamma, window=3)
        close(sum(metrics[f"{name}_share"] for name in REGIME_NAMES), float(sum(lengths) > 0))
        assert all(metrics[f"{name}_restored"] >= 0 for name in REGIME_NAMES)

    def test_without_a_window_nothing_is_restored_and_there_is_no_pivot(self):
        batch = random_batch(4)
        metrics = regime_metrics(batch.entropy_BT, batch.mask_BT, gamma=1.0, window=0)
        assert float(metrics["restored_weight"]) == 0.0
        assert float(metrics["pivot_share"]) == 0.0
        assert float(metrics["fork_share"]) > 0.0

    def test_padding_order_and_jit_change_nothing(self):
        batch, options = random_batch(5), {"gamma": 0.6, "window": 2, "scope": "sequence"}
        expected = regime_metrics(batch.entropy_BT, batch.mask_BT, **options)
        larger, shuffled = with_extra_padding(batch), rows(batch, np.array([3, 1, 4, 0, 2]))
        jitted = jax.jit(lambda entropy_BT, mask_BT: regime_metrics(entropy_BT, mask_BT, **options))
        for other in (batch, larger, shuffled):
            metrics = jitted(other.entropy_BT, other.mask_BT)
            chex.assert_trees_all_close(metrics, expected, rtol=1e-6, atol=1e-6)

    def test_a_batch_without_a_token_is_all_zeros(self):
        metrics = regime_metrics(np.full((2, 3), np.nan), np.zeros((2, 3)), gamma=0.3, window=1)
        assert all(float(metric) == 0.0 for metric in metrics.values())


class TestRegimeShares:
    def test_by_hand(self):
        codes_BT = np.array([[LOCK, LOCK, FORK, MID], [PIVOT, LOCK, LOCK, PADDING], [PADDING] * 4])
        shares = regime_shares(codes_BT, codes_BT != PADDING)
        expected = {"lock_share": 4 / 7, "fork_share": 1 / 7, "pivot_share": 1 / 7, "mid_share": 1 / 7}
        assert shares.keys() == expected.keys()
        for name, share in expected.items():
            close(shares[name], share)
