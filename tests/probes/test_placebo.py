"""What survives of the teacher's signal, by hand."""

import numpy as np
import pytest

from egrsd_jax.probes.placebo import compare_placebo

TRUE = [np.array([1.0, -2, 0]), np.array([0.5, -0.5])]


def test_by_hand():
    placebo = [np.array([0.4, 1, 3]), np.array([2.0, -0.5])]
    found = compare_placebo("other", TRUE, placebo)
    assert found.survives == pytest.approx((0.4 + 0.5 + 0.5) / 4)  # min where signs agree
    assert found.ratio == pytest.approx(6.9 / 4)
    assert found.slope == pytest.approx((0.4 - 2 + 1 + 0.25) / 5.5)
    assert (found.completions, found.tokens) == (2, 5)
    assert (found.delta, found.true_delta) == (pytest.approx(6.9 / 5), pytest.approx(4 / 5))


@pytest.mark.parametrize(("factor", "survives"), [(1, 1), (0.25, 0.25), (4, 1), (-1, 0), (0, 0)])
def test_a_scaled_signal_survives_by_its_scale(factor, survives):
    found = compare_placebo("wrong", TRUE, [factor * each for each in TRUE])
    assert (found.survives, found.slope) == (pytest.approx(survives), pytest.approx(factor))


def test_a_placebo_that_dislikes_every_token_keeps_nothing_beyond_chance():
    source = np.random.default_rng(0)
    true = [source.normal(size=40) for _ in range(30)]
    found = compare_placebo("other", true, [np.full(40, -9.0) for _ in true])
    assert found.survives == pytest.approx(found.chance)  # all that is negative, at any position
    assert found.survives > 0.4
    assert found.beyond == pytest.approx(0, abs=1e-9)


def test_an_unrelated_signal_is_chance_and_the_same_one_survives_whole():
    source = np.random.default_rng(1)
    true = [source.normal(size=60) for _ in range(30)]
    unrelated = compare_placebo("other", true, [source.normal(size=60) for _ in true])
    assert unrelated.low < 0 < unrelated.high
    half = compare_placebo("other", true, [np.where(np.arange(60) < 30, each, 0.0) for each in true])
    assert 0.35 < half.low < half.beyond < half.high < 0.5  # half of the tokens, less what half gives by chance
    same = compare_placebo("reference_only", true, true)
    assert (same.beyond, same.low, same.high) == (1, 1, 1)


def test_a_teacher_without_a_signal_has_no_share():
    assert np.isnan(compare_placebo("none", [np.zeros(2)], [np.ones(2)]).survives)
