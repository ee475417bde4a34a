"""From a preflight's numbers to its lines: each a check with what was measured, go, look or stop, and the reason. Pure.

`stop`: the run as it is configured cannot learn from this, or would learn something else. `look`: it can, and a number
is worth a thought before it is paid for.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from egrsd_jax.evaluate.intervals import TAIL, Estimate, proportion
from egrsd_jax.evaluate.watch import MANY_UNGRADABLE, MOSTLY_UNANSWERED
from egrsd_jax.objective.methods import METHODS
from egrsd_jax.objective.settings import privilege
from egrsd_jax.preflight.measure import Measured
from egrsd_jax.preflight.templates import Turns
from egrsd_jax.train.sampler_gap import LOGP_GAP_ERROR
from egrsd_jax.verify.extract import Missing

Judgement = Literal["go", "look", "stop"]
ORDER: tuple[Judgement, ...] = ("go", "look", "stop")

# Limits. Where training has one of its own, it is that one; the others are round numbers (docs/preflight.md).
SOLVED = 0.9  # accuracy that the interval is above: little is left to gain
LITTLE_GAIN = 0.02  # gap of accuracy that the interval is below: the privilege teaches nothing
FEW_CUT_OFF, MOSTLY_CUT_OFF = 0.1, 0.5  # training warns above the second
FEW_UNANSWERED = 0.1
MOSTLY_UNGRADABLE = 0.25
SMALL_FLOOR, LARGE_FLOOR = 0.1, 0.5  # noise of delta as a share of |delta|
NO_SIGNAL = 1e-5  # nats: float32 rounds to about this
FIRST_NATS, FIRST_TIMES = 0.5, 3.0  # |delta| of first tokens that is large, and large next to that of all
MOSTLY_CLIPPED = 0.8
MUCH_CLIPPED = 0.01  # of the teacher's probability, at the entries of a clipped divergence
GATE_SHUT, GATE_OPEN = 0.5, 0.999
FEW_PIVOTS = 0.01


@dataclass(frozen=True)
class Line:
    """A check: its name in the JSON, its title, what was measured, the verdict and its reason, and the numbers."""

    name: str
    title: str
    value: str
    judgement: Judgement
    reason: str
    numbers: dict[str, Any] = field(default_factory=dict)


def lines(measured: Measured) -> list[Line]:
    """Every check that the method has a use for, in the order in which they are shown."""
    judged = [check(measured) for check in CHECKS]
    return [line for line in judged if line is not None]


def verdict(judged: Sequence[Line]) -> Judgement:
    """The worst of them."""
    return ORDER[max(ORDER.index(line.judgement) for line in judged)]


def _accuracy(measured: Measured) -> Line:
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


def _gap(measured: Measured) -> Line | None:
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


def _groups(measured: Measured) -> Line | None:
    config = measured.config
    if not (config.reward.advantage.startswith("group") or METHODS[config.method.name].mixed_groups_only):
        return None
    correct_N = measured.plain.correct_NK.mean(axis=1)
    mixed = float(((correct_N > 0) & (correct_N < 1)).mean())
    value = f"{100 * mixed:.0f}% of the problems, by {measured.plain.samples} completions"
    if mixed == 0:
        reason = "every problem is solved by all of its completions or by none: every advantage is 0"
        return Line("mixed_groups", "problems that some completions solve", value, "stop", reason, {"share": mixed})
    judgement: Judgement = "go" if mixed >= FEW_UNANSWERED else "look"
    reason = "these have an advantage other than 0" if judgement == "go" else "all other problems have advantage 0"
    return Line("mixed_groups", "problems that some completions solve", value, judgement, reason, {"share": mixed})


def _cut_off(measured: Measured) -> Line:
    share, cap = measured.plain.cut_off, measured.config.rollout.max_new_tokens
    value = f"{100 * share:.1f}% at {cap:,} tokens; mean length {measured.plain.mean_length:,.0f}"
    numbers = {"share": share, "max_new_tokens": cap, "mean_length": measured.plain.mean_length}
    if share <= FEW_CUT_OFF:
        return Line("cut_off", "cut off", value, "go", "most completions end before the cap", numbers)
    reason = "these earn nothing, however good they are: raise rollout.max_new_tokens, or let the student think less"
    return Line("cut_off", "cut off", value, "stop" if share > MOSTLY_CUT_OFF else "look", reason, numbers)


def _answers(measured: Measured) -> Line:
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


def _ungradable(measured: Measured) -> Line:
    share = measured.plain.ungradable_share
    value, numbers = f"{100 * share:.1f}%", {"share": share}
    if share <= MANY_UNGRADABLE:
        return Line("ungradable", "answers that cannot be graded", value, "go", "the grader reads the answers", numbers)
    reason = "these count as wrong, and correct ones may be among them: see data.answer and prompt.answer_format"
    judgement: Judgement = "stop" if share > MOSTLY_UNGRADABLE else "look"
    return Line("ungradable", "answers that cannot be graded", value, judgement, reason, numbers)


def _end_of_turn(measured: Measured) -> Line:
    return judge_end_of_turn(measured.turns)


def judge_end_of_turn(turns: Turns) -> Line:
    """Whether a completion can end as the chat template ends a turn of the model's."""
    stops = ", ".join(f"{text} {token}" for token, text in turns.stops.items())
    written = "nothing" if turns.end_id is None else f"{turns.end_token} {turns.end_id}"
    value = f"template writes {written}; completions end with {stops}"
    numbers = {
        "template": turns.end_id,
        "eos_token": turns.eos,
        "generation_config": list(turns.generation),
        "stop_ids": list(turns.stops),
    }

    def line(judgement: Judgement, reason: str) -> Line:
        return Line("end_of_turn", "end of turn", value, judgement, reason, numbers)

    if turns.end_id is None:
        return line("look", "the chat template writes nothing after the model's turn: is it this model's?")
    if turns.end_id not in turns.stops:
        return line(
            "stop",
            "the template ends a turn with a token that ends no completion here: it is another model's, or "
            "eos_token (tokenizer_config.json) and eos_token_id (generation_config.json) are",
        )
    others = {"eos_token": turns.eos, "generation_config.json": turns.generation or None}
    apart = [
        name
        for name, ids in others.items()
        if ids is not None and turns.end_id not in ((ids,) if isinstance(ids, int) else ids)
    ]
    if apart:
        return line("look", f"{' and '.join(apart)} have another end than the template; any of them ends a completion")
    return line("go", "template, tokenizer and generation_config.json agree")


