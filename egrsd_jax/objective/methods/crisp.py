"""CRISP (arXiv 2603.05433): reverse KL to the same model asked to be concise, without a reference."""

from dataclasses import dataclass, field

from egrsd_jax.objective.method import Method
from egrsd_jax.objective.methods.opsd import token_loss
from egrsd_jax.objective.settings import DivergenceSettings, Privilege


@dataclass(frozen=True, kw_only=True)
class CrispSettings(DivergenceSettings):
    """As published, but for the teacher's weights, which stay the initial ones."""

    name: str = field(init=False, default="crisp")
    privilege: Privilege = "concise"
    beta: float = 1.0


METHOD = Method(
    order=43,
    title="CRISP",
    description="CRISP (self-distillation of a concise teacher, arXiv 2603.05433)",
    arxiv="2603.05433",
    formula="`KL(q ‖ p)`, p asked to be concise, without a reference",
    choices="frozen teacher, in the student's thinking mode; `--method.teacher copy` is the refreshed one",
    settings=CrispSettings,
    token_loss=token_loss,
)
