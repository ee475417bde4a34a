"""CL-EGRSD (arXiv 2605.13255): EGRSD whose gate reads the least entropy of the tokens just ahead."""

from dataclasses import dataclass, field
from typing import ClassVar

from egrsd_jax.objective.method import Method
from egrsd_jax.objective.methods.egrsd import token_loss, token_weight
from egrsd_jax.objective.settings import GateSettings
from egrsd_jax.ranges import Range, at_least


@dataclass(frozen=True, kw_only=True)
class ClEgrsdSettings(GateSettings):
    """The paper's for Qwen3-4B; for Qwen3-8B it has gamma 1.0 and window 5."""

    name: str = field(init=False, default="cl_egrsd")
    window: int = 3

    ranges: ClassVar[dict[str, Range]] = {"window": at_least(1).noted("a window of 0 is egrsd")}


METHOD = Method(
    order=11,
    title="CL-EGRSD",
    description="CL-EGRSD (entropy-guided reinforced self-distillation with causal lookahead, arXiv 2605.13255)",
    arxiv="2605.13255",
    formula="the same, `H` the least of the next W + 1 tokens",
    choices="Qwen3-8B: γ 1.0, W 5",
    settings=ClEgrsdSettings,
    token_loss=token_loss,
    token_weight=token_weight,
)
