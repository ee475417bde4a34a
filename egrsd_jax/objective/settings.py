"""The settings that methods share: of the step's mean, of a teacher, of the likelihood ratio and the gate. No jax.

A method's own settings class is one of these with the fields that it adds and the values that it was published with
(`egrsd_jax/objective/methods/`). Each class explains its fields and says which range they have. A field that a method
fixes, such as EGRSD's window of 0, is declared with `init=False`: it can be read, and not be given.
"""

from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Literal, NamedTuple, Self

from egrsd_jax.ranges import BELOW_ONE, SHARE, UNIT, Range, at_least, check_ranges, over, require

# The default of a field that takes its value from other fields. None of them is open in a method's settings once they
# are part of a Config.
OPEN: Any = None
FOLLOWS = {"score_temperature": "rollout.temperature", "epsilon_high": "method.epsilon"}

Schedule = Literal["frozen", "ema", "copy", "earned", "current"]
Privilege = Literal["reference", "none", "wrong", "other", "concise", "answer", "attempt", "own"]
Importance = Literal["sequence", "token", "none"]


class Divergence(NamedTuple):
    """Which divergence from the teacher a step takes at every token.

    `over` says over which tokens: the `whole` vocabulary, the teacher's `top_k` likeliest renormalised
    (`teacher_top`), or the student's `top_k` likeliest and one entry for the rest (`student_top`).
    """

    over: Literal["whole", "teacher_top", "student_top"]
    beta: float = 0.0  # 0 is forward KL, 1 reverse KL
    entry_clip: float | None = None  # nats; only over the whole vocabulary
    top_k: int = 0
    renormalised: bool = False  # student_top without the entry for the rest


@dataclass(frozen=True, kw_only=True)
class MethodSettings:
    """What every method has.

    Args:
        name: the method; docs/methods.md has the equation, the published settings and the source of each.
        reduction: mean over all tokens of the step, over sequences of each one's mean, or over sequences of each one's
            sum divided by rollout.max_new_tokens (constant).
        score_temperature: divides the logits before log-probabilities, entropies and divergences are taken.
        pace_right: a of p^a (1 - p)^b, by which every completion counts; p is the student's pass rate on its problem.
        pace_wrong: b of p^a (1 - p)^b.
        importance: with rollout.ahead, what corrects for completions of an older student: the ratio of its and the
            student's probability of the whole completion (`sequence`, exact in expectation), of each token alone
            (`token`, less variance, biased), or nothing (`none`). At age 0 every weight is 1.
        importance_cap: such a ratio is cut off above this.
    """

    name: str = field(init=False, default="")
    reduction: Literal["token", "sequence", "constant"] = "token"
    score_temperature: float = 1.0
    pace_right: float = 0.0
    pace_wrong: float = 0.0
    importance: Importance = "sequence"
    importance_cap: float = 2.0

    ranges: ClassVar[dict[str, Range]] = {
        "score_temperature": over(0),
        "pace_right": at_least(0),
        "pace_wrong": at_least(0),
        "importance_cap": at_least(1),
    }

    def __post_init__(self):
        ranges: dict[str, Range] = {}
        for kind in reversed(type(self).__mro__):
            ranges |= vars(kind).get("ranges", {})
        check_ranges("method.", self, ranges)

    @property
    def divergence(self) -> Divergence | None:
        """The divergence that the loss reads; None where it reads none."""
        return None

    @property
    def scores_initial(self) -> bool:
        """Whether the loss reads the initial model's log-probabilities under the student's prompt."""
        return False

    @property
    def scores_student(self) -> bool:
        """Whether the step scores all of its completions under the student before it takes a gradient."""
        return False

    def check_group(self, samples_per_problem: int) -> None:
        """Raises ValueError where so many completions of a problem are not enough for the method."""

    def in_run(self, *, rollout_temperature: float) -> Self:
        """The same settings with what a run decides filled in.

        Greedy rollouts, whose temperature is 0, are scored with the logits as they are.
        """
        decided = {"score_temperature": rollout_temperature or 1.0}
        is_open = [name for name in decided if getattr(self, name, 0) is OPEN]
        return replace(self, **{name: decided[name] for name in is_open}) if is_open else self


