"""EGRSD and CL-EGRSD in JAX: entropy-guided, reward-grounded on-policy self-distillation (arXiv 2605.13255).

Every public name is imported when it is first used: the grading workers and `--help` never pay for jax.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.2.0.dev0"

if TYPE_CHECKING:  # the names as a type checker and an editor see them
    from egrsd_jax.model.config import ModelConfig as ModelConfig
    from egrsd_jax.model.decoder import forward as forward
    from egrsd_jax.model.decoder import output_head as output_head
    from egrsd_jax.model.hf.hub import load_pretrained as load_pretrained
    from egrsd_jax.model.hf.hub import save_pretrained as save_pretrained
    from egrsd_jax.objective.gate import entropy_gate as entropy_gate
    from egrsd_jax.objective.gate import entropy_maximum as entropy_maximum
    from egrsd_jax.objective.gate import lookahead_min as lookahead_min
    from egrsd_jax.objective.losses import egrsd_loss as egrsd_loss
    from egrsd_jax.objective.losses import grpo_loss as grpo_loss
    from egrsd_jax.objective.losses import ratio_weight as ratio_weight
    from egrsd_jax.objective.methods import METHODS as METHODS
    from egrsd_jax.objective.methods import method_settings as method_settings
    from egrsd_jax.objective.reward import RunningMoments as RunningMoments
    from egrsd_jax.objective.reward import group_advantage as group_advantage
    from egrsd_jax.objective.reward import init_moments as init_moments
    from egrsd_jax.objective.reward import shaped_reward as shaped_reward
    from egrsd_jax.objective.reward import update_moments as update_moments
    from egrsd_jax.objective.reward import whiten as whiten
    from egrsd_jax.objective.settings import MethodSettings as MethodSettings
    from egrsd_jax.objective.signals import Signals as Signals
    from egrsd_jax.ops.divergences import token_divergence as token_divergence
    from egrsd_jax.ops.divergences import top_k_divergence as top_k_divergence
    from egrsd_jax.ops.scores import TokenScores as TokenScores
    from egrsd_jax.ops.scores import token_scores as token_scores
    from egrsd_jax.ops.top_tokens import token_logps as token_logps
    from egrsd_jax.ops.top_tokens import top_tokens as top_tokens
    from egrsd_jax.verify.extract import extract_answer as extract_answer
    from egrsd_jax.verify.grade import grade as grade

_HOME_OF = {
    "METHODS": "objective.methods",
    "MethodSettings": "objective.settings",
    "ModelConfig": "model.config",
    "RunningMoments": "objective.reward",
    "Signals": "objective.signals",
    "TokenScores": "ops.scores",
    "egrsd_loss": "objective.losses",
    "entropy_gate": "objective.gate",
    "entropy_maximum": "objective.gate",
    "extract_answer": "verify.extract",
    "forward": "model.decoder",
    "grade": "verify.grade",
    "group_advantage": "objective.reward",
    "grpo_loss": "objective.losses",
    "init_moments": "objective.reward",
    "load_pretrained": "model.hf.hub",
    "lookahead_min": "objective.gate",
    "method_settings": "objective.methods",
    "output_head": "model.decoder",
    "ratio_weight": "objective.losses",
    "save_pretrained": "model.hf.hub",
    "shaped_reward": "objective.reward",
    "token_divergence": "ops.divergences",
    "token_logps": "ops.top_tokens",
    "token_scores": "ops.scores",
    "top_k_divergence": "ops.divergences",
    "top_tokens": "ops.top_tokens",
    "update_moments": "objective.reward",
    "whiten": "objective.reward",
}

__all__ = sorted(_HOME_OF)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str):
    if name not in _HOME_OF:
        raise AttributeError(f"module 'egrsd_jax' has no attribute {name!r}; its public names are {', '.join(__all__)}")
    return getattr(import_module(f"egrsd_jax.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
