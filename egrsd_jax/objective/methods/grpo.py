"""GRPO as EGRSD's paper compares with it (arXiv 2605.13255): a policy gradient on the reward, without a teacher."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from egrsd_jax.objective.method import Method
from egrsd_jax.objective.settings import MethodSettings

if TYPE_CHECKING:
    import jax

    from egrsd_jax.objective.signals import Signals


@dataclass(frozen=True, kw_only=True)
class GrpoSettings(MethodSettings):
    """Nothing of its own."""

    name: str = field(init=False, default="grpo")


def token_loss(signals: "Signals", settings: GrpoSettings) -> "jax.Array":
    """`-A log p_S`, [B, T]: w and omega of EGRSD are both 1."""
    del settings
    return -signals.advantage_BT * signals.student_logp_BT


METHOD = Method(
    order=30,
    title="GRPO, whitened",
    description="policy gradient on verified rewards, without a teacher (GRPO)",
    arxiv="2605.13255",
    formula="`-A log q(y)`, A whitened by running moments",
    settings=GrpoSettings,
    token_loss=token_loss,
)
