"""Alarms and the choice of checkpoints, from held-out evaluations."""

import numpy as np
import pytest

from egrsd_jax.evaluate.scores import Scores
from egrsd_jax.evaluate.watch import alarms, best_steps, complaints
from egrsd_jax.probes.settings import ProbeSettings
from tests.evaluate.examples import held_out


def evaluation(correct: int, tokens: float, problems: int = 100) -> Scores:
    """The first `correct` problems are correct, with this mean length."""
    return held_out(np.arange(problems)[:, None] < correct, tokens)


@pytest.mark.parametrize(
    ("correct", "tokens", "words"),
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
def test_alarms(correct, tokens, words):
    history = [(0, evaluation(50, 100)), (10, evaluation(90, 500)), (20, evaluation(correct, tokens))]
    lines = [alarm.text for alarm in alarms(history, ProbeSettings())]
    assert [word in line for word, line in zip(words, lines, strict=True)] == [True] * len(words)


def test_the_start_alarms_nobody():
    assert alarms([(0, evaluation(50, 100))], ProbeSettings()) == []
    with pytest.raises(ValueError, match="no evaluation"):
        alarms([], ProbeSettings())


def test_the_best_steps_are_correct_most_often_then_short_then_early():
    history = [
        (0, evaluation(50, 90)),
        (20, evaluation(70, 60)),
        (40, evaluation(70, 50)),
        (60, evaluation(70, 50)),
        (80, evaluation(60, 10)),
    ]
    assert best_steps(history, 2) == [40, 60]
    assert best_steps(history, 9) == [40, 60, 20, 80, 0]
    with pytest.raises(ValueError, match="count is 0"):
        best_steps(history, 0)


def test_half_without_an_answer_is_an_alarm_and_many_that_cannot_be_graded_are_one():
    assert complaints(100, {"no box": 40, "cut off": 9}, 5) == []
    assert complaints(100, {}, 0) == []
    [line] = complaints(100, {"no box": 40, "cut off": 10}, 5)
    assert line.startswith("50.0% of the completions have no answer (40 no box, 10 cut off)")
    [line] = complaints(100, {"no box": 49}, 6)
    assert line.startswith("6.0% of the completions have an answer that could not be graded, more than 5%")
    unanswered = held_out(np.zeros((4, 2)), missing={"unfinished thought": 8})
    [alarm] = alarms([(0, unanswered)], ProbeSettings())
    assert alarm.probe == "held_out_answers"
    assert "held-out problems at step 0: 100.0% of the completions have no answer (8 unfinished thought)" in alarm.text
