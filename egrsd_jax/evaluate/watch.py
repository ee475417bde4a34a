"""Alarms from the held-out evaluations of a run while it trains, and which checkpoints are worth keeping. Pure."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from egrsd_jax.evaluate.diversity import diversity
from egrsd_jax.evaluate.scores import Scores, paired_difference
from egrsd_jax.probes.settings import ProbeSettings

History = Sequence[tuple[int, Scores]]  # steps with their evaluations, the start first


MOSTLY_UNANSWERED = 0.5  # share of completions without an answer from which on there is an alarm
MANY_UNGRADABLE = 0.05  # share of completions whose answer cannot be graded above which there is a warning


class HeldOutAlarm(NamedTuple):
    """The metric that is wrong, and a line that says how."""

    probe: str
    text: str


def alarms(history: History, settings: ProbeSettings) -> list[HeldOutAlarm]:
    """What is wrong with the newest evaluation compared with the first: nothing, or one line per metric.

    Accuracy that is lower by more than `clearly` standard errors of the paired difference; a mean length outside
    `length_fall` to `length_rise` of the first one's where accuracy is not higher by as much; pass@K that is lower, by
    more than `pass_fall`, where avg@K is not; and what `complaints` has of the newest alone. Raises ValueError where
    there is no evaluation.
    """
    if not history:
        raise ValueError("there is no evaluation to judge")
    (start, first), (step, newest) = history[0], history[-1]
    change = paired_difference(first, newest)
    margin = settings.clearly * change["accuracy_error"]
    wrong = []
    if change["accuracy"] < -margin:
        wrong.append(
            HeldOutAlarm(
                "held_out_accuracy",
                f"accuracy at step {step} is {100 * newest.accuracy:.1f}%, {-100 * change['accuracy']:.1f} ± "
                f"{100 * change['accuracy_error']:.1f} points below that of step {start}",
            )
        )
    share = newest.mean_length / first.mean_length
    short = settings.length_fall is not None and share < settings.length_fall
    long = settings.length_rise is not None and share > settings.length_rise
    if (short or long) and change["accuracy"] <= margin:
        wrong.append(
            HeldOutAlarm(
                "held_out_length",
                f"completions at step {step} have {newest.mean_length:.0f} tokens, {100 * share:.0f}% of the "
                f"{first.mean_length:.0f} at step {start}, without a clear gain in accuracy "
                f"({100 * change['accuracy']:+.1f} ± {100 * change['accuracy_error']:.1f} points)",
            )
        )
    return wrong + _lost_diversity(history, settings) + _unanswered(step, newest)


def complaints(samples: int, missing: dict[str, int], ungradable: int) -> list[str]:
    """What `samples` completions say against a comparison of accuracies: that half of them or more have no answer
    (`missing`, by why), or that many answers could not be graded. Nothing where all is well."""
    lines = []
    if sum(missing.values()) >= MOSTLY_UNANSWERED * samples:
        reasons = ", ".join(f"{count:,} {why}" for why, count in missing.items())
        lines.append(
            f"{100 * sum(missing.values()) / samples:.1f}% of the completions have no answer ({reasons}), so that "
            "accuracy is about the form more than about the mathematics: see the prompt, the cap on new tokens and the "
            "thinking mode"
        )
    if ungradable > MANY_UNGRADABLE * samples:
        lines.append(
            f"{100 * ungradable / samples:.1f}% of the completions have an answer that could not be graded, more than "
            f"{100 * MANY_UNGRADABLE:g}%; they count as wrong, and each one's reason is kept"
        )
    return lines


def best_steps(history: History, count: int) -> list[int]:
    """The `count` best steps, best first: by accuracy, of equal ones the shorter, of these the earlier.

    Raises ValueError for a count under 1.
    """
    if count < 1:
        raise ValueError(f"count is {count}; it must be at least 1")
    ranked = sorted(history, key=lambda entry: (-entry[1].accuracy, entry[1].mean_length, entry[0]))
    return [step for step, _ in ranked[:count]]


def _unanswered(step: int, newest: Scores) -> list[HeldOutAlarm]:
    lines = complaints(int(np.size(newest.correct)), newest.missing or {}, newest.ungradable)
    return [HeldOutAlarm("held_out_answers", f"held-out problems at step {step}: {line}") for line in lines]


def _lost_diversity(history: History, settings: ProbeSettings) -> list[HeldOutAlarm]:
    (start, first), (step, newest) = history[0], history[-1]
    change = diversity(first, newest)
    if change is None or settings.pass_fall is None or not change.lost(settings.pass_fall, settings.clearly):
        return []
    passed, average = change.passed_change, change.average_change
    return [
        HeldOutAlarm(
            "held_out_pass",
            f"pass@{change.samples} at step {step} is {100 * change.passed:.1f}%, {-100 * passed.value:.1f} points "
            f"({-100 * passed.high:.1f} to {-100 * passed.low:.1f}) below that of step {start}, and "
            f"avg@{change.samples} {100 * average.value:+.1f} ± {100 * average.error:.1f}: fewer problems are solved, "
            "each more surely",
        )
    ]
