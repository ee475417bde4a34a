"""The area under the ROC curve against the pairs themselves, and its interval."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from egrsd_jax.probes.auroc import area, auroc


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


def test_by_hand():
    # true 3 and 1, false 2 and 1: 3>2, 3>1, 1<2, 1=1
    assert area(np.array([3, 1, 2, 1]), np.array([True, True, False, False])) == 2.5 / 4


def test_the_interval_covers_and_widens_with_dependence():
    source, covered = np.random.default_rng(0), 0
    for _ in range(40):
        outcome = np.arange(80) < 40
        score = source.normal(size=80) + 0.7 * outcome  # normal: the area is Φ(0.7 / √2)
        found = auroc(score, outcome, np.arange(80))
        covered += found.low <= 0.6897 <= found.high
    assert covered >= 34
    score, outcome = np.repeat(source.normal(size=20), 4), np.repeat(source.random(20) < 0.5, 4)
    apart, together = (auroc(score, outcome, cluster) for cluster in (np.arange(80), np.repeat(np.arange(20), 4)))
    assert together.value == apart.value
    assert together.high - together.low > 1.4 * (apart.high - apart.low)


def test_one_outcome_alone_has_no_area():
    assert all(math.isnan(value) for value in auroc(np.arange(3), np.ones(3), np.arange(3)))
