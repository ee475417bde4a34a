"""What every method has, and what a divergence is."""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, NamedTuple, Self

from egrsd_jax.ranges import Range, at_least, check_ranges, over

# The default of a field that takes its value from other fields. None of them is open in a method's settings once they
# are part of a Config.
OPEN: Any = None
FOLLOWS = {"score_temperature": "rollout.temperature", "epsilon_high": "method.epsilon"}

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
