"""SDAR (arXiv 2605.15155): GRPO, and next to it a pull to the tokens that the teacher likes better."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from egrsd_jax.objective.method import WHOLE_SAMPLING, Method
from egrsd_jax.objective.settings import DistilledGroupSettings
from egrsd_jax.ranges import Range, at_least

if TYPE_CHECKING:
    import jax

    from egrsd_jax.objective.signals import Signals


@dataclass(frozen=True, kw_only=True)
class SdarSettings(DistilledGroupSettings):
    """As released, with the paper's weight; the released script for three tasks at once has distill_weight 0.01.

    Args:
        gate_slope: beta of SDAR's gate, sigmoid(beta delta).
    """

    name: str = field(init=False, default="sdar")
    gate_slope: float = 5.0
    kl: float = 0.001

    ranges: ClassVar[dict[str, Range]] = {"gate_slope": at_least(0)}


def token_loss(signals: "Signals", settings: SdarSettings) -> "jax.Array":
    """GRPO's loss plus `distill_weight sigmoid(gate_slope delta) (log p_T - log p_S)`, [B, T].

    The gate is a constant: the gradient reaches log p_S alone.
    """
    import jax

    from egrsd_jax.objective.methods.grpo_group import token_loss as group_loss

    gate_BT = jax.nn.sigmoid(settings.gate_slope * signals.delta_BT)
    pull_BT = signals.weight_B[:, None] * gate_BT * (signals.teacher_logp_BT - signals.student_logp_BT)
    return group_loss(signals, settings) + settings.distill_weight * pull_BT


METHOD = Method(
    order=22,
    title="SDAR",
    description="SDAR (arXiv 2605.15155)",
    arxiv="2605.15155",
    formula="`grpo_group`'s plus `distill_weight σ(gate_slope δ) (log p(y) - log q(y))`, the gate a constant",
    choices="the teacher reads the reference solution, where SDAR's reads skills of an agent's task",
    settings=SdarSettings,
    token_loss=token_loss,
    advantage="group",
    samples_per_problem=8,
    sampling=WHOLE_SAMPLING,
)
