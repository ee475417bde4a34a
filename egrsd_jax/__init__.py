"""EGRSD and CL-EGRSD in JAX: entropy-guided, reward-grounded on-policy self-distillation (arXiv 2605.13255).

Every public name is imported when it is first used: the grading workers and `--help` never pay for jax.
"""

from importlib import import_module

__version__ = "0.1.0"

_HOME_OF = {
    "lookahead_min": "objective.gate",
    "entropy_gate": "objective.gate",
    "ratio_weight": "objective.losses",
    "egrsd_loss": "objective.losses",
    "grpo_loss": "objective.losses",
    "METHODS": "objective.methods",
    "Signals": "objective.methods",
    "MethodSettings": "objective.settings",
    "shaped_reward": "objective.reward",
    "RunningMoments": "objective.reward",
    "init_moments": "objective.reward",
    "update_moments": "objective.reward",
    "whiten": "objective.reward",
    "group_advantage": "objective.reward",
    "token_scores": "ops.scores",
    "TokenScores": "ops.scores",
    "token_divergence": "ops.divergences",
    "top_k_divergence": "ops.divergences",
    "top_tokens": "ops.top_tokens",
    "token_logps": "ops.top_tokens",
    "ModelConfig": "model.config",
    "load_pretrained": "model.hf.hub",
    "save_pretrained": "model.hf.hub",
    "forward": "model.decoder",
    "output_head": "model.decoder",
    "extract_answer": "verify.extract",
    "grade": "verify.grade",
}

__all__ = sorted(_HOME_OF)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str):
    if name not in _HOME_OF:
        raise AttributeError(f"module 'egrsd_jax' has no attribute {name!r}; its public names are {', '.join(__all__)}")
    return getattr(import_module(f"egrsd_jax.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
