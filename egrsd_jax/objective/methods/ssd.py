"""SSD (arXiv 2604.01193): supervised learning of the initial model's own samples."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from egrsd_jax.objective.method import Method
from egrsd_jax.objective.settings import MethodSettings

if TYPE_CHECKING:
    import jax

    from egrsd_jax.objective.signals import Signals


@dataclass(frozen=True, kw_only=True)
class SsdSettings(MethodSettings):
    """Nothing of its own."""

    name: str = field(init=False, default="ssd")


def token_loss(signals: "Signals", settings: SsdSettings) -> "jax.Array":
    """`-log p_S` of the initial model's sample, [B, T]."""
    del settings
    return -signals.weight_B[:, None] * signals.student_logp_BT


METHOD = Method(
    order=61,
    title="SSD",
    description="supervised learning of the base model's own samples (SSD, arXiv 2604.01193)",
    source="2604.01193",
    formula="`-log q(y)`, y sampled by the initial model",
    choices="with the rollout's temperature and truncation",
    settings=SsdSettings,
    token_loss=token_loss,
    writer="initial",
)
