"""OPSD (arXiv 2601.18734): forward KL from the teacher over the whole vocabulary, each entry clipped from above."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from egrsd_jax.objective.method import Method
from egrsd_jax.objective.settings import ClippedDivergenceSettings, DivergenceSettings

if TYPE_CHECKING:
    import jax

    from egrsd_jax.objective.signals import Signals


@dataclass(frozen=True, kw_only=True)
class OpsdSettings(ClippedDivergenceSettings):
    """As published; for 8B models it has an entry_clip of 0.06."""

    name: str = field(init=False, default="opsd")


def token_loss(signals: "Signals", settings: DivergenceSettings) -> "jax.Array":
    """The divergence at every token, times what its completion counts, [B, T]."""
    del settings
    return signals.weight_B[:, None] * signals.divergence_BT


METHOD = Method(
    order=40,
    title="OPSD",
    description="on-policy self-distillation (OPSD, arXiv 2601.18734)",
    arxiv="2601.18734",
    formula="`Σ_v min(p_v (log p_v - log q_v), c)`, c `entry_clip`",
    choices="0.06 for 8B",
    settings=OpsdSettings,
    token_loss=token_loss,
)
