"""CRISP (arXiv 2603.05433): reverse KL to the same model asked to be concise, without a reference."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from egrsd_jax.objective.method import Method
from egrsd_jax.objective.settings import DivergenceSettings, Privilege

if TYPE_CHECKING:
    import jax

    from egrsd_jax.objective.signals import Signals


@dataclass(frozen=True, kw_only=True)
class CrispSettings(DivergenceSettings):
    """As published, but for the teacher's weights, which stay the initial ones."""

    name: str = field(init=False, default="crisp")
    privilege: Privilege = "concise"
    beta: float = 1.0


def token_loss(signals: "Signals", settings: CrispSettings) -> "jax.Array":
    """The divergence at every token, [B, T]."""
    del settings
    return signals.weight_B[:, None] * signals.divergence_BT


METHOD = Method(
    order=43,
    title="CRISP",
    description="CRISP (self-distillation of a concise teacher, arXiv 2603.05433)",
    source="2603.05433",
    formula="`KL(q ‖ p)`, p asked to be concise, without a reference",
    choices="frozen teacher, in the student's thinking mode; `--method.teacher copy` is the refreshed one",
    settings=CrispSettings,
    token_loss=token_loss,
)
