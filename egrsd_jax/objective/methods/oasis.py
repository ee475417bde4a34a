"""OASIS (arXiv 2609.37915): OPSD on correct completions alone, its teacher reading another attempt."""

from dataclasses import dataclass, field

from egrsd_jax.objective.method import Method
from egrsd_jax.objective.methods.opsd import token_loss
from egrsd_jax.objective.settings import ClippedDivergenceSettings, Privilege


@dataclass(frozen=True, kw_only=True)
class OasisSettings(ClippedDivergenceSettings):
    """As published: OPSD's loss, with its clip."""

    name: str = field(init=False, default="oasis")
    privilege: Privilege = "attempt"


METHOD = Method(
    order=42,
    title="OASIS",
    description="OASIS (self-distillation on correct completions, arXiv 2609.37915)",
    arxiv="2609.37915",
    formula="`opsd`'s, of each problem on the shortest correct completion alone; p reads another attempt at it, the "
    "shortest wrong one where there is any; problems without a correct one do not count",
    choices="every problem that is solved counts, where the paper takes at most 32 of 64 a step",
    settings=OasisSettings,
    token_loss=token_loss,
    samples_per_problem=8,
    shortest_correct_only=True,
)
