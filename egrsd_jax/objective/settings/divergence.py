"""Of a divergence from the teacher."""

from dataclasses import dataclass
from typing import ClassVar

from egrsd_jax.objective.settings.base import OPEN, Divergence
from egrsd_jax.objective.settings.teacher import TeacherSettings
from egrsd_jax.ranges import UNIT, Range, at_least


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
