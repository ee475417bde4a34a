"""Student and teacher at one step of a run, or of a model with an adapter or without."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import jax
from jax.sharding import Mesh

from egrsd_jax.config import Config
from egrsd_jax.evaluate import settings as evaluation
from egrsd_jax.evaluate.policies import load_policy
from egrsd_jax.model.config import ModelConfig, read_config
from egrsd_jax.model.decoder import Params, pad_vocabulary
from egrsd_jax.model.hf.hub import load_pretrained, resolve_folder
from egrsd_jax.model.sharding import TENSOR, tree_shardings
from egrsd_jax.objective.settings import teacher_mix, teacher_schedule
from egrsd_jax.policy import Policy, initial, student
from egrsd_jax.runs import checksums
from egrsd_jax.runs.layout import CHECKPOINTS
from egrsd_jax.runs.restore import read_trainable
from egrsd_jax.train.state import mixed

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Models:
    """Both policies on a mesh, and what goes with them."""

    label: str
    mesh: Mesh
    config: ModelConfig
    student: Policy
    teacher: Policy
    tokenizer: "PreTrainedTokenizerBase"
    stop_ids: tuple[int, ...]


def load_models(config: Config, mesh: Mesh, *, run: Path | None, step: int, adapter: Path | None = None) -> Models:
    """The policies of a run after `step` gradient steps, or of `config.model` with an adapter on it.

    Before its first step a run is its base model, and needs no checkpoint. The teacher is what the method's schedule
    says; for a method that has none, and for a model without a run, the base weights.
    Raises ValueError or OSError of one line for whatever prevents it.
    """
    if run is None or step == 0:
        if config.lora.path is not None:
            adapter = Path(config.lora.path)
        asked = evaluation.Settings(model=config.model.path, adapter=adapter, dtype=config.model.param_dtype)
        loaded = load_policy(asked, mesh)
        policy = loaded.weights
        base = policy.params
        privileged = policy if config.lora.path is not None else initial(base)
    else:
        loaded = load_policy(evaluation.Settings(run=run, step=step, base=config.model.path), mesh)
        policy = loaded.weights
        base = policy.params if config.lora.rank else _base(config, mesh)
        privileged = _teacher(config, mesh, policy, base, run, step)
    return Models(
        label=loaded.label if run is None else f"{run.resolve().name} step {step}",
        mesh=mesh,
        config=loaded.model.replace(dtype=config.model.dtype),
        student=policy,
        teacher=privileged,
        tokenizer=loaded.tokenizer,
        stop_ids=loaded.stop_ids,
    )


def checkpoint_steps(run: Path) -> list[int]:
    """The steps whose checkpoints a run has, oldest first; a half-written one is none."""
    return checksums.checkpoint_steps(run / CHECKPOINTS)


def _base(config: Config, mesh: Mesh) -> Params:
    return load_pretrained(config.model.path, mesh=mesh, dtype=config.model.param_dtype)[1]


def _teacher(config: Config, mesh: Mesh, now: Policy, base: Params, run: Path, step: int) -> Policy:
    """The weights that the teacher of the next step scores with."""
    schedule = teacher_schedule(config.method)
    mix = teacher_mix(config.method)
    if schedule == "current":
        return mixed(now, base, mix)
    if schedule in ("ema", "copy", "earned") or config.lora.path is not None:
        model = read_config(resolve_folder(config.model.path))
        _, kept = read_trainable(run.absolute(), config, model, step, part="teacher")
        kept = pad_vocabulary(kept, model.divided_over(mesh.shape[TENSOR]))
        return mixed(student(jax.device_put(kept, tree_shardings(kept, mesh)), base, config.lora), base, mix)
    return initial(base)
