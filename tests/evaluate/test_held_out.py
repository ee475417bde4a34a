"""Figures and standard errors of held-out evaluations, against plain formulas and simulation."""

import numpy as np
import pytest

from egrsd_jax.evaluate.held_out import Evaluation, paired_difference, standard_error


def made(correct, length) -> Evaluation:
    return Evaluation(
        correct=np.asarray(correct).tolist(), length=np.asarray(length).tolist(), cut_off=0.25, ungradable=0
    )


def test_figures():
    found = made([[1, 0], [1, 1], [0, 0]], [[10, 20], [30, 30], [5, 25]])
    assert found.accuracy == pytest.approx(0.5)
    assert found.mean_length == pytest.approx(20)
    assert found.accuracy_error == pytest.approx(np.std([0.5, 1, 0], ddof=1) / np.sqrt(3))
    assert found.length_error == pytest.approx(np.std([15, 30, 15], ddof=1) / np.sqrt(3))
    assert Evaluation.from_json(found.to_json()) == found


def test_standard_error_covers_what_it_should():
    """Over many draws of problems and samples the spread of the accuracy is what one evaluation says it is."""
    draw = np.random.default_rng(0)
    accuracies, errors = [], []
    for _ in range(600):
        skill = draw.beta(2, 1, 200)[:, None]
        found = made((draw.random((200, 2)) < skill).astype(int), np.ones((200, 2)))
        accuracies.append(found.accuracy)
        errors.append(found.accuracy_error)
    assert np.mean(errors) == pytest.approx(np.std(accuracies), rel=0.1)  # 600 draws know a spread to 3%
    assert standard_error(np.array([1.0])) == float("inf")


def test_differences_are_paired():
    before = made([[0], [1], [0], [1]], [[40], [80], [20], [60]])
    after = made([[1], [1], [1], [1]], [[30], [70], [10], [50]])
    change = paired_difference(before, after)
    assert change["accuracy"] == pytest.approx(0.5)
    assert change["length"] == pytest.approx(-10)
    assert change["length_error"] == pytest.approx(0)  # every problem lost exactly 10 tokens
    assert change["accuracy_error"] == pytest.approx(np.std([1, 0, 1, 0], ddof=1) / 2)
