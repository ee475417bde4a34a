"""GRPO with its groups and its clip (arXiv 2402.03300)."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from egrsd_jax.objective.method import WHOLE_SAMPLING, Method
from egrsd_jax.objective.settings import GroupSettings

if TYPE_CHECKING:
    import jax

    from egrsd_jax.objective.signals import Signals


@dataclass(frozen=True, kw_only=True)
class GrpoGroupSettings(GroupSettings):
    """As published, without the KL term."""

    name: str = field(init=False, default="grpo_group")
    reduction: Literal["token", "sequence", "constant"] = "sequence"


def token_loss(signals: "Signals", settings: GroupSettings) -> "jax.Array":
    """`-min(rho A, clip(rho, 1 - epsilon, 1 + epsilon_high) A) + kl k3`, [B, T].

    rho is the student's probability over the sampler's. With one gradient step on a rollout it is 1 up to rounding, and
    the clip rests.
    """
    from egrsd_jax.objective.policy_gradient import clipped_ratio_gain, k3_divergence

    loss_BT = -clipped_ratio_gain(
        signals.student_logp_BT,
        signals.sampled_logp_BT,
        signals.advantage_BT,
        epsilon=settings.epsilon,
        epsilon_high=settings.epsilon_high,
    )
    if signals.initial_logp_BT is None:  # kl is 0
        return loss_BT
    to_initial_BT = k3_divergence(signals.student_logp_BT, signals.initial_logp_BT)
    return loss_BT + settings.kl * signals.weight_B[:, None] * to_initial_BT


METHOD = Method(
    order=31,
    title="GRPO, group",
    description="GRPO with groups of completions (arXiv 2402.03300)",
    arxiv="2402.03300",
    formula="`-min(ρA, clip(ρ, 1 ± ε) A) + kl · k3`, A = (r - mean) / (std + 1e-4)",
    choices="ρ is to the sampler's probabilities",
    settings=GrpoGroupSettings,
    token_loss=token_loss,
    advantage="group",
    samples_per_problem=8,
    sampling=WHOLE_SAMPLING,
)
