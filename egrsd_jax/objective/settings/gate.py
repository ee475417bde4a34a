"""Of the clipped likelihood ratio and of the entropy gate."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple

from egrsd_jax.objective.settings.teacher import TeacherSettings
from egrsd_jax.ranges import BELOW_ONE, UNIT, Range, at_least

GateSignal = Literal["teacher_entropy", "student_entropy", "entropy_gap", "surprisal"]


@dataclass(frozen=True, kw_only=True)
class WeightSettings(TeacherSettings):
    """Of a method that weights the advantage by the clipped likelihood ratio of teacher and student.

    Args:
        epsilon: a likelihood ratio is clipped to 1 - epsilon .. 1 + epsilon; at 0 every w is 1.
        retire_after: steps without a new least mean |delta| after which the teacher retires: every w and omega is then
            1. 0 is never.
    """

    epsilon: float = 0.2
    retire_after: int = 0

    ranges: ClassVar[dict[str, Range]] = {"epsilon": BELOW_ONE, "retire_after": at_least(0).noted("0 is never")}

    @property
    def watches(self) -> bool:
        """For a teacher that may retire, too."""
        return self.teacher == "earned" or self.retire_after > 0


class GateKind(NamedTuple):
    """What a gate reads of a token, which way it turns, how far ahead it looks, and what a disagreement costs.

    EGRSD is `GateKind()`, CL-EGRSD `GateKind(lookahead=3)`.
    """

    signal: GateSignal = "teacher_entropy"
    direction: Literal["down", "up"] = "down"
    lookahead: int = 0
    agreement: float = 1.0


@dataclass(frozen=True, kw_only=True)
class GateSettings(WeightSettings):
    """Of a method with the entropy gate; the values are the paper's for Qwen3-4B (arXiv 2605.13255).

    Args:
        gamma: strength of the entropy gate, 0 to 1.
        window: W, tokens that the lookahead minimum sees ahead.
        floor: the least weight that the gate leaves.
        scope: what the entropy is divided by: the largest of the batch, of the sequence, or log of the vocabulary.
        denominator: take that largest value before (raw) or after (lookahead) the lookahead minimum.
        gate: `entropy`, or a control that gives the same weights to other tokens: at `random`, `reversed` (most to the
            least sure), by `position` (least to the first).
        signal: what the gate reads, nats: the `teacher_entropy`, the `student_entropy`, the `entropy_gap` (the first
            less the second, 0 where that is negative), or the `surprisal` of the token under the student.
        gate_direction: tokens with more of the signal count less (down), or more (up).
        agreement: the gate is multiplied by this where the teacher disagrees with the reward, so where delta and A have
            opposite signs.
    """

    gamma: float = 0.3
    window: int = field(init=False, default=0)
    floor: float = 0.1
    scope: Literal["batch", "sequence", "log_vocab"] = "batch"
    denominator: Literal["raw", "lookahead"] = "raw"
    gate: Literal["entropy", "random", "reversed", "position"] = "entropy"
    signal: GateSignal = "teacher_entropy"
    gate_direction: Literal["down", "up"] = "down"
    agreement: float = 1.0

    ranges: ClassVar[dict[str, Range]] = {"gamma": UNIT, "floor": UNIT, "agreement": UNIT}

    @property
    def kind(self) -> GateKind:
        """The gate as one of all that signal, direction, lookahead and agreement make."""
        return GateKind(self.signal, self.gate_direction, self.window, self.agreement)

    @property
    def is_papers_gate(self) -> bool:
        """Whether it is the gate of EGRSD or of CL-EGRSD, whatever its strength and its window."""
        return self.kind == GateKind(lookahead=self.window)

    @property
    def scores_student(self) -> bool:
        """For the signals that are the student's."""
        return self.signal != "teacher_entropy"
