"""The control of OPSA's paper (arXiv 2608.31046): one negative advantage for the least likely tokens, no teacher."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from egrsd_jax.objective.method import WHOLE_SAMPLING, Method
from egrsd_jax.objective.settings import LowestTokensSettings
from egrsd_jax.ranges import Range

if TYPE_CHECKING:
    import jax

    from egrsd_jax.objective.signals import Signals


@dataclass(frozen=True, kw_only=True)
class FixedNegativeSettings(LowestTokensSettings):
    """As released.

    Args:
        fixed_advantage: of every token that counts.
    """

    name: str = field(init=False, default="fixed_negative")
    fixed_advantage: float = -0.5

    ranges: ClassVar[dict[str, Range]] = {"fixed_advantage": Range(-1, 1)}


def token_loss(signals: "Signals", settings: FixedNegativeSettings) -> "jax.Array":
    """`-fixed_advantage log p_S` of the `lowest_share` of the step's tokens, [B, T]; the mean is over these alone."""
    factor_BT = settings.fixed_advantage * signals.weight_B[:, None] * signals.lowest_BT
    return -factor_BT * signals.student_logp_BT


METHOD = Method(
    order=54,
    title="fixed negative",
    description="a fixed negative advantage for the least likely tokens (arXiv 2608.31046)",
    arxiv="2608.31046",
    formula="`-a log q(y)`, a `fixed_advantage`, over the `lowest_share` of the step's tokens with the lowest log q(y)",
    choices="the lowest of the whole step, where the released code takes those of each device",
    settings=FixedNegativeSettings,
    token_loss=token_loss,
    sampling=WHOLE_SAMPLING,
)
