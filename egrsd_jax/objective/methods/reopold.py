"""REOPOLD (arXiv 2603.11137): the teacher's opinion as a reward of every token, bounded below, on some tokens only."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from egrsd_jax.objective.method import Method
from egrsd_jax.objective.settings import KeptTokensSettings
from egrsd_jax.ranges import INSIDE_UNIT, Range, at_least

if TYPE_CHECKING:
    import jax

    from egrsd_jax.objective.signals import Signals


@dataclass(frozen=True, kw_only=True)
class ReopoldSettings(KeptTokensSettings):
    """As published.

    Args:
        mixture: lambda of REOPOLD, whose token rewards end below at log(lambda / (1 - lambda)).
        exploration_steps: steps in which REOPOLD keeps every token whose reward is not below that; after them it keeps
            the kept_share of highest student entropy.
    """

    name: str = field(init=False, default="reopold")
    mixture: float = 0.1
    exploration_steps: int = 50

    ranges: ClassVar[dict[str, Range]] = {
        "mixture": INSIDE_UNIT,
        "exploration_steps": at_least(0),
    }


def token_loss(signals: "Signals", settings: ReopoldSettings) -> "jax.Array":
    """`-1[kept] R log p_S`, R = max(delta, log(lambda / (1 - lambda))), [B, T].

    Kept are the tokens with delta not below that bound during the exploration steps, then the `kept_share` of the
    step's tokens with the highest student entropy. The mean is over all tokens, kept or not.
    """
    import jax.numpy as jnp

    least = jnp.log(jnp.float32(settings.mixture) / (1.0 - jnp.float32(settings.mixture)))
    exploring = signals.step < settings.exploration_steps
    is_unsure_BT = signals.student_entropy_BT >= signals.student_entropy_threshold
    kept_BT = jnp.where(exploring, signals.delta_BT >= least, is_unsure_BT)
    reward_BT = jnp.where(kept_BT, jnp.maximum(signals.delta_BT, least), 0.0)
    return -signals.weight_B[:, None] * reward_BT * signals.student_logp_BT


METHOD = Method(
    order=51,
    title="REOPOLD",
    description="REOPOLD (arXiv 2603.11137)",
    arxiv="2603.11137",
    formula="`-1[kept] max(δ, log(λ / (1 - λ))) log q(y)`; kept are all tokens above the bound for "
    "`exploration_steps`, then the `kept_share` of highest student entropy",
    choices="the mean is over all tokens, kept or not",
    settings=ReopoldSettings,
    token_loss=token_loss,
)
