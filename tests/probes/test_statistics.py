"""Statistics of the probes, by hand and against the pairs themselves: ratios, areas under the ROC curve, placebos."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from egrsd_jax.probes.statistics import Tally, area, auroc, compare_placebo, total

TOP, BOTTOM = [3, 0, 2, 5], [10, 20, 10, 40]


def test_a_ratio_of_sums_and_its_error_by_hand():
    statistic = Tally.of(zip(TOP, BOTTOM, strict=True))
    assert statistic.value == 10 / 80
    residual = [top - bottom / 8 for top, bottom in zip(TOP, BOTTOM, strict=True)]  # 1.75, -2.5, 0.75, 0
    assert sum(residual) == 0
    assert statistic.error == pytest.approx(math.sqrt(sum(r * r for r in residual) * 4 / 3) / 80)


def test_the_error_of_equal_denominators_is_that_of_a_mean():
    values = np.random.default_rng(0).normal(size=50)
    statistic = Tally.of((value, 1) for value in values)
    assert statistic.error == pytest.approx(values.std(ddof=1) / math.sqrt(50))


def test_the_error_is_that_of_repeated_samples():
    source = np.random.default_rng(1)
    lengths = source.integers(20, 200, (4000, 60))
    counts = source.poisson(0.05 * lengths * source.gamma(2, 0.5, lengths.shape))
    values = [Tally.of(zip(c, n, strict=True)) for c, n in zip(counts, lengths, strict=True)]
    spread = np.std([ratio.value for ratio in values])
    assert np.mean([ratio.error for ratio in values]) == pytest.approx(spread, rel=0.05)


def test_steps_add_up_to_what_they_are_together():
    pairs = list(zip(TOP, BOTTOM, strict=True))
    assert total([Tally.of(pairs[:1]), Tally.of([]), Tally.of(pairs[1:])]) == Tally.of(pairs)


def test_completions_without_a_denominator_say_nothing():
    assert Tally.of([(0, 0), (1, 2), (1, 2)]) == Tally.of([(1, 2), (1, 2)])
    assert math.isnan(Tally.of([(0, 0)]).value)
    assert Tally.of([(1, 2)]).error == math.inf


def by_pairs(score, outcome) -> float:
    pairs = [
        (t, f)
        for t, ok in zip(score, outcome, strict=True)
        if ok
        for f, no in zip(score, outcome, strict=True)
        if not no
    ]
    return sum((t > f) + 0.5 * (t == f) for t, f in pairs) / len(pairs)


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40))
def test_the_area_is_the_share_of_ordered_pairs(cases):
    score, outcome = np.array([s for s, _ in cases]), np.array([o for _, o in cases])
    if outcome.all() or not outcome.any():
        assert math.isnan(area(score, outcome))
    else:
        assert area(score, outcome) == pytest.approx(by_pairs(score, outcome))


def test_an_area_by_hand():
    # true 3 and 1, false 2 and 1: 3>2, 3>1, 1<2, 1=1
    assert area(np.array([3, 1, 2, 1]), np.array([True, True, False, False])) == 2.5 / 4


@pytest.mark.slow
def test_the_interval_covers_and_widens_with_dependence():
    source, covered = np.random.default_rng(0), 0
    for _ in range(40):
        outcome = np.arange(80) < 40
        score = source.normal(size=80) + 0.7 * outcome  # normal: the area is Φ(0.7 / √2)
        statistic = auroc(score, outcome, np.arange(80))
        covered += statistic.low <= 0.6897 <= statistic.high
    assert covered >= 34
    score, outcome = np.repeat(source.normal(size=20), 4), np.repeat(source.random(20) < 0.5, 4)
    apart, together = (auroc(score, outcome, cluster) for cluster in (np.arange(80), np.repeat(np.arange(20), 4)))
    assert together.value == apart.value
    assert together.high - together.low > 1.4 * (apart.high - apart.low)


def test_one_outcome_alone_has_no_area():
    assert all(math.isnan(value) for value in auroc(np.arange(3), np.ones(3), np.arange(3)))


TRUE = [np.array([1.0, -2, 0]), np.array([0.5, -0.5])]


def test_a_placebo_by_hand():
    placebo = [np.array([0.4, 1, 3]), np.array([2.0, -0.5])]
    statistic = compare_placebo("other", TRUE, placebo)
    assert statistic.survives == pytest.approx((0.4 + 0.5 + 0.5) / 4)  # min where signs agree
    assert statistic.ratio == pytest.approx(6.9 / 4)
    assert statistic.slope == pytest.approx((0.4 - 2 + 1 + 0.25) / 5.5)
    assert (statistic.completions, statistic.tokens) == (2, 5)
    assert (statistic.delta, statistic.true_delta) == (pytest.approx(6.9 / 5), pytest.approx(4 / 5))


@pytest.mark.parametrize(("factor", "survives"), [(1, 1), (0.25, 0.25), (4, 1), (-1, 0), (0, 0)])
def test_a_scaled_signal_survives_by_its_scale(factor, survives):
    statistic = compare_placebo("wrong", TRUE, [factor * delta for delta in TRUE])
    assert (statistic.survives, statistic.slope) == (pytest.approx(survives), pytest.approx(factor))


def test_a_placebo_that_dislikes_every_token_keeps_nothing_beyond_chance():
    source = np.random.default_rng(0)
    true = [source.normal(size=40) for _ in range(30)]
    statistic = compare_placebo("other", true, [np.full(40, -9.0) for _ in true])
    assert statistic.survives == pytest.approx(statistic.chance)  # all that is negative, at any position
    assert statistic.survives > 0.4
    assert statistic.beyond == pytest.approx(0, abs=1e-9)


def test_an_unrelated_signal_is_chance_and_the_same_one_survives_whole():
    source = np.random.default_rng(1)
    true = [source.normal(size=60) for _ in range(30)]
    unrelated = compare_placebo("other", true, [source.normal(size=60) for _ in true])
    assert unrelated.low < 0 < unrelated.high
    half = compare_placebo("other", true, [np.where(np.arange(60) < 30, delta, 0.0) for delta in true])
    assert 0.35 < half.low < half.beyond < half.high < 0.5  # half of the tokens, less what half gives by chance
    same = compare_placebo("reference_only", true, true)
    assert (same.beyond, same.low, same.high) == (1, 1, 1)


def test_a_teacher_without_a_signal_has_no_share():
    assert np.isnan(compare_placebo("none", [np.zeros(2)], [np.ones(2)]).survives)
