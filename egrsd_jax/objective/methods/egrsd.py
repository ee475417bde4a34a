"""EGRSD (arXiv 2605.13255): the reward gives the direction, the teacher the size of every token's update."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from egrsd_jax.objective.method import Method
from egrsd_jax.objective.settings import GateSettings, WeightSettings

if TYPE_CHECKING:
    import jax

    from egrsd_jax.objective.signals import Signals


@dataclass(frozen=True, kw_only=True)
class EgrsdSettings(GateSettings):
    """The paper's for Qwen3-4B and Qwen3-8B."""

    name: str = field(init=False, default="egrsd")


def token_loss(signals: "Signals", settings: GateSettings) -> "jax.Array":
    """`-A w omega log p_S`, [B, T]: w of `token_weight`, omega the entropy gate."""
    return -signals.advantage_BT * token_weight(signals, settings) * signals.gate_BT * signals.student_logp_BT


def token_weight(signals: "Signals", settings: WeightSettings) -> "jax.Array":
    """w = clip(exp(sign(A) (log p_T - log p_S)), 1 - epsilon, 1 + epsilon), [B, T]."""
    from egrsd_jax.objective.losses import ratio_weight

    return ratio_weight(signals.student_logp_BT, signals.teacher_logp_BT, signals.advantage_B, epsilon=settings.epsilon)


METHOD = Method(
    order=10,
    title="EGRSD",
    description="EGRSD (entropy-guided reinforced self-distillation, arXiv 2605.13255)",
    arxiv="2605.13255",
    formula="`-A w ω log q(y)`, `w = clip(exp(sign(A) δ), 1 ± ε)`, `ω = clip(1 - γ H / H_max, 0.1, 1)`",
    settings=EgrsdSettings,
    token_loss=token_loss,
    token_weight=token_weight,
)
