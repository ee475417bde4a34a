"""Dr.GRPO (arXiv 2503.20783): GRPO without its division by the group's deviation and by the sequence's length."""

from dataclasses import dataclass, field
from typing import Literal

from egrsd_jax.objective.method import WHOLE_SAMPLING, Method
from egrsd_jax.objective.methods.grpo_group import token_loss
from egrsd_jax.objective.settings import GroupSettings


@dataclass(frozen=True, kw_only=True)
class DrGrpoSettings(GroupSettings):
    """As published."""

    name: str = field(init=False, default="dr_grpo")
    reduction: Literal["token", "sequence", "constant"] = "constant"


METHOD = Method(
    order=32,
    title="Dr.GRPO",
    description="Dr.GRPO (arXiv 2503.20783)",
    arxiv="2503.20783",
    formula="the same, A = r - mean, sum over tokens / `max_new_tokens`",
    settings=DrGrpoSettings,
    token_loss=token_loss,
    advantage="group_centred",
    samples_per_problem=8,
    sampling=WHOLE_SAMPLING,
)
