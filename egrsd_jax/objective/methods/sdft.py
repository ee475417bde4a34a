"""SDFT (arXiv 2601.19897): reverse KL to an averaged teacher that sees the demonstration."""

from dataclasses import dataclass, field

from egrsd_jax.objective.method import Method
from egrsd_jax.objective.methods.opsd import token_loss
from egrsd_jax.objective.settings import DivergenceSettings, Schedule


@dataclass(frozen=True, kw_only=True)
class SdftSettings(DivergenceSettings):
    """As published."""

    name: str = field(init=False, default="sdft")
    teacher: Schedule = "ema"
    beta: float = 1.0


METHOD = Method(
    order=45,
    title="SDFT",
    description="SDFT (self-distillation fine-tuning, arXiv 2601.19897)",
    arxiv="2601.19897",
    formula="`KL(q ‖ p)`, p an average of the student that sees the demonstration",
    choices="decay 0.99",
    settings=SdftSettings,
    token_loss=token_loss,
)
