"""A run's configuration and what it learned, read again from its folder: for evaluation, sampling, analysis, export."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import SingleDeviceSharding
from orbax.checkpoint import v1 as ocp

from egrsd_jax.command_line import load_config
from egrsd_jax.config import Config
from egrsd_jax.model.config import ModelConfig
from egrsd_jax.model.decoder import Params, abstract_params
from egrsd_jax.model.hf.checkpoint_names import named_leaves
from egrsd_jax.model.hf.hub import resolve_folder
from egrsd_jax.model.lora import init_lora
from egrsd_jax.runs import checksums, fingerprint
from egrsd_jax.runs.files import read_json
from egrsd_jax.runs.layout import CHECKPOINTS, CONFIG, FINGERPRINTS

What = Literal["merged", "adapter"]

TABLES = ("embed_tokens", "lm_head")
MOST_PADDING = 1024  # rows: a tensor axis has fewer devices


def read_run(run: Path, what: What, *, base: str | None = None) -> Config:
    """A run's configuration, with `base` as the path of its model where that was moved.

    Raises FileNotFoundError where the folder is no run's, ValueError where it has no adapter and `what` asks for one.
    That the model is the run's is checked with its checkpoint.
    """
    if not (run / CONFIG).is_file():
        raise FileNotFoundError(
            f"{run} is not a run's folder: it has no {CONFIG}; `egrsd train` leaves one in runs/NAME"
        )
    config = load_config(run / CONFIG)
    if what == "adapter" and config.lora.rank == 0:
        raise ValueError(f"{run} trained all weights (lora.rank 0) and has no adapter; export it as merged")
    return config if base is None else replace(config, model=replace(config.model, path=base))


def base_folder(run: Path, config: Config) -> Path:
    """The folder of a run's base model. Raises FileNotFoundError that says how a run follows a model that was moved."""
    try:
        return resolve_folder(config.model.path)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{error}; if the model of {run} was moved, say where it is now: --base of export, evaluate, sample, "
            f"analyze and view, --model.path of train, or path under model in {run / CONFIG}"
        ) from None


def read_trainable(
    run: Path,
    config: Config,
    model: ModelConfig,
    step: int | None,
    *,
    part: Literal["trainable", "teacher"] = "trainable",
) -> tuple[int, Params]:
    """What the optimizer changed, float32, of one checkpoint, and its step. Nothing else of the checkpoint is read.

    `part` may be the `teacher` instead, where the run keeps weights of its own for it (`ema`, `copy` and `earned`).
    """
    chosen = whole_step(run, step)
    folder = run / CHECKPOINTS
    context = ocp.Context()
    context.pytree.loading.partial_load = True
    training: Any = ocp.training
    with _readable(folder / str(chosen)):
        checkpointer = training.Checkpointer(folder.absolute(), context=context)
        kept = checkpointer.metadata(chosen)
        settings, stored = kept.custom_metadata, kept.metadata[part]
    abstract = _abstract_trainable(config, model.replace(vocabulary_padding=_padding(stored, model)))
    with checkpointer:
        _check_made_by(run, config, settings)
        within = part == "teacher" and "watch" in stored  # the weights have how training went next to them
        _check_shapes(run, abstract, stored["weights"] if within else stored)
        with _readable(folder / str(chosen)):
            loaded = checkpointer.load(chosen, {part: {"weights": abstract} if within else abstract})[part]
            trainable = loaded["weights"] if within else loaded
    for name, leaf in named_leaves(trainable):
        if not np.isfinite(np.asarray(leaf)).all():
            raise ValueError(
                f"{folder / str(chosen)}: {name} has values that are not finite; take the --step of another checkpoint"
            )
    return chosen, _without_padding(trainable, model)


def _padding(stored: Params, model: ModelConfig) -> int:
    """Rows of zeros that a mesh's tensor axis added to the vocabulary's in a checkpoint of all weights."""
    tables = [stored[name]["weight"].shape[0] - model.vocab_size for name in TABLES if name in stored]
    return tables[0] if tables and 0 < tables[0] < MOST_PADDING else 0


def _without_padding(trainable: Params, model: ModelConfig) -> Params:
    """Tables of the vocabulary's own rows, as a model's folder has them."""
    cut = {name: {"weight": trainable[name]["weight"][: model.vocab_size]} for name in TABLES if name in trainable}
    return {**trainable, **cut}


def whole_step(run: Path, step: int | None) -> int:
    """The step of a run's newest checkpoint, or `step` itself, once its files are what was written.

    Raises FileNotFoundError or ValueError, one line: no checkpoint, none of this step, or a damaged one.
    """
    folder = run / CHECKPOINTS
    if not folder.is_dir():
        raise FileNotFoundError(f"{run} has no checkpoints; a run leaves its first one at train.checkpoint_every")
    if not (steps := checksums.recorded_steps(folder)):
        raise FileNotFoundError(f"{folder} has no whole checkpoint; a run leaves one every train.checkpoint_every")
    if step is not None and step not in steps:
        raise ValueError(f"{run} has no checkpoint of step {step}; it has {', '.join(map(str, steps))}")
    chosen = steps[-1] if step is None else step
    if (what := checksums.damage(folder, chosen)) is not None:
        others = [str(other) for other in steps if other != chosen and checksums.damage(folder, other) is None]
        fix = f"put it back, or take another with --step: {', '.join(others)}" if others else "put it back"
        raise ValueError(f"the checkpoint of step {chosen} is damaged: {what}; {fix}")
    return chosen


@contextmanager
def _readable(checkpoint: Path) -> Iterator[None]:
    """Whatever orbax and tensorstore raise over a checkpoint is a ValueError of one line."""
    try:
        yield
    except Exception as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0][:200]
        raise ValueError(
            f"the checkpoint {checkpoint} cannot be read ({reason}); put it back, or take another with --step"
        ) from error


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
    lora = {name: value for name, value in asdict(config.lora).items() if name != "path"}
    for section, settings in (("model", {"path": config.model.path}), ("lora", lora)):
        for name, value in settings.items():
            if (was := kept[section].get(name, value)) == value or (section == "model" and _is_its_model(run, config)):
                continue
            raise ValueError(f"{run / CONFIG}: {section}.{name} is {value!r}, but it was {was!r} in training")


def _is_its_model(run: Path, config: Config) -> bool:
    """Whether the weights that are at `model.path` now are those that the run was begun with."""
    file = run / FINGERPRINTS
    was = read_json(file).get("weights") if file.is_file() else None
    return was is not None and fingerprint.is_of_weights(base_folder(run, config), was)


def _check_shapes(run: Path, abstract: Params, kept: Any) -> None:
    stored = {name: tuple(leaf.shape) for name, leaf in named_leaves(kept)}
    wanted = {name: leaf.shape for name, leaf in named_leaves(abstract)}
    for name in sorted(stored.keys() | wanted.keys()):
        if stored.get(name) != wanted.get(name):
            raise ValueError(
                f"{run}: the checkpoint has {name} of shape {stored.get(name)}, which is {wanted.get(name)} for the "
                "model that is in model.path now; it is not the one that the run started from"
            )
