"""SDPO (arXiv 2601.20802): generalised Jensen-Shannon divergence over the student's likeliest tokens and the rest."""

from dataclasses import dataclass, field
from typing import ClassVar

from egrsd_jax.objective.method import Method
from egrsd_jax.objective.methods.opsd import token_loss
from egrsd_jax.objective.settings import Divergence, DivergenceSettings, Schedule
from egrsd_jax.ranges import Range, at_least


@dataclass(frozen=True, kw_only=True)
class SdpoSettings(DivergenceSettings):
    """As published; the teacher is an average of the student at rate 0.05.

    Args:
        top_k: tokens that a divergence is taken over; all where the vocabulary has no more.
    """

    name: str = field(init=False, default="sdpo")
    teacher: Schedule = "ema"
    teacher_decay: float = 0.95
    beta: float = 0.5
    top_k: int = 100

    ranges: ClassVar[dict[str, Range]] = {"top_k": at_least(1)}

    @property
    def divergence(self) -> Divergence | None:
        """Over the student's likeliest tokens and the rest."""
        return Divergence("student_top", self.beta, top_k=self.top_k)


METHOD = Method(
    order=44,
    title="SDPO",
    description="SDPO (arXiv 2601.20802)",
    arxiv="2601.20802",
    formula="`(1 - β) KL(q ‖ m) + β KL(p ‖ m)` over q's `top_k` likeliest tokens and the mass of the rest",
    choices="the teacher reads the reference solution, as in all methods here, and no completion or feedback of the "
    "student's",
    settings=SdpoSettings,
    token_loss=token_loss,
)
