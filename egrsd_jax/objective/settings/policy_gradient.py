"""Of a clipped ratio to the sampler's probabilities, and of completions that are compared within a problem."""

from dataclasses import dataclass, field
from typing import ClassVar

from egrsd_jax.objective.settings.base import OPEN, Importance, MethodSettings
from egrsd_jax.objective.settings.teacher import Schedule, TeacherSettings
from egrsd_jax.ranges import BELOW_ONE, Range, at_least


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
class DistilledGroupSettings(GroupSettings, TeacherSettings):
    """Of GRPO with a term next to it that moves the student to the teacher.

    Args:
        distill_weight: of that term next to the policy gradient.
    """

    teacher: Schedule = "current"
    distill_weight: float = 0.1

    ranges: ClassVar[dict[str, Range]] = {"distill_weight": at_least(0)}
