"""EOPD (arXiv 2603.07079): a clipped policy gradient on the teacher's opinion, and a divergence where it is unsure."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from egrsd_jax.objective.method import Method
from egrsd_jax.objective.settings import ClipSettings, Divergence, TeacherSettings
from egrsd_jax.ranges import Range, at_least

if TYPE_CHECKING:
    import jax

    from egrsd_jax.objective.signals import Signals


@dataclass(frozen=True, kw_only=True)
class EopdSettings(ClipSettings, TeacherSettings):
    """As published.

    Args:
        top_k: tokens that a divergence is taken over; all where the vocabulary has no more.
        entropy_threshold: teacher entropy, nats, above which EOPD adds its divergence.
    """

    name: str = field(init=False, default="eopd")
    top_k: int = 16
    entropy_threshold: float = 0.8

    ranges: ClassVar[dict[str, Range]] = {"top_k": at_least(1), "entropy_threshold": at_least(0)}

    @property
    def divergence(self) -> Divergence | None:
        """Forward KL over the teacher's likeliest tokens."""
        return Divergence("teacher_top", top_k=self.top_k)


def token_loss(signals: "Signals", settings: EopdSettings) -> "jax.Array":
    """`-min(rho delta, clip(rho) delta) + 1[H_T > threshold] KL(T || S)`, [B, T].

    KL is over the teacher's `top_k` tokens, both distributions renormalised on them.
    """
    import jax.numpy as jnp

    from egrsd_jax.objective.policy_gradient import clipped_ratio_gain

    gain_BT = clipped_ratio_gain(
        signals.student_logp_BT,
        signals.sampled_logp_BT,
        signals.delta_BT,
        epsilon=settings.epsilon,
        epsilon_high=settings.epsilon_high,
    )
    unsure_BT = signals.teacher_entropy_BT > settings.entropy_threshold
    return signals.weight_B[:, None] * (jnp.where(unsure_BT, signals.divergence_BT, 0.0) - gain_BT)


METHOD = Method(
    order=50,
    title="EOPD",
    description="EOPD (arXiv 2603.07079)",
    arxiv="2603.07079",
    formula="`-min(ρδ, clip(ρ) δ) + 1[H > entropy_threshold] KL(p ‖ q)` over p's `top_k` likeliest tokens",
    choices="both distributions are renormalised on the `top_k`",
    settings=EopdSettings,
    token_loss=token_loss,
)
