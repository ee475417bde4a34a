"""SSD (arXiv 2604.01193): supervised learning of the initial model's own samples."""

from dataclasses import dataclass, field

from egrsd_jax.objective.method import Method
from egrsd_jax.objective.methods.sft import token_loss
from egrsd_jax.objective.settings import MethodSettings


@dataclass(frozen=True, kw_only=True)
class SsdSettings(MethodSettings):
    """Nothing of its own."""

    name: str = field(init=False, default="ssd")


METHOD = Method(
    order=61,
    title="SSD",
    description="supervised learning of the base model's own samples (SSD, arXiv 2604.01193)",
    arxiv="2604.01193",
    formula="`-log q(y)`, y sampled by the initial model",
    choices="with the rollout's temperature and truncation",
    settings=SsdSettings,
    token_loss=token_loss,
    writer="initial",
)
