"""Sign-TV (arXiv 2609.08341): on-policy distillation that keeps of delta its sign alone."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from egrsd_jax.objective.method import WHOLE_SAMPLING, Method
from egrsd_jax.objective.settings import TeacherSettings

if TYPE_CHECKING:
    import jax

    from egrsd_jax.objective.signals import Signals


@dataclass(frozen=True, kw_only=True)
class SignSettings(TeacherSettings):
    """As published, but for the teacher, which is the initial model with the reference."""

    name: str = field(init=False, default="sign")


def token_loss(signals: "Signals", settings: SignSettings) -> "jax.Array":
    """`-sign(delta) log p_S`, [B, T]: in expectation it lowers the total variation of student and teacher."""
    import jax.numpy as jnp

    del settings
    return -signals.weight_B[:, None] * jnp.sign(signals.delta_BT) * signals.student_logp_BT


METHOD = Method(
    order=53,
    title="sign(δ)",
    description="on-policy distillation with the sign of the log-ratio alone (Sign-TV, arXiv 2609.08341)",
    arxiv="2609.08341",
    formula="`-sign(δ) log q(y)`",
    choices="the teacher is the initial model with the reference, where the paper's is another model; without the "
    "paper's scale, which follows the distance of the two",
    settings=SignSettings,
    token_loss=token_loss,
    sampling=WHOLE_SAMPLING,
)
