"""What a preflight's completions say: correct ones, the gap to those with the privilege, the cap, and their answers.

A function is a check, in the order in which they are shown.
"""

from egrsd_jax.evaluate.intervals import TAIL, Estimate, proportion
from egrsd_jax.evaluate.watch import MANY_UNGRADABLE, MOSTLY_UNANSWERED
from egrsd_jax.objective.methods import METHODS
from egrsd_jax.objective.settings import privilege
from egrsd_jax.preflight.checks.line import Judgement, Line
from egrsd_jax.preflight.measure import Measured
from egrsd_jax.verify.extract import Missing

# Limits. Where training has one of its own, it is that one; the others are round numbers (docs/preflight.md).
SOLVED = 0.9  # accuracy that the interval is above: little is left to gain
LITTLE_GAIN = 0.02  # gap of accuracy that the interval is below: the privilege teaches nothing
FEW_CUT_OFF, MOSTLY_CUT_OFF = 0.1, 0.5  # training warns above the second
FEW_MIXED, FEW_UNANSWERED = 0.1, 0.1
MOSTLY_UNGRADABLE = 0.25


def accuracy(measured: Measured) -> Line:
    """The share of completions that are correct."""
    estimate = proportion(measured.plain.correct_NK)
    judgement, reason = _judged_accuracy(measured, estimate)
    numbers = _numbers(estimate) | {"problems": len(measured.plain.problems), "samples": measured.plain.samples}
    return Line("accuracy", "accuracy, student", _interval(estimate), judgement, reason, numbers)


def _judged_accuracy(measured: Measured, estimate: Estimate) -> tuple[Judgement, str]:
    if estimate.value == 0:
        if _uses_reward(measured):
            return "stop", "no completion is correct, so that none earns a reward: easier problems or a better model"
        return "look", "no completion is correct; the method ignores rewards, and copies the teacher nonetheless"
    if estimate.low >= SOLVED:
        return "stop", f"over {100 * SOLVED:.0f}% of the completions are correct: nothing is left to learn here"
    if estimate.high < 0.05:
        return "look", "few completions earn a reward; expect many steps, or take easier problems"
    return "go", "some completions are correct and some are not"


def gap(measured: Measured) -> Line | None:
    """How much more the model gets right with the privilege, paired over problems."""
    if measured.gap is None or measured.privileged is None:
        return None
    gap, privileged = measured.gap, proportion(measured.privileged.correct_NK)
    low, high = _reach(measured) if gap.error == 0 else (gap.low, gap.high)
    judgement, reason = _judged_gap(measured, low, high)
    value = f"{_interval(privileged)}; {100 * gap.value:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})"
    numbers = {
        **{f"privileged_{name}": number for name, number in _numbers(privileged).items()},
        "privileged_cut_off": measured.privileged.cut_off,
        "gap": gap.value,
        "gap_low": low,
        "gap_high": high,
        "gap_p": gap.p,
    }
    return Line("gap", "accuracy with the privilege; gap, paired", value, judgement, reason, numbers)


def _reach(measured: Measured) -> tuple[float, float]:
    """The interval of a gap where no problem differs from another: the largest share of problems that may and none of
    which was among these, at 2.5%."""
    assert measured.gap is not None
    reach = 1 - TAIL ** (1 / len(measured.plain.problems))
    return measured.gap.value - reach, measured.gap.value + reach


def _judged_gap(measured: Measured, low: float, high: float) -> tuple[Judgement, str]:
    assert measured.privileged is not None
    shown, cut_off = privilege(measured.config.method), measured.privileged.cut_off
    if shown == "none":
        return "look", "method.privilege none shows the teacher nothing: a control, from which no gain is expected"
    never = measured.plain.accuracy == measured.privileged.accuracy == 0
    if cut_off > MOSTLY_CUT_OFF and low <= 0:
        return "look", (
            f"{100 * cut_off:.0f}% of the completions with the privilege reached the cap, so that this is about the "
            "cap: --privileged_cap gives them more tokens, --prompt.teacher_thinking false fewer to write"
        )
    if never:
        return (
            "stop",
            "not even with the privilege is a completion correct: this model cannot use what the teacher sees",
        )
    if high < 0 or high < LITTLE_GAIN:
        return "stop", "with the privilege the model is no better: its teacher has nothing to teach it"
    if low > 0:
        return "go", "the privilege helps this model; how much it helps predicts how much training does"
    return "look", "no clear gain on so few problems: raise --problems until the interval is on one side of 0"


