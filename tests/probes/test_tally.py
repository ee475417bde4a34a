"""Ratios as sums: their values, their errors, and that they add up."""

import math

import numpy as np
import pytest

from egrsd_jax.probes.tally import Tally, total

TOP, BOTTOM = [3, 0, 2, 5], [10, 20, 10, 40]


def test_a_ratio_of_sums_and_its_error_by_hand():
    found = Tally.of(zip(TOP, BOTTOM, strict=True))
    assert found.value == 10 / 80
    residual = [top - bottom / 8 for top, bottom in zip(TOP, BOTTOM, strict=True)]  # 1.75, -2.5, 0.75, 0
    assert sum(residual) == 0
    assert found.error == pytest.approx(math.sqrt(sum(r * r for r in residual) * 4 / 3) / 80)


def test_the_error_of_equal_denominators_is_that_of_a_mean():
    values = np.random.default_rng(0).normal(size=50)
    found = Tally.of((value, 1) for value in values)
    assert found.error == pytest.approx(values.std(ddof=1) / math.sqrt(50))


def test_the_error_is_that_of_repeated_draws():
    source = np.random.default_rng(1)
    lengths = source.integers(20, 200, (4000, 60))
    counts = source.poisson(0.05 * lengths * source.gamma(2, 0.5, lengths.shape))
    values = [Tally.of(zip(c, n, strict=True)) for c, n in zip(counts, lengths, strict=True)]
    spread = np.std([each.value for each in values])
    assert np.mean([each.error for each in values]) == pytest.approx(spread, rel=0.05)


def test_steps_add_up_to_what_they_are_together():
    pairs = list(zip(TOP, BOTTOM, strict=True))
    assert total([Tally.of(pairs[:1]), Tally.of([]), Tally.of(pairs[1:])]) == Tally.of(pairs)


def test_completions_without_a_denominator_say_nothing():
    assert Tally.of([(0, 0), (1, 2), (1, 2)]) == Tally.of([(1, 2), (1, 2)])
    assert math.isnan(Tally.of([(0, 0)]).value)
    assert Tally.of([(1, 2)]).error == math.inf
