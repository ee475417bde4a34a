"""RLCSD (arXiv 2606.11709): GRPO whose advantage moves by what a correct hint says of a token and wrong ones do not."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from egrsd_jax.objective.method import Method, PublishedSampling
from egrsd_jax.objective.settings import ClipSettings, ContrastSettings, Privilege, Schedule
from egrsd_jax.ranges import require

if TYPE_CHECKING:
    import jax

    from egrsd_jax.objective.signals import Signals


@dataclass(frozen=True, kw_only=True)
class RlcsdSettings(ClipSettings, ContrastSettings):
    """As released. The two means that its loss adds are over tokens, and so is its reduction."""

    name: str = field(init=False, default="rlcsd")
    teacher: Schedule = "copy"
    teacher_every: int = 10
    privilege: Privilege = "own"

    def __post_init__(self):
        super().__post_init__()
        require(
            (
                self.reduction == "token",
                f"method.reduction is {self.reduction}, and rlcsd adds two means over tokens; leave it at token",
            )
        )


def token_loss(signals: "Signals", settings: RlcsdSettings) -> "jax.Array":
    """`-s min(rho B, clip(rho) B)`, B the advantage plus r with its sign kept, s of `split_weight`, [B, T]."""
    from egrsd_jax.objective.contrast import modulated_advantage
    from egrsd_jax.objective.policy_gradient import clipped_ratio_gain

    modulation_BT = signals.weight_B[:, None] * signals.modulation_BT
    gain_BT = clipped_ratio_gain(
        signals.student_logp_BT,
        signals.sampled_logp_BT,
        modulated_advantage(signals.advantage_BT, modulation_BT),
        epsilon=settings.epsilon,
        epsilon_high=settings.epsilon_high,
    )
    return -signals.split_BT * gain_BT


METHOD = Method(
    order=25,
    title="RLCSD",
    description="RLCSD (contrastive on-policy self-distillation, arXiv 2606.11709)",
    arxiv="2606.11709",
    formula="`-min(ρB, clip(ρ, 1 ± ε) B)`, `B = A + r` with A's sign or 0, `r = contrast_strength tanh(e / "
    "contrast_scale)`, `e = log p(y) - log mean_k p_k(y)`, p_k reading a wrong completion of the problem; the mean "
    "over tokens with |r| over `least_modulation`, times `modulated_weight`, plus that over the others, whose r is 0",
    choices="of the other completions of the problem the next ones are read, where RLCSD's are random; β, which is 1 "
    "in all of its configurations, and the limits of r at ±2, which cannot bind, are left out; ρ is to the sampler's "
    "probabilities, without its importance weights of a rollout engine",
    settings=RlcsdSettings,
    token_loss=token_loss,
    advantage="group",
    samples_per_problem=8,
    sampling=PublishedSampling(1.0, 0.95, 20),
)
