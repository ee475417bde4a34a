"""Paired differences, the sign-flip test, Holm's rule and power, against SciPy, enumeration and simulation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from egrsd_jax.evaluate import comparison
from egrsd_jax.evaluate.comparison import (
    Components,
    compare,
    holm,
    problems_needed,
    samples_needed,
    sign_flip_test,
    variance_components,
)
from egrsd_jax.evaluate.scores import Scores


def made(right, tokens=None, *, identity="set", problems=None) -> Scores:
    right = np.asarray(right)
    return Scores(
        benchmark="math500",
        identity=identity,
        problems=problems or [str(index) for index in range(len(right))],
        correct=right.astype(int).tolist(),
        tokens=(np.full(right.shape, 10) if tokens is None else np.asarray(tokens)).tolist(),
        cut_off=0.0,
        ungradable=0,
        max_new_tokens=100,
    )


def scipys(differences) -> float:
    found = stats.permutation_test(
        (np.asarray(differences, float),),
        lambda x, axis: x.sum(axis=axis),
        permutation_type="samples",
        n_resamples=np.inf,
        vectorized=True,
    )
    return found.pvalue


@given(st.lists(st.integers(-5, 5), min_size=2, max_size=9))
@settings(deadline=None, max_examples=60)
def test_sign_flips_agree_with_all_of_scipys(differences):
    assert sign_flip_test(np.array(differences)) == pytest.approx(scipys(differences))


def test_random_flips_agree_with_all_of_them(monkeypatch):
    differences = np.array([3, -1, 4, 1, -5, 9, 2, 6])
    monkeypatch.setattr(comparison, "EXACT_STATES", 0)
    assert sign_flip_test(differences) == pytest.approx(scipys(differences), abs=0.012)  # 4 standard errors
    assert sign_flip_test(differences) == sign_flip_test(differences)


def test_random_flips_are_never_certain(monkeypatch):
    monkeypatch.setattr(comparison, "EXACT_STATES", 0)
    assert sign_flip_test(np.arange(1, 100)) == 1 / 20_000


def test_differences_of_one_size_are_a_sign_test():
    differences = np.array([4] * 30 + [-4] * 10 + [0] * 1000)
    assert sign_flip_test(differences) == pytest.approx(stats.binomtest(30, 40).pvalue)
    assert sign_flip_test(np.zeros(5, int)) == 1


def test_p_values_are_uniform_where_nothing_differs():
    source = np.random.default_rng(0)
    chance = source.beta(0.5, 0.3, (2000, 60, 1))
    before, after = ((source.random((2000, 60, 4)) < chance).sum(axis=2) for _ in range(2))
    found = np.array([sign_flip_test(row) for row in after - before])
    assert np.mean(found <= 0.05) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 2000)
    assert np.mean(found <= 0.05) >= 0.025  # and the test is not needlessly timid


def test_holm_against_its_definition():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5]) == [0.5]
    assert holm([]) == []
    assert holm([0.6, 0.6]) == [1.0, 1.0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
@settings(deadline=None, max_examples=60)
def test_holm_lies_between_no_correction_and_bonferronis_and_rejects_step_by_step(p_values):
    adjusted = holm(p_values)
    assert all(p <= found <= min(1, len(p_values) * p) + 1e-12 for p, found in zip(p_values, adjusted, strict=True))
    rejected = set()
    for rank, index in enumerate(np.argsort(p_values)):
        if p_values[index] * (len(p_values) - rank) > 0.05:
            break
        rejected.add(index)
    assert {index for index, found in enumerate(adjusted) if found <= 0.05} == rejected


def test_a_comparison_is_paired():
    before = made([[0, 1], [1, 1], [0, 0], [0, 1]], [[40, 40], [80, 80], [20, 20], [60, 60]])
    after = made([[1, 1], [1, 1], [0, 1], [0, 1]], [[30, 30], [70, 70], [10, 10], [50, 50]])
    found = compare(before, after)
    assert found.accuracy.value == pytest.approx(0.25)
    assert found.accuracy.error == pytest.approx(stats.sem([0.5, 0, 0.5, 0]))
    assert found.accuracy.p == pytest.approx(scipys([1, 0, 1, 0]))
    assert (found.length.value, found.length.error, found.length.low, found.length.high) == (-10, 0, -10, -10)
    assert found.length.p == pytest.approx(2 / 2**4)
    assert found.visible == pytest.approx(2.8016 * found.accuracy.error, rel=1e-4)


def test_different_numbers_of_samples_can_be_paired():
    found = compare(made([[1, 0], [1, 1]]), made([[1, 1, 1], [1, 0, 1]]))
    assert found.accuracy.value == pytest.approx((0.5 - 1 / 3) / 2)
    assert found.accuracy.p == 1
    assert compare(made([[1], [0], [1]]), made([[1, 1], [0, 1], [0, 0]])).components is None


def test_only_the_common_problems_are_paired():
    found = compare(made([[0, 0], [1, 1], [1, 1]]), made([[1, 1], [1, 1]], problems=["2", "0"]))
    assert found.problems == 2
    assert found.accuracy.value == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("other", "message"),
    [({"identity": "another"}, "read from two different sets"), ({"problems": ["a", "b"]}, "0 problems that both")],
)
def test_other_problems_are_not_paired(other, message):
    with pytest.raises(ValueError, match=message):
        compare(made([[1, 0], [1, 1]]), made([[1, 0], [1, 1]], **other))


def test_variance_components_are_those_that_were_put_in():
    source = np.random.default_rng(0)
    base = source.uniform(0.3, 0.6, (40_000, 1))
    gain = source.uniform(-0.2, 0.3, (40_000, 1))
    before, after = (source.random((40_000, 3)) < chance for chance in (base, base + gain))
    found = variance_components(before, after)
    within = np.mean(base * (1 - base)) + np.mean((base + gain) * (1 - base - gain))
    assert found.between == pytest.approx(0.5**2 / 12, rel=0.1)
    assert found.within == pytest.approx(within, rel=0.02)
    assert variance_components(np.eye(2), 1 - np.eye(2)).between == 0  # an estimate under 0


def test_as_many_problems_as_are_asked_for_show_the_difference_in_four_of_five():
    """Normal problem means: the test is then Student's, whose power the formula approximates."""
    components, samples, difference = Components(between=0.02, within=0.4), 4, 0.08
    problems = problems_needed(components, difference, samples)
    source = np.random.default_rng(0)
    spread = np.sqrt(components.between + components.within / samples)
    means = difference + spread * source.standard_normal((4000, problems))
    power = np.mean(stats.ttest_1samp(means, 0, axis=1).pvalue < 0.05)
    assert power == pytest.approx(0.8, abs=0.025)  # 4,000 draws know it to 0.6 points, the normal quantile to 1
    assert samples_needed(components, difference, problems) == samples
    assert samples_needed(components, difference, 10) is None