def groups(measured: Measured) -> Line | None:
    """Problems that some completions solve and some do not, where advantages are of a group."""
    config = measured.config
    if not (config.reward.advantage.startswith("group") or METHODS[config.method.name].mixed_groups_only):
        return None
    correct_N = measured.plain.correct_NK.mean(axis=1)
    mixed = float(((correct_N > 0) & (correct_N < 1)).mean())
    value = f"{100 * mixed:.0f}% of the problems, by {measured.plain.samples} completions"
    if mixed == 0:
        reason = "every problem is solved by all of its completions or by none: every advantage is 0"
        return Line("mixed_groups", "problems that some completions solve", value, "stop", reason, {"share": mixed})
    judgement: Judgement = "go" if mixed >= FEW_MIXED else "look"
    reason = "these have an advantage other than 0" if judgement == "go" else "all other problems have advantage 0"
    return Line("mixed_groups", "problems that some completions solve", value, judgement, reason, {"share": mixed})


def cut_off(measured: Measured) -> Line:
    """Completions that reached the cap."""
    share, cap = measured.plain.cut_off, measured.config.rollout.max_new_tokens
    value = f"{100 * share:.1f}% at {cap:,} tokens; mean length {measured.plain.mean_length:,.0f}"
    numbers = {"share": share, "max_new_tokens": cap, "mean_length": measured.plain.mean_length}
    if share <= FEW_CUT_OFF:
        return Line("cut_off", "cut off", value, "go", "most completions end before the cap", numbers)
    reason = "these earn nothing, however good they are: raise rollout.max_new_tokens, or let the student think less"
    return Line("cut_off", "cut off", value, "stop" if share > MOSTLY_CUT_OFF else "look", reason, numbers)


def answers(measured: Measured) -> Line:
    """Completions that ended without an answer."""
    missing = measured.plain.missing or {}
    reasons = {why: number for why, number in missing.items() if why != Missing.CUT_OFF}
    ended = measured.plain.correct_NK.size - missing.get(Missing.CUT_OFF, 0)
    share = sum(reasons.values()) / max(ended, 1)
    shown = ", ".join(f"{number} {why}" for why, number in reasons.items())
    value = f"{100 * share:.1f}% of the {ended} that ended" + (f" ({shown})" if shown else "")
    numbers = {"share": share, "missing": dict(missing)}
    if share <= FEW_UNANSWERED:
        return Line("no_answer", "without an answer", value, "go", "completions end in an answer", numbers)
    reason = "rewards are about the form: prompt.student has to ask for what prompt.answer_format reads"
    return Line(
        "no_answer", "without an answer", value, "stop" if share > MOSTLY_UNANSWERED else "look", reason, numbers
    )


def ungradable(measured: Measured) -> Line:
    """Answers that the grader does not read."""
    share = measured.plain.ungradable_share
    value, numbers = f"{100 * share:.1f}%", {"share": share}
    if share <= MANY_UNGRADABLE:
        return Line("ungradable", "answers that cannot be graded", value, "go", "the grader reads the answers", numbers)
    reason = "these count as wrong, and correct ones may be among them: see data.answer and prompt.answer_format"
    judgement: Judgement = "stop" if share > MOSTLY_UNGRADABLE else "look"
    return Line("ungradable", "answers that cannot be graded", value, judgement, reason, numbers)


def _uses_reward(measured: Measured) -> bool:
    """Whether a wrong and a correct completion make different updates."""
    settings, method = measured.config.method, METHODS[measured.config.method.name]
    return method.writer == "student" and (
        not method.teacher
        or method.token_weight is not None
        or method.advantage != "running"  # next to the teacher's term, as in sdar
        or method.shortest_correct_only
        or settings.pace_right > 0
    )


def _interval(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.1f}% ({100 * estimate.low:.1f} to {100 * estimate.high:.1f})"


def _numbers(estimate: Estimate) -> dict[str, float]:
    return {"value": estimate.value, "error": estimate.error, "low": estimate.low, "high": estimate.high}