def _opening(measured: Measured) -> Line:
    return judge_opening(measured.turns, teaches=measured.privileged is not None)


def judge_opening(turns: Turns, *, teaches: bool) -> Line:
    """Whether a completion follows both prompts at the same place; `teaches` where there is a teacher's prompt."""
    student, teacher = (_shown(text) for text in (turns.student_opening, turns.teacher_opening))
    value = student if student == teacher else f"student {student}, teacher {teacher}"
    value += f"; prompts end in {_joined(turns.student_tail)}"
    if turns.teacher_tail != turns.student_tail and teaches:
        value += f" and {_joined(turns.teacher_tail)}"
    numbers = {"student": turns.student_opening, "teacher": turns.teacher_opening, "thinking": turns.thinking}

    def line(judgement: Judgement, reason: str) -> Line:
        return Line("opening", "opening of the model's turn", value, judgement, reason, numbers)

    if turns.student_opening is None:
        return line(
            "look", "the template does not open the model's turn on request: does the prompt end where it writes?"
        )
    if teaches and turns.student_opening != turns.teacher_opening:
        return line(
            "look",
            "the teacher expects another beginning, such as a thought: its delta at first tokens is about that "
            "(prompt.student_thinking, prompt.teacher_thinking)",
        )
    if turns.thinking is not None:
        return line("look", turns.thinking)
    return line("go", "completions follow both prompts at the same place")


def _first_tokens(measured: Measured) -> Line | None:
    signal = measured.signal
    if signal is None:
        return None
    value = f"{signal.first:+.3f} nats, |δ| {signal.first_size:.3f}; over all tokens {signal.signal:.3f}"
    numbers = {"delta": signal.first, "size": signal.first_size}
    if signal.first_size > FIRST_NATS and signal.first_size > FIRST_TIMES * signal.signal:
        reason = "teacher and student disagree on how a completion begins: the update learns the opening first"
        return Line("first_token", "δ of the first token", value, "look", reason, numbers)
    return Line("first_token", "δ of the first token", value, "go", "the beginning is a token like others", numbers)


def _noise(measured: Measured) -> Line | None:
    signal = measured.signal
    if signal is None:
        return None
    value = (
        f"|δ| {signal.signal:.4f} nats; same prompt twice {signal.twice:.1e}, without privilege "
        f"{signal.unprivileged:.1e}"
    )
    numbers = {name: getattr(signal, name) for name in ("signal", "twice", "unprivileged", "delta")}
    title = "signal δ and its noise"
    if signal.signal <= NO_SIGNAL:
        judgement: Judgement = "look" if privilege(measured.config.method) == "none" else "stop"
        return Line(
            "noise", title, value, judgement, "teacher and student agree on every token: there is no signal", numbers
        )
    share = signal.twice / signal.signal
    if share > SMALL_FLOOR:
        judgement = "stop" if share > LARGE_FLOOR else "look"
        return Line(
            "noise", title, value, judgement, f"{100 * share:.0f}% of δ is rounding: model.dtype float32", numbers
        )
    return Line("noise", title, value, "go", f"rounding is {100 * share:.1g}% of it", numbers)


