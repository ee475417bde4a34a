"""GATES (arXiv 2602.20574): likelihood of the teacher's agreeing completions, a policy gradient on the student's."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from egrsd_jax.objective.method import Method
from egrsd_jax.objective.settings import ConsensusSettings
from egrsd_jax.ranges import Range, at_least, over

if TYPE_CHECKING:
    import jax

    from egrsd_jax.objective.signals import Signals


@dataclass(frozen=True, kw_only=True)
class GatesSettings(ConsensusSettings):
    """As published, with a frozen teacher.

    Args:
        policy_weight: of the policy gradient next to GATES' likelihood.
        delta_clip: in it log p_T - log p_S is limited to plus and minus this, nats.
    """

    name: str = field(init=False, default="gates")
    policy_weight: float = 0.1
    delta_clip: float = 1.0

    ranges: ClassVar[dict[str, Range]] = {
        "policy_weight": at_least(0),
        "delta_clip": over(0),
    }


def token_loss(signals: "Signals", settings: GatesSettings) -> "jax.Array":
    """`-log p_S` where the completion is the teacher's, else `-policy_weight clip(delta, -c, c) log p_S`, [B, T].

    One mean over all tokens. Problems on whose answer fewer than `consensus` of the teacher's completions agree do not
    count.
    """
    import jax.numpy as jnp

    bound = settings.delta_clip
    policy_BT = settings.policy_weight * jnp.clip(signals.delta_BT, -bound, bound)
    credit_BT = jnp.where(signals.demonstration_B[:, None], 1.0, policy_BT)
    return -signals.weight_B[:, None] * credit_BT * signals.student_logp_BT


METHOD = Method(
    order=52,
    title="GATES",
    description="GATES (arXiv 2602.20574)",
    arxiv="2602.20574",
    formula="`-log q(y)` on the teacher's completions, `-policy_weight clip(δ, ± c) log q(y)` on the student's; kept "
    "are problems on which `consensus` of the teacher's give one answer, by value",
    choices="c 1 nat; half of the completions are the student's; a frozen teacher; one mean over all tokens. With "
    "`--method.teacher current` it collapsed on the built-in task: consensus knows no truth, and the teacher came to "
    "agree with itself on wrong answers (8% correct after 60 steps)",
    settings=GatesSettings,
    token_loss=token_loss,
    samples_per_problem=16,
    writer="both",
)