@dataclass(frozen=True, kw_only=True)
class TeacherSettings(MethodSettings):
    """Of a method with a teacher.

    Args:
        teacher: the teacher's weights: `frozen` initial ones, `ema` of the student's, a `copy` of them every
            teacher_every steps, a copy that is `earned`, so only where reward rose and length is bounded, or the
            `current` ones.
        teacher_decay: of the exponential moving average.
        teacher_every: steps between copies, or between two decisions on one.
        teacher_growth: by how much of their mean length completions may have grown since the last copy that was earned.
        teacher_mix: share of the student's weights in those of a teacher that follows them; the rest are the initial
            ones.
        privilege: what the teacher's prompt has in addition to the problem: its `reference` solution, `none` (the
            student's prompt), a `wrong` reference (every digit another one), an `other` problem's, a request to be
            `concise`, the final `answer` alone, or in the place of the reference another `attempt` of the step at the
            problem, the shortest wrong one or, where there is none, the shortest correct one, or the student's `own`:
            of the step's completions of the problem the next correct one, the first after the last. A completion
            without another that is correct is not in the loss.
    """

    teacher: Schedule = "frozen"
    teacher_decay: float = 0.99
    teacher_every: int = 50
    teacher_growth: float = 0.2
    teacher_mix: float = 1.0
    privilege: Privilege = "reference"

    ranges: ClassVar[dict[str, Range]] = {
        "teacher_decay": UNIT,
        "teacher_every": at_least(1),
        "teacher_growth": at_least(0),
        "teacher_mix": SHARE,
    }

    def __post_init__(self):
        super().__post_init__()
        defaults = {field.name: field.default for field in fields(self)}
        uses: dict[str, tuple[Schedule, ...]] = {
            "teacher_decay": ("ema",),
            "teacher_every": ("copy", "earned"),
            "teacher_growth": ("earned",),
            "teacher_mix": ("ema", "copy", "earned", "current"),
        }
        for name, needed in uses.items():
            require(
                (
                    self.teacher in needed or getattr(self, name) == defaults[name],
                    f"method.{name} is {getattr(self, name)}, and a teacher that is {self.teacher} has no use for it; "
                    f"set method.teacher to {' or '.join(needed)}, or leave method.{name} at {defaults[name]}",
                )
            )

    @property
    def watches(self) -> bool:
        """Whether the teacher depends on how training went, which is then kept with its weights."""
        return self.teacher == "earned"


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


GateSignal = Literal["teacher_entropy", "student_entropy", "entropy_gap", "surprisal"]


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


@dataclass(frozen=True, kw_only=True)
class ClipSettings(MethodSettings):
    """Of a method that clips the ratio of the student's probability to the sampler's, as PPO does.

    Its own ratio is what corrects for completions of an older student, so there is no other (`importance`).

    Args:
        epsilon: a likelihood ratio is clipped to 1 - epsilon .. 1 + epsilon.
        epsilon_high: the upper side of the policy ratio's clip.
    """

    epsilon: float = 0.2
    epsilon_high: float = OPEN
    importance: Importance = field(init=False, default="none")
    importance_cap: float = field(init=False, default=2.0)

    ranges: ClassVar[dict[str, Range]] = {"epsilon": BELOW_ONE, "epsilon_high": at_least(0)}

    def __post_init__(self):
        if self.epsilon_high is OPEN:
            object.__setattr__(self, "epsilon_high", self.epsilon)
        super().__post_init__()


@dataclass(frozen=True, kw_only=True)
class GroupSettings(ClipSettings):
    """Of GRPO and its variants, which compare the completions of one problem.

    Args:
        kl: weight of the k3 estimate of KL to the initial model.
    """

    kl: float = 0.0

    ranges: ClassVar[dict[str, Range]] = {"kl": at_least(0)}

    @property
    def scores_initial(self) -> bool:
        """For the KL term, where it counts."""
        return self.kl > 0


@dataclass(frozen=True, kw_only=True)
class DivergenceSettings(TeacherSettings):
    """Of a method that follows a divergence from the teacher.

    Args:
        beta: of the divergence: 0 is forward KL, 1 reverse KL, between them the generalised Jensen-Shannon divergence.
    """

    beta: float = 0.0

    ranges: ClassVar[dict[str, Range]] = {"beta": UNIT}

    @property
    def divergence(self) -> Divergence | None:
        """Over the whole vocabulary."""
        return Divergence("whole", self.beta)


@dataclass(frozen=True, kw_only=True)
class ClippedDivergenceSettings(DivergenceSettings):
    """Of a divergence over the whole vocabulary whose entries may be clipped, scored at the rollout's temperature.

    Args:
        entry_clip: each vocabulary entry adds at most this to a token's divergence, nats; 0 is no limit.
    """

    entry_clip: float = 0.05
    score_temperature: float = OPEN

    ranges: ClassVar[dict[str, Range]] = {"entry_clip": at_least(0)}

    @property
    def divergence(self) -> Divergence | None:
        """Over the whole vocabulary, each entry clipped."""
        return Divergence("whole", self.beta, self.entry_clip or None)


