"""SDPG (arXiv 2606.04036): GRPO, reverse KL to the current weights with a privilege, and an anchor."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from egrsd_jax.objective.method import WHOLE_SAMPLING, Method
from egrsd_jax.objective.settings import DistilledGroupSettings, Divergence, Privilege
from egrsd_jax.ranges import Range, at_least

if TYPE_CHECKING:
    import jax

    from egrsd_jax.objective.signals import Signals


@dataclass(frozen=True, kw_only=True)
class SdpgSettings(DistilledGroupSettings):
    """As released, with the form of the anchor that the released script takes by default.

    Args:
        anchor_weight: alpha of SDPG, of half the squared log-ratio to the initial model.
    """

    name: str = field(init=False, default="sdpg")
    privilege: Privilege = "answer"
    epsilon_high: float = 0.28
    distill_weight: float = 0.001
    anchor_weight: float = 0.001

    ranges: ClassVar[dict[str, Range]] = {"anchor_weight": at_least(0)}

    @property
    def divergence(self) -> Divergence | None:
        """Reverse KL over the whole vocabulary."""
        return Divergence("whole", 1.0)

    @property
    def scores_initial(self) -> bool:
        """For the anchor, or the KL term."""
        return self.anchor_weight > 0 or self.kl > 0


def token_loss(signals: "Signals", settings: SdpgSettings) -> "jax.Array":
    """GRPO's loss plus `distill_weight KL(S || T) + anchor_weight (log p_S - log p_initial)^2 / 2`, [B, T]."""
    import jax.numpy as jnp

    from egrsd_jax.objective.methods.grpo_group import token_loss as group_loss

    terms_BT = settings.distill_weight * signals.divergence_BT
    if settings.anchor_weight:
        gap_BT = signals.student_logp_BT - signals.initial_logp_BT
        terms_BT += 0.5 * settings.anchor_weight * jnp.square(gap_BT)
    return group_loss(signals, settings) + signals.weight_B[:, None] * terms_BT


METHOD = Method(
    order=23,
    title="SDPG",
    description="SDPG (self-distilled policy gradient, arXiv 2606.04036)",
    arxiv="2606.04036",
    formula="`grpo_group`'s plus `distill_weight KL(q ‖ p) + anchor_weight (log q(y) - log q₀(y))² / 2`, q₀ the "
    "initial model",
    choices="the bound of 10 on the ratio where A < 0 is left out: with one gradient step on a rollout it cannot bind",
    settings=SdpgSettings,
    token_loss=token_loss,
    advantage="group",
    samples_per_problem=8,
    sampling=WHOLE_SAMPLING,
)
