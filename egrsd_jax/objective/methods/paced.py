"""PACED (arXiv 2603.11178): a divergence, each completion weighted by its problem's pass rate."""

from dataclasses import dataclass, field

from egrsd_jax.objective.method import Method
from egrsd_jax.objective.methods.opsd import token_loss
from egrsd_jax.objective.settings import ClippedDivergenceSettings


@dataclass(frozen=True, kw_only=True)
class PacedSettings(ClippedDivergenceSettings):
    """As published, with forward KL.

    A completion's factor p^a (1 - p)^b is `Signals.weight_B`, made of `pace_right` and `pace_wrong` as in every method.
    """

    name: str = field(init=False, default="paced")
    entry_clip: float = 0.0
    pace_right: float = 1.0
    pace_wrong: float = 1.0


METHOD = Method(
    order=42,
    title="PACED",
    description="PACED (self-distillation paced by the pass rate, arXiv 2603.11178)",
    arxiv="2603.11178",
    formula="`p̂^a (1 - p̂)^b KL(p ‖ q)`, p̂ the pass rate of the problem, a and b `pace_right` and `pace_wrong`",
    choices="forward KL; `pace_right` and `pace_wrong` weight any other method that samples in the same way",
    settings=PacedSettings,
    token_loss=token_loss,
    samples_per_problem=8,
)
