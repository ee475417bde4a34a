"""Of a method that learns from some of a step's tokens, by what the student makes of them."""

from dataclasses import dataclass
from typing import ClassVar

from egrsd_jax.objective.settings.base import MethodSettings
from egrsd_jax.objective.settings.teacher import TeacherSettings
from egrsd_jax.ranges import SHARE, Range


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
