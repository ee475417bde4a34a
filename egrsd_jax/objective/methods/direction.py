"""The direction-aware baseline of EGRSD's paper (arXiv 2605.13255): EGRSD without its gate."""

from dataclasses import dataclass, field

from egrsd_jax.objective.method import Method
from egrsd_jax.objective.methods.egrsd import token_loss, token_weight
from egrsd_jax.objective.settings import GateSettings


@dataclass(frozen=True, kw_only=True)
class DirectionSettings(GateSettings):
    """EGRSD's with the gate fixed at 1. What entropy is divided by still decides the regimes that a step logs."""

    name: str = field(init=False, default="direction")
    gamma: float = field(init=False, default=0.0)
    gate: str = field(init=False, default="entropy")
    signal: str = field(init=False, default="teacher_entropy")
    gate_direction: str = field(init=False, default="down")
    agreement: float = field(init=False, default=1.0)


METHOD = Method(
    order=12,
    title="γ = 0",
    description="EGRSD without its entropy gate (arXiv 2605.13255)",
    arxiv="2605.13255",
    formula="the same with γ = 0",
    settings=DirectionSettings,
    token_loss=token_loss,
    token_weight=token_weight,
)
