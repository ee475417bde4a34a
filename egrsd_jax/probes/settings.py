"""What the probes look for, and the limits beyond which they say so. Imports no jax."""

from dataclasses import dataclass
from typing import Literal

from egrsd_jax.ranges import UNIT, at_least, check_ranges, require

HESITATIONS = (
    "wait", "hmm", "hold on", "let me check", "let me double-check", "let me double check", "let me verify",
    "let me re-check", "let me recheck", "let me reconsider", "let me re-examine", "let me think again", "double-check",
    "on second thought", "alternatively", "actually", "maybe", "perhaps", "not sure", "is that right",
)  # fmt: skip
MENTIONS = (
    "reference solution", "reference answer", "reference derivation", "given solution", "provided solution",
    "solution provided", "solution given", "solution above", "official solution", "according to the solution",
    "the solution says", "the solution states", "the solution shows", "answer key", "known answer",
)  # fmt: skip
STYLE = (
    "wait", "hmm", "okay", "ok", "alright", "well", "so", "now", "then", "thus", "therefore", "hence", "first", "next",
    "let", "maybe", "perhaps", "actually", "alternatively", "but", "however", "check", "again", "think", "note", "also",
)  # fmt: skip


@dataclass(frozen=True)
class ProbeSettings:
    """Probes and their limits; a limit of null never alarms. docs/probes.md has each one's definition and meaning.

    Args:
        baseline_steps: first training steps whose completions stand for the untrained model; 1 is exact, since the
            untrained model writes those of step 0, and more are steadier.
        window: training steps over which a statistic is pooled before it is compared with its limits.
        clearly: standard errors by which a statistic must differ from its baseline, in addition to breaking its limit.
        hesitations: words and phrases of hesitation, counted in any case.
        mentions: phrases that speak of the reference, which the student never saw.
        style: single words that carry style and no mathematics; tokens are compared with them one by one.
        overlap_words: n, words of a stretch that completion and reference have in common.
        early_within: share of a completion's text within which an answer is early.
        fork_entropy: nats of teacher entropy that make a token a fork where the next tokens have them too; by default
            the 70th percentile of the untrained model's.
        hesitation_fall: hesitations of correct completions below this share of the untrained model's alarm.
        hesitation_rise: the same above it.
        length_fall: mean length below this share of the untrained model's alarms, unless accuracy has held.
        length_rise: the same above it.
        accuracy_loss: accuracy has held where a loss of more than this, since the untrained model, is ruled out.
        cut_off_excess: share of completions cut off beyond the untrained model's that alarms.
        mention_excess: share of completions that mention the reference, beyond the untrained model's, that alarms.
        overlap_excess: share of words in common with the reference, beyond the untrained model's, that alarms.
        early_excess: share of early answers beyond the untrained model's that alarms.
        fork_fall: forks below this share of the untrained model's alarm.
        style_most: share of the update's weight on style tokens that alarms.
        loop_tokens: tokens of a tail that repeats, from which on it is a loop.
        repeat_tokens: n, tokens of a stretch that counts as repeated where it occurred before in the completion.
        loop_most: share of completions that end in a loop that alarms.
        no_answer_most: share of completions without an answer that alarms.
        nothing_correct: steps in a row without a correct completion that alarm.
        pass_fall: a fall of held-out pass@k by more than this alarms, where avg@k did not fall.
        placebo_completions: completions that the analysis scores with placebo teachers; 0 is none.
        placebo_most: share of the teacher's signal that survives a placebo reference, beyond chance, above which
            the analysis alarms.
        branches: places at which the analysis takes the teacher's alternative and lets it continue; 0 is none.
        branch_samples: continuations of each.
        branch_by: who continues, the student or the teacher.
        viability_least: the analysis alarms where the whole interval of the AUROC of entropy is below this.
    """

    baseline_steps: int = 1
    window: int = 10
    clearly: float = 2.0
    hesitations: tuple[str, ...] = HESITATIONS
    mentions: tuple[str, ...] = MENTIONS
    style: tuple[str, ...] = STYLE
    overlap_words: int = 10
    early_within: float = 0.2
    fork_entropy: float | None = None
    hesitation_fall: float | None = 0.5
    hesitation_rise: float | None = 2.0
    length_fall: float | None = 0.7
    length_rise: float | None = 1.5
    accuracy_loss: float = 0.05
    cut_off_excess: float | None = 0.1
    mention_excess: float | None = 0.02
    overlap_excess: float | None = 0.05
    early_excess: float | None = 0.1
    fork_fall: float | None = 0.5
    style_most: float | None = 0.5
    loop_tokens: int = 24
    repeat_tokens: int = 8
    loop_most: float | None = 0.1
    no_answer_most: float | None = 0.5
    nothing_correct: int | None = 10
    pass_fall: float | None = 0.0
    placebo_completions: int = 32
    placebo_most: float | None = 0.5
    branches: int = 96
    branch_samples: int = 1
    branch_by: Literal["student", "teacher"] = "student"
    viability_least: float | None = 0.5

    def __post_init__(self):
        check_ranges("probes.", self, _RANGES)
        for name in ("hesitations", "mentions", "style"):
            phrases = getattr(self, name)
            require((phrases and all(map(str.strip, phrases)), f"probes.{name} has an empty phrase, or none"))


_LIMIT = UNIT.noted("null never alarms")
_RANGES = {
    "baseline_steps": at_least(1),
    "window": at_least(1),
    "clearly": at_least(0),
    "overlap_words": at_least(1),
    "early_within": UNIT,
    "fork_entropy": at_least(0),
    "hesitation_fall": _LIMIT,
    "hesitation_rise": at_least(1).noted("null never alarms"),
    "length_fall": _LIMIT,
    "length_rise": at_least(1).noted("null never alarms"),
    "accuracy_loss": UNIT,
    "cut_off_excess": _LIMIT,
    "mention_excess": _LIMIT,
    "overlap_excess": _LIMIT,
    "early_excess": _LIMIT,
    "fork_fall": _LIMIT,
    "style_most": _LIMIT,
    "loop_tokens": at_least(4),
    "repeat_tokens": at_least(1),
    "loop_most": _LIMIT,
    "no_answer_most": _LIMIT,
    "nothing_correct": at_least(1).noted("null never alarms"),
    "pass_fall": _LIMIT,
    "placebo_completions": at_least(0).noted("0 is none"),
    "placebo_most": _LIMIT,
    "branches": at_least(0).noted("0 is none"),
    "branch_samples": at_least(1),
    "viability_least": _LIMIT,
}
