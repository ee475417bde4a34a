"""Standard errors and intervals: closed forms, SciPy, and coverage by simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from egrsd_jax.evaluate.intervals import (
    error_of_sampling,
    error_over_problems,
    half_width,
    percentile_interval,
    proportion,
    replicates,
    standard_error,
    student_quantile,
)


def drawn(problems: int, samples: int, a: float, b: float, seed: int) -> np.ndarray:
    """Right and wrong samples [N, K] of problems whose chances are Beta(a, b)."""
    source = np.random.default_rng(seed)
    return source.random((problems, samples)) < source.beta(a, b, (problems, 1))


def test_errors_are_their_closed_forms():
    values = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    assert error_over_problems(values) == pytest.approx(stats.sem([0.5, 1, 0]))
    assert error_of_sampling(values) == pytest.approx(math.sqrt((0.5 + 0 + 0) / 3 / 6))
    assert error_of_sampling(values[:, :1]) is None


@pytest.mark.parametrize("count", [2, 3, 5, 40])
def test_the_interval_over_seeds_is_scipys_student_interval(count):
    values = np.random.default_rng(count).normal(90, 2, count)
    low, high = stats.t.interval(0.95, count - 1, loc=values.mean(), scale=stats.sem(values))
    assert (values.mean() - half_width(values), values.mean() + half_width(values)) == pytest.approx((low, high))


def test_five_seeds_have_students_quantile():
    assert student_quantile(5) == pytest.approx(2.776, abs=5e-4)
    values = [1.0, 2.0, 3.0, 4.0, 5.0]
    assert half_width(values) == pytest.approx(2.77645 * standard_error(values), rel=1e-5)
    assert standard_error([1.0]) == half_width([1.0]) == math.inf


def test_five_seeds_are_covered():
    """Where 1.96 would cover 88%. 4,000 draws know a coverage of 95% to 0.3 points."""
    draws = np.random.default_rng(0).standard_normal((4000, 5))
    assert np.mean([abs(draw.mean()) <= half_width(draw) for draw in draws]) == pytest.approx(0.95, abs=0.012)


def test_sampling_error_is_the_spread_over_new_samples_of_the_same_problems():
    source = np.random.default_rng(0)
    chance = source.beta(0.6, 0.2, (30, 1))
    again = [source.random((30, 4)) < chance for _ in range(2000)]
    spread = np.std([sample.mean() for sample in again])
    errors = [error_of_sampling(sample) or 0.0 for sample in again]
    assert math.sqrt(np.mean(np.square(errors))) == pytest.approx(spread, rel=0.05)  # 2,000 draws know it to 1.6%


def test_one_sample_a_problem_gives_scipys_wilson_interval():
    """With K = 1 the effective number of samples is N, but for N - 1 in the variance and Student's quantile."""
    right = np.arange(1500)[:, None] < 1200
    ours = proportion(right)
    theirs = stats.binomtest(1200, 1500).proportion_ci(method="wilson")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=5e-5)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_all_right_or_all_wrong_has_the_exact_open_end(value):
    found = proportion(np.full((30, 1), value))
    exact = stats.binomtest(int(30 * value), 30).proportion_ci(method="exact")
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high))
    assert found.error == 0


def test_problems_with_equal_means_count_each_sample():
    found = proportion(np.array([[1, 0], [0, 1], [1, 0]]))
    assert found.error == 0
    assert 0 < found.low < 0.2 < 0.8 < found.high < 1


@pytest.mark.parametrize(
    ("problems", "samples", "a", "b"),
    [(30, 4, 0.6, 0.2), (30, 4, 0.5, 0.3), (30, 4, 0.4, 0.5), (272, 4, 0.25, 0.5), (500, 4, 0.9, 0.13), (512, 2, 2, 1)],
)
def test_accuracy_is_covered(problems, samples, a, b):
    """2,000 draws know a coverage of 95% to 0.5 points."""
    truth = a / (a + b)
    found = [proportion(drawn(problems, samples, a, b, seed)) for seed in range(2000)]
    assert 0.93 <= np.mean([each.low <= truth <= each.high for each in found]) <= 0.97


@pytest.mark.slow
def test_differences_and_lengths_are_covered():
    """The same replicates give both: channel 0 a paired difference of accuracy, channel 1 one of log-normal lengths."""
    source = np.random.default_rng(1)
    covered, true_length = np.zeros(2), math.exp(0.5 * 0.3**2) * 500 * math.exp(0.5 * 0.4**2)
    for seed in range(1000):
        chance = source.beta(0.5, 0.3, (30, 1))
        before = source.random((30, 4)) < chance
        after = source.random((30, 4)) < chance  # no difference
        scale = 500 * np.exp(0.3 * source.standard_normal((30, 1)))
        spread = np.exp(0.4 * source.standard_normal((30, 4)))
        arms = [
            (-1.0, np.stack([before, np.zeros((30, 4))], axis=2)),
            (1.0, np.stack([after, scale * spread], axis=2)),
        ]
        drawn_RC = replicates(arms, seed=seed, draws=400)
        for channel, truth in enumerate((0.0, true_length)):
            low, high = percentile_interval(drawn_RC[:, channel])
            covered[channel] += low <= truth <= high
    assert np.all(covered / 1000 >= 0.93)  # known to 0.7 points
    assert np.all(covered / 1000 <= 0.97)


def test_replicates_have_the_variance_of_problem_means():
    """And so do not count the spread within problems twice, however much of it there is."""
    right = drawn(100, 2, 50, 50, 3)  # nearly all of the spread is within
    drawn_RC = replicates([(1.0, right[:, :, None].astype(float))], draws=20_000)
    student = stats.t.ppf(0.975, 99) / stats.norm.ppf(0.975)
    assert drawn_RC.std() == pytest.approx(student * error_over_problems(right), rel=0.03)
    assert drawn_RC.mean() == pytest.approx(right.mean(), abs=0.002)


def test_replicates_of_a_constant_are_it():
    assert np.array_equal(replicates([(1.0, np.full((4, 2, 1), 7.0))], draws=5), np.full((5, 1), 7.0))
