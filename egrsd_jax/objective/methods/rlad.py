"""RLAD (arXiv 2602.22495): GRPO whose ratio is to a mixture of the old policy and the teacher."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from egrsd_jax.objective.method import WHOLE_SAMPLING, Method
from egrsd_jax.objective.settings import GroupSettings, TeacherSettings
from egrsd_jax.ranges import UNIT, Range

if TYPE_CHECKING:
    import jax

    from egrsd_jax.objective.signals import Signals


@dataclass(frozen=True, kw_only=True)
class RladSettings(GroupSettings, TeacherSettings):
    """The ratio of the paper with its even mixture.

    Args:
        old_share: alpha of RLAD, the old policy's share in what the student's probability is compared with; 1 is GRPO.
    """

    name: str = field(init=False, default="rlad")
    old_share: float = 0.5

    ranges: ClassVar[dict[str, Range]] = {"old_share": UNIT}


def token_loss(signals: "Signals", settings: RladSettings) -> "jax.Array":
    """`-min(r A, clip(r) A)`, r = (p_S / p_old)^alpha (p_S / p_T)^(1 - alpha), plus GRPO's KL term, [B, T]."""
    from egrsd_jax.objective.methods.grpo_group import token_loss as group_loss

    alpha = settings.old_share
    anchor_BT = alpha * signals.sampled_logp_BT + (1.0 - alpha) * signals.teacher_logp_BT
    return group_loss(signals._replace(sampled_logp_BT=anchor_BT), settings)


METHOD = Method(
    order=24,
    title="RLAD",
    description="RLAD (reinforcement-aware distillation, arXiv 2602.22495)",
    arxiv="2602.22495",
    formula="`grpo_group`'s with `ρ = (q / q_old)^α (q / p)^(1 - α)`, α `old_share`",
    choices="the teacher is the initial model with the reference, where RLAD's is a larger model; ε, the number of "
    "completions and the sampling are those of GRPO, and the weight of its KL term is 0",
    settings=RladSettings,
    token_loss=token_loss,
    advantage="group",
    samples_per_problem=8,
    sampling=WHOLE_SAMPLING,
)
