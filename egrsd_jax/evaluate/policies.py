"""The policy that is evaluated: a model, a model with an adapter, a checkpoint of a training run, or a server's."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import numpy as np
from jax.sharding import Mesh

from egrsd_jax.config import PromptSettings
from egrsd_jax.data.tokenizer import FILES_BESIDE_WEIGHTS, load_tokenizer
from egrsd_jax.evaluate.settings import Settings
from egrsd_jax.model.config import ModelConfig, read_config
from egrsd_jax.model.decoder import pad_vocabulary
from egrsd_jax.model.hf.checkpoint_files import weight_files
from egrsd_jax.model.hf.checkpoint_names import named_leaves
from egrsd_jax.model.hf.hub import BUILT_IN, load_pretrained, resolve_folder
from egrsd_jax.model.hf.peft import CONFIG, WEIGHTS, load_adapter
from egrsd_jax.model.sharding import TENSOR, tree_shardings
from egrsd_jax.policy import Policy, student
from egrsd_jax.rollout.http.engine import API_KEY, IN_FLIGHT, HttpEngine
from egrsd_jax.rollout.http.server import ANSWER_TIMEOUT, WAITS
from egrsd_jax.runs.restore import base_folder, read_run, read_trainable

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

READ_AT_A_TIME = 2**22  # bytes


@dataclass(frozen=True)
class LoadedPolicy:
    """A policy, ready to run: its weights, or the server that has them.

    `base` is the model as it was named, `hash` a SHA-256 of everything that a completion depends on: configuration,
    weights, tokenizer; with a server, its names are hashed in place of the weights. `prompt` is what a run's prompts
    were made with, None for other models.
    """

    label: str
    base: str
    hash: str
    dtype: str
    model: ModelConfig
    policy: Policy | HttpEngine
    tokenizer: "PreTrainedTokenizerBase"
    stop_ids: tuple[int, ...]
    prompt: PromptSettings | None

    @property
    def weights(self) -> Policy:
        """The policy's own weights. Raises ValueError for one that a server holds."""
        if isinstance(self.policy, HttpEngine):
            raise ValueError(
                f"{self.label} is held by a server, which does not give its weights; name the model's folder"
            )
        return self.policy


def built_in_model(settings: Settings) -> str | None:
    """The built-in model that is evaluated, trained further or not; None for any other."""
    path = settings.model if settings.run is None else read_run(settings.run, "merged", base=settings.base).model.path
    return path if path in BUILT_IN else None


def load_policy(settings: Settings, mesh: Mesh) -> LoadedPolicy:
    """Reads what is to be evaluated into the shards of a mesh.

    Raises ValueError or OSError of one line for whatever prevents it.
    """
    if settings.server is not None:
        return _load_served(settings, settings.server)
    return _load_model(settings, mesh) if settings.run is None else _load_run(settings, settings.run, mesh)


def _load_model(settings: Settings, mesh: Mesh) -> LoadedPolicy:
    folder = resolve_folder(settings.model)
    dtype = settings.dtype or ("float32" if settings.model in BUILT_IN else "bfloat16")
    tokenizer, stop_ids = load_tokenizer(folder)
    model, params = load_pretrained(folder, mesh=mesh, dtype=dtype)
    digest = _model_digest(folder)
    lora = None
    label = Path(settings.model).resolve().name
    if settings.adapter is not None:
        lora = load_adapter(settings.adapter, model, mesh=mesh)
        _add_files(digest, [settings.adapter / CONFIG, settings.adapter / WEIGHTS])
        label = f"{label} with {settings.adapter.resolve().name}"
    return LoadedPolicy(
        label=label,
        base=settings.model,
        hash=digest.hexdigest(),
        dtype=dtype,
        model=model.replace(dtype=dtype),
        policy=Policy(params, lora),
        tokenizer=tokenizer,
        stop_ids=stop_ids,
        prompt=None,
    )


def _load_run(settings: Settings, run: Path, mesh: Mesh) -> LoadedPolicy:
    config = read_run(run, "merged", base=settings.base)
    folder = base_folder(run, config)
    tokenizer, stop_ids = load_tokenizer(folder)
    model = read_config(folder)
    step, trainable = read_trainable(run.absolute(), config, model, settings.step)
    trainable = pad_vocabulary(trainable, model.divided_over(mesh.shape[TENSOR]))
    trainable = jax.device_put(trainable, tree_shardings(trainable, mesh))
    base = load_pretrained(folder, mesh=mesh, dtype=config.model.param_dtype)[1] if config.lora.rank else trainable
    digest = _model_digest(folder)
    for piece in _bytes_of(trainable):
        digest.update(piece)
    return LoadedPolicy(
        label=f"{run.resolve().name} step {step}",
        base=config.model.path,
        hash=digest.hexdigest(),
        dtype=config.model.dtype,
        model=model.replace(dtype=config.model.dtype),
        policy=student(trainable, base, config.lora),
        tokenizer=tokenizer,
        stop_ids=stop_ids,
        prompt=config.prompt,
    )


def _load_served(settings: Settings, server: str) -> LoadedPolicy:
    folder = resolve_folder(settings.model, weights=False)
    tokenizer, stop_ids = load_tokenizer(folder)
    model = read_config(folder)
    engine = HttpEngine(
        server,
        tokenizer,
        stop_ids,
        model=settings.served,
        adapter=settings.served_adapter,
        in_flight=settings.in_flight or IN_FLIGHT,
        logp=False,
        api_key=os.environ.get(API_KEY),
        kind=settings.server_kind,
        wait=WAITS if settings.server_wait is None else settings.server_wait,
        timeout=settings.server_timeout or ANSWER_TIMEOUT,
        vocab_size=model.vocab_size,
    )
    adapter = "" if engine.adapter is None else f" with {engine.adapter}"
    return LoadedPolicy(
        label=f"{Path(engine.model).name}{adapter} by {engine.kind}",
        base=settings.model,
        hash=f"{engine.model}{adapter} by {engine.kind}, files {_model_digest(folder, weights=False).hexdigest()}",
        dtype="the server's dtype",
        model=model,
        policy=engine,
        tokenizer=tokenizer,
        stop_ids=stop_ids,
        prompt=None,
    )


def _model_digest(folder: Path, *, weights: bool = True):
    """A running SHA-256 over a model folder's weights, configuration, tokenizer and stop tokens."""
    digest = hashlib.sha256()
    _add_files(digest, [*(folder / name for name in FILES_BESIDE_WEIGHTS), *(weight_files(folder) if weights else ())])
    return digest


def _add_files(digest, files: list[Path]) -> None:
    for file in files:
        if file.is_file():
            digest.update(f"{file.name} {file.stat().st_size}\n".encode())
            with file.open("rb") as stream:
                while piece := stream.read(READ_AT_A_TIME):
                    digest.update(piece)


def _bytes_of(trainable: dict) -> Iterator[bytes]:
    for name, leaf in named_leaves(trainable):
        yield f"{name} {leaf.shape} {leaf.dtype}\n".encode()
        yield np.asarray(leaf).tobytes()
