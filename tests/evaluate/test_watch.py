"""Alarms and the choice of checkpoints, from held-out evaluations."""

import numpy as np
import pytest

from egrsd_jax.evaluate.held_out import Evaluation
from egrsd_jax.evaluate.watch import alarms, best_steps
from egrsd_jax.probes.settings import ProbeSettings


def found(right: int, tokens: float, problems: int = 100) -> Evaluation:
    """The first `right` problems are right, with this mean length."""
    correct = [[int(index < right)] for index in range(problems)]
    return Evaluation(correct, np.full((problems, 1), tokens).tolist(), cut_off=0.0, ungradable=0)


@pytest.mark.parametrize(
    ("right", "tokens", "words"),
    [
        (50, 100, []),
        (47, 100, []),  # three points, and two standard errors are 3.4
        (45, 100, ["accuracy at step 20 is 45.0%, 5.0 ± 2.2 points below that of step 0"]),
        (50, 69, ["69 tokens, 69% of the 100"]),
        (50, 151, ["151 tokens, 151% of the 100"]),
        (50, 70, []),
        (50, 150, []),
        (60, 40, []),  # a clear gain pays for it
        (51, 40, ["without a clear gain in accuracy (+1.0 ± 1.0 points)"]),
        (30, 300, ["accuracy at step 20", "300% of the 100"]),
    ],
)
def test_alarms(right, tokens, words):
    history = [(0, found(50, 100)), (10, found(90, 500)), (20, found(right, tokens))]
    lines = [alarm.text for alarm in alarms(history, ProbeSettings())]
    assert [word in line for word, line in zip(words, lines, strict=True)] == [True] * len(words)


def test_the_start_alarms_nobody():
    assert alarms([(0, found(50, 100))], ProbeSettings()) == []
    with pytest.raises(ValueError, match="no evaluation"):
        alarms([], ProbeSettings())


def test_the_best_steps_are_right_most_often_then_short_then_early():
    history = [(0, found(50, 90)), (20, found(70, 60)), (40, found(70, 50)), (60, found(70, 50)), (80, found(60, 10))]
    assert best_steps(history, 2) == [40, 60]
    assert best_steps(history, 9) == [40, 60, 20, 80, 0]
    with pytest.raises(ValueError, match="count is 0"):
        best_steps(history, 0)