def _sampler(measured: Measured) -> Line:
    gap, config = measured.sampler_gap, measured.config
    value, numbers = f"{gap:.1e} nats per token", {"mean": gap}
    title = "sampler and trainer apart"
    rollout = config.rollout
    if gap <= rollout.gap_warns:
        return Line("sampler_gap", title, value, "go", "both compute the same log p", numbers)
    in_float32 = {config.model.dtype, rollout.weights_dtype or "float32"} == {"float32"}
    stops = rollout.gap_stops if rollout.gap_stops is not None else LOGP_GAP_ERROR if in_float32 else math.inf
    judgement: Judgement = "stop" if gap > stops else "look"
    return Line("sampler_gap", title, value, judgement, f"over {rollout.gap_warns}: see docs/metrics.md", numbers)


def _clip(measured: Measured) -> Line | None:
    weights = measured.weights
    if weights is None or weights.clipped_low is None or weights.clipped_high is None:
        return None
    both = weights.clipped_low + weights.clipped_high
    value = f"{100 * weights.clipped_low:.1f}% of the tokens low, {100 * weights.clipped_high:.1f}% high"
    numbers = {"low": weights.clipped_low, "high": weights.clipped_high}
    if both > MOSTLY_CLIPPED:
        reason = "nearly all weights are at a limit of the clip: only the sign of δ is left; raise method.epsilon"
        return Line("clip", "clipped weights", value, "look", reason, numbers)
    return Line("clip", "clipped weights", value, "go", "the size of δ counts at the other tokens", numbers)


def _entry_clip(measured: Measured) -> Line | None:
    shares = None if measured.weights is None else measured.weights.entry_clip
    if shares is None:
        return None
    value = (
        f"{100 * shares.mass:.2f}% of the teacher's probability, {100 * shares.entries:.3f}% of the entries; at "
        f"{100 * shares.tokens:.1f}% of the tokens"
    )
    title, numbers = "vocabulary entries at the clip", shares._asdict()
    if shares.mass > MUCH_CLIPPED:
        reason = (
            "the update lowers these, which the teacher would raise: compare with --method.entry_clip 0 "
            "(docs/methods.md, OPSD's clip)"
        )
        return Line("entry_clip", title, value, "look", reason, numbers)
    return Line("entry_clip", title, value, "go", "nearly all of the teacher's probability pulls as it should", numbers)


def _gate(measured: Measured) -> Line | None:
    weights = measured.weights
    if weights is None or weights.gate_mean is None or weights.gate_at_floor is None:
        return None
    value = f"mean {weights.gate_mean:.3f}, {100 * weights.gate_at_floor:.1f}% at the floor"
    numbers = {"mean": weights.gate_mean, "at_floor": weights.gate_at_floor, "restored": weights.restored}
    if weights.gate_mean > GATE_OPEN:
        judgement, reason = "look", "the gate is open nearly everywhere: expect no difference from a method without it"
    elif weights.gate_mean < GATE_SHUT:
        judgement, reason = (
            "look",
            "the gate takes more than half of the update away: a lower method.gamma, or a rate that makes up",
        )
    else:
        judgement, reason = "go", "the gate weights some tokens down"
    return Line("gate", "gate ω", value, judgement, reason, numbers)


def _regimes(measured: Measured) -> Line | None:
    weights = measured.weights
    if weights is None:
        return None
    value = ", ".join(f"{name} {100 * share:.1f}%" for name, share in weights.regimes.items())
    numbers: dict[str, Any] = dict(weights.regimes)
    if weights.restored is not None:
        value += f"; restored {weights.restored:.4f}"
        if weights.regimes["pivot"] < FEW_PIVOTS:
            reason = "few tokens are unsure before sure ones, for which the lookahead is made: expect what EGRSD gives"
            return Line("regimes", "regimes", value, "look", reason, numbers)
    return Line("regimes", "regimes", value, "go", "for comparison with docs/analysis.md", numbers)


CHECKS: tuple[Callable[[Measured], Line | None], ...] = (
    _accuracy,
    _gap,
    _groups,
    _cut_off,
    _answers,
    _ungradable,
    _end_of_turn,
    _opening,
    _first_tokens,
    _noise,
    _sampler,
    _clip,
    _entry_clip,
    _gate,
    _regimes,
)


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


def _shown(text: str | None) -> str:
    return "nothing" if text is None else f"'{_one_line(text)}'"


def _joined(tokens: Sequence[str]) -> str:
    return f"'{_one_line(''.join(tokens))}'"


def _one_line(text: str) -> str:
    return text.replace("\n", "\\n").replace("\t", "\\t")
