"""A run's configuration and what it learned, read again from its folder: for evaluation, sampling, analysis, export."""

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import jax
from jax.sharding import SingleDeviceSharding
from orbax.checkpoint import v1 as ocp

from egrsd_jax.command_line import load_config
from egrsd_jax.config import Config
from egrsd_jax.model.config import ModelConfig
from egrsd_jax.model.decoder import Params, abstract_params
from egrsd_jax.model.hf.checkpoint_names import named_leaves
from egrsd_jax.model.lora import init_lora
from egrsd_jax.runs.layout import CHECKPOINTS, CONFIG

What = Literal["merged", "adapter"]


def read_run(run: Path, what: What) -> Config:
    """A run's configuration. Raises FileNotFoundError where the folder is no run's, ValueError where it has no adapter
    and `what` asks for one."""
    if not (run / CONFIG).is_file():
        raise FileNotFoundError(
            f"{run} is not a run's folder: it has no {CONFIG}; `egrsd train` leaves one in runs/NAME"
        )
    config = load_config(run / CONFIG)
    if what == "adapter" and config.lora.rank == 0:
        raise ValueError(f"{run} trained all weights (lora.rank 0) and has no adapter; export it as merged")
    return config


def read_trainable(
    run: Path,
    config: Config,
    model: ModelConfig,
    step: int | None,
    *,
    part: Literal["trainable", "teacher"] = "trainable",
) -> tuple[int, Params]:
    """What the optimizer changed, float32, of one checkpoint, and its step. Nothing else of the checkpoint is read.

    `part` may be the `teacher` instead, where the run keeps weights of its own for it (`ema` and `copy`).
    """
    folder = run / CHECKPOINTS
    if not folder.is_dir():
        raise FileNotFoundError(f"{run} has no checkpoints; a run leaves its first one at train.checkpoint_every")
    context = ocp.Context()
    context.pytree.loading.partial_load = True
    training: Any = ocp.training
    with training.Checkpointer(folder.absolute(), context=context) as checkpointer:
        steps = [checkpoint.step for checkpoint in checkpointer.checkpoints]
        if not steps:
            raise FileNotFoundError(f"{folder} has no whole checkpoint; a run leaves one every train.checkpoint_every")
        if step is not None and step not in steps:
            raise ValueError(f"{run} has no checkpoint of step {step}; it has {', '.join(map(str, steps))}")
        chosen = steps[-1] if step is None else step
        kept = checkpointer.metadata(chosen)
        abstract = _abstract_trainable(config, model)
        _check_made_by(run, config, kept.custom_metadata)
        _check_shapes(run, abstract, kept.metadata[part])
        return chosen, checkpointer.load(chosen, {part: abstract})[part]


def _abstract_trainable(config: Config, model: ModelConfig) -> Params:
    here = SingleDeviceSharding(jax.local_devices()[0])
    if config.lora.rank == 0:
        abstract = abstract_params(model)
    else:
        rank, alpha = config.lora.rank, config.lora.alpha
        abstract = jax.eval_shape(lambda key: init_lora(key, model, rank=rank, alpha=alpha), jax.random.key(0)).layers
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), abstract)


def _check_made_by(run: Path, config: Config, kept: Any) -> None:
    """The checkpoint holds the settings that made it, but for those that came later; config.yaml can be edited."""
    for section, settings in (("model", {"path": config.model.path}), ("lora", asdict(config.lora))):
        for name, value in settings.items():
            if (was := kept[section].get(name, value)) != value:
                raise ValueError(f"{run / CONFIG}: {section}.{name} is {value!r}, but it was {was!r} in training")


def _check_shapes(run: Path, abstract: Params, kept: Any) -> None:
    stored = {name: tuple(leaf.shape) for name, leaf in named_leaves(kept)}
    wanted = {name: leaf.shape for name, leaf in named_leaves(abstract)}
    for name in sorted(stored.keys() | wanted.keys()):
        if stored.get(name) != wanted.get(name):
            raise ValueError(
                f"{run}: the checkpoint has {name} of shape {stored.get(name)}, which is {wanted.get(name)} for the "
                "model that is in model.path now; it is not the one that the run started from"
            )
