"""Of a method with a teacher: whose weights it has and what it reads; and the same asked of any method."""

from dataclasses import dataclass, fields
from typing import ClassVar, Literal

from egrsd_jax.objective.settings.base import MethodSettings
from egrsd_jax.ranges import SHARE, UNIT, Range, at_least, over, require

Schedule = Literal["frozen", "ema", "copy", "earned", "current"]
Privilege = Literal["reference", "none", "wrong", "other", "concise", "answer", "attempt", "own"]


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
