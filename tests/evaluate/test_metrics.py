"""Metrics of a benchmark and of several, against plain formulas and enumeration."""

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egrsd_jax.evaluate.metrics import _efficiency, at_budget, budgets, lengths, macro, metrics, pass_at
from egrsd_jax.evaluate.scores import Scores, majority_credit


def made(right, tokens, *, name="math500", cap=100, majority=None) -> Scores:
    right, tokens = np.asarray(right), np.asarray(tokens)
    return Scores(
        benchmark=name,
        identity="set",
        problems=[str(index) for index in range(len(right))],
        correct=right.astype(int).tolist(),
        tokens=tokens.tolist(),
        cut_off=0.25,
        ungradable=1,
        max_new_tokens=cap,
        majority=majority,
    )


@pytest.mark.parametrize("samples", [1, 4, 7])
def test_pass_at_is_the_share_of_draws_with_a_right_sample(samples):
    right = np.array([[index < count for index in range(samples)] for count in range(samples + 1)])
    for k in range(1, samples + 1):
        enumerated = [np.mean([any(row[list(draw)]) for draw in combinations(range(samples), k)]) for row in right]
        np.testing.assert_allclose(pass_at(right, k), enumerated, rtol=1e-12)


def test_pass_at_neither_overflows_nor_takes_what_is_not_there():
    right = np.zeros((1, 5000), bool)
    right[0, 0] = True
    assert pass_at(right, 2500)[0] == pytest.approx(0.5)
    with pytest.raises(ValueError, match="pass@5001 needs between 1 and 5000 samples"):
        pass_at(right, 5001)


@given(st.lists(st.sampled_from(["1", "2", "3", None]), min_size=1, max_size=6))
@settings(deadline=None, max_examples=60)
def test_majority_is_the_expectation_over_tie_breaks(answers):
    right = [answer == "1" for answer in answers]
    texts = [answer for answer in answers if answer is not None]
    most = max((texts.count(text) for text in texts), default=0)
    tied = {text for text in texts if texts.count(text) == most}
    assert majority_credit(answers, right) == pytest.approx(("1" in tied) / max(len(tied), 1))


def test_budgets_double_up_to_the_cap():
    assert budgets(96) == [16, 32, 64, 96]
    assert budgets(16) == [16]
    assert budgets(10) == [10]
    assert budgets(32_768) == [1024, 2048, 4096, 8192, 16_384, 32_768]
    assert budgets(5000) == [1024, 2048, 4096, 5000]


def test_at_a_budget_an_answer_counts_that_ended_in_time():
    right, tokens = np.array([[1, 1], [0, 1]], bool), np.array([[10, 30], [5, 20]])
    found = at_budget(right, tokens, 20)
    assert (found.accuracy, found.mean_tokens) == (0.5, np.mean([10, 20, 5, 20]))
    assert at_budget(right, tokens, 30).accuracy == 0.75
    assert at_budget(right, tokens, 4).accuracy == 0


def test_figures_of_a_benchmark():
    found = metrics(made([[1, 0], [1, 1], [0, 0]], [[10, 20], [30, 30], [5, 25]], majority=[0.5, 1.0, 0.0]))
    assert found.accuracy.value == 0.5
    assert found.pass_at == {"1": pytest.approx(0.5), "2": pytest.approx(2 / 3)}
    assert found.majority == 0.5
    assert found.length.value == 20
    assert found.length.low < 20 < found.length.high
    assert found.efficiency.value == pytest.approx(50 / 0.020)
    assert (found.lengths["correct"].mean, found.lengths["wrong"].mean) == (
        pytest.approx(70 / 3),
        pytest.approx(50 / 3),
    )
    assert (found.lengths["all"].samples, found.lengths["all"].median) == (6, 22.5)
    assert found.budgets[-1].accuracy == found.accuracy.value
    assert lengths(np.array([])).mean is None
    assert lengths(np.arange(1, 101)).p95 == 96  # 5% are no shorter


def test_errors_of_efficiency_are_those_of_simulated_problems():
    source = np.random.default_rng(0)
    ratios, errors = [], []
    for _ in range(400):
        chance = source.beta(2, 1, (80, 1))
        tokens = (200 * (2 - chance) * source.lognormal(0, 0.3, (80, 2))).astype(int)  # longer where it is hard
        right = source.random((80, 2)) < chance
        found = _efficiency([made(right, tokens)], np.ones((1, 2)))  # its interval, from draws, is not used
        ratios.append(found.value)
        errors.append(found.error)
    assert np.mean(errors) == pytest.approx(np.std(ratios), rel=0.12)  # 400 draws know a spread to 3.5%


def test_the_macro_average_weighs_benchmarks_alike():
    easy = made(np.ones((40, 2)), np.full((40, 2), 100))
    hard = made([[1, 0], [0, 0]], [[500, 700], [900, 900]])
    found = macro([easy, hard])
    assert found.accuracy.value == pytest.approx((1 + 0.25) / 2)
    assert found.length.value == pytest.approx((100 + 750) / 2)
    assert found.efficiency.value == pytest.approx(100 * 0.625 / 0.425)
    assert found.accuracy.error == pytest.approx(metrics(hard).accuracy.error / 2)
    assert macro([hard]).accuracy == metrics(hard).accuracy


def test_one_sample_a_problem_has_no_sampling_error():
    found = metrics(made([[1], [0], [1]], [[5], [6], [7]]))
    assert found.accuracy.sampling_error is None
    assert found.efficiency.sampling_error is None
    assert found.majority is None


def test_scores_are_read_as_they_were_written():
    scores = made([[1, 0], [0, 0]], [[1, 2], [3, 4]], majority=[1.0, 0.0])
    assert Scores.from_json(scores.to_json()) == scores
    assert scores.only(["1", "0"]).tokens == [[3, 4], [1, 2]]
    with pytest.raises(ValueError, match="give at least 2"):
        made([[1]], [[1]])


def test_figures_do_not_depend_on_the_order_of_samples():
    """Nor does anything but intervals, which are drawn, on that of problems."""
    right, tokens = np.array(list(product([0, 1], repeat=3))), np.arange(24).reshape(8, 3)
    found, turned = metrics(made(right, tokens)), metrics(made(right[:, ::-1], tokens[:, ::-1]))
    assert found.accuracy == turned.accuracy
    assert (found.lengths, found.budgets, found.pass_at) == (turned.lengths, turned.budgets, turned.pass_at)
