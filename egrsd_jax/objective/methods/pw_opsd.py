"""PW-OPSD (arXiv 2605.21606): OPSD weighted by the token's position in its completion."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from egrsd_jax.objective.method import Method
from egrsd_jax.objective.settings import ClippedDivergenceSettings

if TYPE_CHECKING:
    import jax

    from egrsd_jax.objective.signals import Signals


@dataclass(frozen=True, kw_only=True)
class PwOpsdSettings(ClippedDivergenceSettings):
    """As published; the mean is taken per sequence first."""

    name: str = field(init=False, default="pw_opsd")
    reduction: Literal["token", "sequence", "constant"] = "sequence"


def token_loss(signals: "Signals", settings: PwOpsdSettings) -> "jax.Array":
    """OPSD's divergence times `position_weight`, [B, T]."""
    del settings
    return position_weight(signals.mask_BT) * signals.weight_B[:, None] * signals.divergence_BT


def position_weight(mask_BT: "jax.Array") -> "jax.Array":
    """`0.25 + 0.75 sigmoid((t / T - 0.30) / 0.10)` at token t = 1..T of each completion, [B, T]."""
    import jax
    import jax.numpy as jnp

    from egrsd_jax.ops.masked import masked_count

    position_BT = jnp.cumsum(mask_BT, axis=1).astype(jnp.float32)
    share_BT = position_BT / jnp.maximum(masked_count(mask_BT, axis=1), 1.0)[:, None]
    return 0.25 + 0.75 * jax.nn.sigmoid((share_BT - 0.30) / 0.10)


METHOD = Method(
    order=41,
    title="PW-OPSD",
    description="PW-OPSD (on-policy self-distillation weighted by position, arXiv 2605.21606)",
    arxiv="2605.21606",
    formula="the same times `0.25 + 0.75 σ((t/T - 0.30) / 0.10)`",
    settings=PwOpsdSettings,
    token_loss=token_loss,
)
