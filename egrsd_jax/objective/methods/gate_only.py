"""The sign-only control of EGRSD's paper (arXiv 2605.13255): the reward's direction and the gate, without the ratio."""

from dataclasses import dataclass, field

from egrsd_jax.objective.method import Method
from egrsd_jax.objective.methods.egrsd import token_loss, token_weight
from egrsd_jax.objective.settings import GateSettings


@dataclass(frozen=True, kw_only=True)
class GateOnlySettings(GateSettings):
    """EGRSD's with the ratio's clip closed, so that every w is 1."""

    name: str = field(init=False, default="gate_only")
    epsilon: float = field(init=False, default=0.0)


METHOD = Method(
    order=13,
    title="w = 1 (gate alone)",
    description="EGRSD without its likelihood ratio (arXiv 2605.13255)",
    arxiv="2605.13255",
    formula="`-A ω log q(y)`: `egrsd` with w = 1",
    settings=GateOnlySettings,
    token_loss=token_loss,
    token_weight=token_weight,
)
