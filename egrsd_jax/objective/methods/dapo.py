"""DAPO (arXiv 2503.14476): GRPO with a wider upper clip, a mean over tokens, and dynamic filtering."""

from dataclasses import dataclass, field

from egrsd_jax.objective.method import WHOLE_SAMPLING, Method
from egrsd_jax.objective.methods.grpo_group import token_loss
from egrsd_jax.objective.settings import GroupSettings


@dataclass(frozen=True, kw_only=True)
class DapoSettings(GroupSettings):
    """As published; the upper clip does not follow the lower one."""

    name: str = field(init=False, default="dapo")
    epsilon_high: float = 0.28


METHOD = Method(
    order=33,
    title="DAPO",
    description="DAPO (arXiv 2503.14476)",
    arxiv="2503.14476",
    formula="the same; problems that all or none of the completions solve are dropped",
    choices="dropped problems are not sampled again, so a step has fewer tokens",
    settings=DapoSettings,
    token_loss=token_loss,
    advantage="group",
    samples_per_problem=8,
    sampling=WHOLE_SAMPLING,
    mixed_groups_only=True,
)
