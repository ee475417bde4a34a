"""RLSD (arXiv 2604.03128): EGRSD's likelihood ratio, mixed less and less into the advantage."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from egrsd_jax.objective.method import Method
from egrsd_jax.objective.settings import OPEN, WeightSettings
from egrsd_jax.ranges import UNIT, Range, at_least

if TYPE_CHECKING:
    import jax

    from egrsd_jax.objective.signals import Signals


@dataclass(frozen=True, kw_only=True)
class RlsdSettings(WeightSettings):
    """As published, with the fall of lambda over the whole run.

    Args:
        mixing: lambda of RLSD at the first step, from where it falls to 0 in a line.
        mixing_steps: steps until it is 0.
    """

    name: str = field(init=False, default="rlsd")
    mixing: float = 1.0
    mixing_steps: int = OPEN

    ranges: ClassVar[dict[str, Range]] = {"mixing": UNIT, "mixing_steps": at_least(1)}


def token_loss(signals: "Signals", settings: RlsdSettings) -> "jax.Array":
    """`-A ((1 - lambda) + lambda w) log p_S`, [B, T]. With lambda = 1 it is `direction`, with lambda = 0 `grpo`."""
    return -signals.advantage_BT * token_weight(signals, settings) * signals.student_logp_BT


def token_weight(signals: "Signals", settings: RlsdSettings) -> "jax.Array":
    """`(1 - lambda) + lambda w`, [B, T]; w is EGRSD's, and lambda falls to 0 over `mixing_steps`."""
    import jax.numpy as jnp

    from egrsd_jax.objective.losses import ratio_weight

    share = jnp.clip(1.0 - signals.step.astype(jnp.float32) / settings.mixing_steps, 0.0, 1.0)
    mixing = jnp.float32(settings.mixing) * share
    weight_BT = ratio_weight(
        signals.student_logp_BT, signals.teacher_logp_BT, signals.advantage_B, epsilon=settings.epsilon
    )
    return 1.0 - mixing + mixing * weight_BT


METHOD = Method(
    order=20,
    title="RLSD",
    description="RLSD (arXiv 2604.03128)",
    arxiv="2604.03128",
    formula="`-A ((1 - λ) + λ w) log q(y)`",
    choices="λ falls from 1 in a line over the run; the advantage is whitened as in `egrsd`",
    settings=RlsdSettings,
    token_loss=token_loss,
    token_weight=token_weight,
)
