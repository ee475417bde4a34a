"""RLSD (arXiv 2604.03128) as its authors released it: EGRSD's likelihood ratio mixed into GRPO's advantage."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from egrsd_jax.objective.method import WHOLE_SAMPLING, Method
from egrsd_jax.objective.settings import Importance, Privilege, Schedule, WeightSettings
from egrsd_jax.ranges import BELOW_ONE, UNIT, Range, at_least

if TYPE_CHECKING:
    import jax

    from egrsd_jax.objective.signals import Signals


@dataclass(frozen=True, kw_only=True)
class RlsdSettings(WeightSettings):
    """The defaults of the released code. Its training script sets mixing_steps 60 and copies the teacher every 20.

    Args:
        mixing: lambda of RLSD, the share of w in what the advantage is multiplied by.
        mixing_steps: steps in which lambda falls to 0 in a line; at 0 it is constant.
        negative_only: completions with an advantage of at least 0 keep the advantage as it is, which is the authors'
            remedy where correct completions grow short.
        clip_low: the student's probability over the sampler's counts as at least 1 - clip_low.
        clip_high: the student's probability over the sampler's counts as at most 1 + clip_high.

    That ratio is what corrects for completions of an older student, so there is no other (`importance`).
    """

    name: str = field(init=False, default="rlsd")
    teacher: Schedule = "current"
    privilege: Privilege = "answer"
    mixing: float = 0.5
    mixing_steps: int = 0
    negative_only: bool = False
    clip_low: float = 0.2
    clip_high: float = 0.28
    importance: Importance = field(init=False, default="none")
    importance_cap: float = field(init=False, default=2.0)

    ranges: ClassVar[dict[str, Range]] = {
        "mixing": UNIT,
        "mixing_steps": at_least(0).noted("0 is constant"),
        "clip_low": BELOW_ONE,
        "clip_high": at_least(0),
    }


def token_loss(signals: "Signals", settings: RlsdSettings) -> "jax.Array":
    """`-min(rho A W, clip(rho, 1 - clip_low, 1 + clip_high) A W)`, W of `token_weight`, [B, T].

    With lambda = 1 and one gradient step on a rollout it is `direction` with the group's advantage, with lambda = 0
    `grpo_group`.
    """
    from egrsd_jax.objective.policy_gradient import clipped_ratio_gain

    return -clipped_ratio_gain(
        signals.student_logp_BT,
        signals.sampled_logp_BT,
        signals.advantage_BT * token_weight(signals, settings),
        epsilon=settings.clip_low,
        epsilon_high=settings.clip_high,
    )


def token_weight(signals: "Signals", settings: RlsdSettings) -> "jax.Array":
    """`(1 - lambda) + lambda w`, [B, T]; w is EGRSD's."""
    import jax.numpy as jnp

    from egrsd_jax.objective.losses import ratio_weight

    mixing = jnp.float32(settings.mixing)
    if settings.mixing_steps:
        mixing *= jnp.clip(1.0 - signals.step.astype(jnp.float32) / settings.mixing_steps, 0.0, 1.0)
    weight_BT = ratio_weight(
        signals.student_logp_BT, signals.teacher_logp_BT, signals.advantage_B, epsilon=settings.epsilon
    )
    mixed_BT = 1.0 - mixing + mixing * weight_BT
    return jnp.where(signals.advantage_B[:, None] < 0, mixed_BT, 1.0) if settings.negative_only else mixed_BT


METHOD = Method(
    order=20,
    title="RLSD",
    description="RLSD (arXiv 2604.03128)",
    arxiv="2604.03128",
    formula="`-min(ρAW, clip(ρ, 1 - clip_low, 1 + clip_high) AW)`, `W = (1 - λ) + λ w`, λ `mixing`, A = (r - mean) / "
    "(std + 1e-4)",
    choices="8 of the released 4 to 8 completions; what EGRSD's paper calls RLSD is `direction`. The released script "
    "has `--method.mixing_steps 60 --method.teacher copy --method.teacher_every 20`",
    settings=RlsdSettings,
    token_loss=token_loss,
    token_weight=token_weight,
    advantage="group",
    samples_per_problem=8,
    sampling=WHOLE_SAMPLING,
)