@dataclass(frozen=True, kw_only=True)
class KeptTokensSettings(TeacherSettings):
    """Of a method that keeps the tokens at which the student is least sure.

    Args:
        kept_share: share of a step's tokens that are kept, those of highest student entropy.
    """

    kept_share: float = 0.2

    ranges: ClassVar[dict[str, Range]] = {"kept_share": SHARE}

    @property
    def scores_student(self) -> bool:
        """For its entropies."""
        return True


@dataclass(frozen=True, kw_only=True)
class LowestTokensSettings(MethodSettings):
    """Of a method that learns from the tokens that the student itself finds least likely.

    Args:
        lowest_share: share of a step's tokens that count, those of lowest student log-probability, at least one.
    """

    lowest_share: float = 0.2

    ranges: ClassVar[dict[str, Range]] = {"lowest_share": SHARE}

    @property
    def scores_student(self) -> bool:
        """For its log-probabilities."""
        return True


@dataclass(frozen=True, kw_only=True)
class DistilledGroupSettings(GroupSettings, TeacherSettings):
    """Of GRPO with a term next to it that moves the student to the teacher.

    Args:
        distill_weight: of that term next to the policy gradient.
    """

    teacher: Schedule = "current"
    distill_weight: float = 0.1

    ranges: ClassVar[dict[str, Range]] = {"distill_weight": at_least(0)}


@dataclass(frozen=True, kw_only=True)
class ContrastSettings(TeacherSettings):
    """Of a method whose teacher reads wrong completions of the problem as well, each in a prompt of its own (RLCSD).

    Args:
        contrasts: how many wrong completions of the problem the teacher reads at most, of the step's others that have
            an answer the next ones. A completion without any is not in the loss.
        contrast_scale: tau of RLCSD, nats: the contrast is divided by it before its tanh.
        contrast_strength: beta lambda of RLCSD, the most by which a contrast moves the advantage.
        least_modulation: delta of RLCSD; a token whose advantage would move by no more keeps it.
        modulated_weight: eta of RLCSD, of the mean over the tokens whose advantage is moved, next to that over the
            others.
    """

    contrasts: int = 4
    contrast_scale: float = 0.02
    contrast_strength: float = 0.5
    least_modulation: float = 0.02
    modulated_weight: float = 1.0

    ranges: ClassVar[dict[str, Range]] = {
        "contrasts": at_least(1),
        "contrast_scale": over(0),
        "contrast_strength": at_least(0),
        "least_modulation": at_least(0),
        "modulated_weight": at_least(0),
    }


@dataclass(frozen=True, kw_only=True)
class ConsensusSettings(TeacherSettings):
    """Of a method whose teacher writes half of each problem's completions, which count where enough of them agree.

    Args:
        consensus: how many of a problem's teacher completions must agree for the problem to count.
    """

    consensus: int = 4

    ranges: ClassVar[dict[str, Range]] = {"consensus": at_least(1)}

    def check_group(self, samples_per_problem: int) -> None:
        """Half of a problem's completions are the teacher's, and `consensus` of these are to agree."""
        require(
            (
                samples_per_problem % 2 == 0 and samples_per_problem // 2 >= self.consensus,
                f"{self.name} lets the teacher write half of a problem's {samples_per_problem} completions, and "
                f"{self.consensus} of these are to agree; rollout.samples_per_problem must be even and large enough",
            )
        )


def teacher_schedule(settings: MethodSettings) -> Schedule:
    """Whose weights the teacher has; `frozen` for a method without one, which keeps none."""
    return settings.teacher if isinstance(settings, TeacherSettings) else "frozen"


def privilege(settings: MethodSettings) -> Privilege:
    """What the teacher's prompt shows; `reference` for a method without a teacher.

    Such a method skips the same problems as the others, by the length of a teacher's prompt that it never reads.
    """
    return settings.privilege if isinstance(settings, TeacherSettings) else "reference"


def shows_completion(settings: MethodSettings) -> bool:
    """Whether `method.privilege` is a completion of the step."""
    return privilege(settings) in ("attempt", "own")


def contrasts(settings: MethodSettings) -> int:
    """How many wrong completions the teacher reads at most, each in a prompt of its own; 0 for most methods."""
    return settings.contrasts if isinstance(settings, ContrastSettings) else 0


def reads_completions(settings: MethodSettings) -> bool:
    """Whether some prompt of the teacher's shows a completion of the step, so that it is known only in the step."""
    return shows_completion(settings) or contrasts(settings) > 0


def watches(settings: MethodSettings) -> bool:
    """Whether how training went is kept with the teacher's weights; not for a method without a teacher."""
    return isinstance(settings, TeacherSettings) and settings.watches


def teacher_mix(settings: MethodSettings) -> float:
    """Share of the student's weights in the teacher's; 1 for a method without one."""
    return settings.teacher_mix if isinstance(settings, TeacherSettings) else 1.0
