"""SFT: supervised learning of the reference solutions. Nothing is sampled."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from egrsd_jax.objective.method import Method
from egrsd_jax.objective.settings import MethodSettings

if TYPE_CHECKING:
    import jax

    from egrsd_jax.objective.signals import Signals


@dataclass(frozen=True, kw_only=True)
class SftSettings(MethodSettings):
    """Nobody tries a problem, so there is no pass rate to weight it by."""

    name: str = field(init=False, default="sft")
    pace_right: float = field(init=False, default=0.0)
    pace_wrong: float = field(init=False, default=0.0)


def token_loss(signals: "Signals", settings: MethodSettings) -> "jax.Array":
    """`-log p_S` of every token, times what its completion counts, [B, T]."""
    del settings
    return -signals.weight_B[:, None] * signals.student_logp_BT


METHOD = Method(
    order=60,
    title="SFT",
    description="supervised learning of the reference solutions, with none of its own completions",
    arxiv=None,
    formula="`-log q(y)`, y the reference solution",
    choices="nothing is sampled; solutions over `rollout.max_new_tokens` are skipped and counted, so raise it for long "
    "ones",
    settings=SftSettings,
    token_loss=token_loss,
    writer="reference",
)
