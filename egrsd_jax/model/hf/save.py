"""Parameters out to a Hugging Face checkpoint that transformers, peft and `load_pretrained` read."""

import json
import shutil
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from egrsd_jax.model.config import ModelConfig
from egrsd_jax.model.decoder import Params, abstract_params
from egrsd_jax.model.hf.checkpoint_files import DTYPES, INDEX, WEIGHTS, check_reached, write_tensors
from egrsd_jax.model.hf.checkpoint_names import named_leaves, tensor_name
from egrsd_jax.model.lora import Lora, merge_lora

MAX_SHARD_BYTES = 5 * 2**30
UNFINISHED = ".unfinished-"
SHARD = "model-{number:05d}-of-{count:05d}.safetensors"


def save_pretrained(
    path: str | Path,
    config: ModelConfig,
    params: Params,
    *,
    lora: Lora | None = None,
    dtype: str | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    **config_fields: Any,
) -> None:
    """Writes `config.json` and the weights, in one safetensors file or in shards of `max_shard_bytes` with an index.

    `lora` is merged into the weights on the way; `dtype` casts them, by default they stay what they are, to the last
    bit. `config_fields` are added to config.json (token ids, for example). The folder is made where it does not exist;
    a checkpoint that it has is replaced once the new weights are on disk. config.json comes last: a folder without it
    is no checkpoint.

    One layer is merged at a time, and the host holds one shard and the layer that is read. Raises ValueError for
    another dtype, for a number that float16 does not reach, and for parameters that are not those of `config` or that
    other processes hold.
    """
    if dtype not in (None, *DTYPES):
        raise ValueError(f"dtype {dtype!r} is not supported; choose one of {', '.join(DTYPES)}")
    if max_shard_bytes < 1:
        raise ValueError(f"max_shard_bytes is {max_shard_bytes}; it must be at least 1")
    _check_params(config, params)
    fields = config.to_hf(param_dtype=dtype or str(params["norm"]["weight"].dtype), **config_fields)
    save_tensors(Path(path), _tensors(params, config, lora, dtype), fields, max_shard_bytes=max_shard_bytes)


def save_tensors(
    folder: Path,
    tensors: Iterable[tuple[str, np.ndarray]],
    fields: dict[str, Any],
    *,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Writes a checkpoint's tensors by name, then `fields` as its config.json, as `save_pretrained` does: what the
    folder has is replaced once the new weights are on disk. The host holds one shard."""
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(f"{UNFINISHED}*"):  # by a save that was killed
        shutil.rmtree(left)
    with TemporaryDirectory(prefix=UNFINISHED, dir=folder) as unfinished:
        shards = _write_shards(Path(unfinished), tensors, max_shard_bytes)
        _remove_checkpoint(folder)
        _publish(Path(unfinished), folder, shards)
    write_json(folder / "config.json", fields)


def new_folder(to: Path) -> Path:
    """The path, links followed, of a folder that can be put in its place whole, by a new name for a finished one.

    Raises FileExistsError for a file, a folder with something in it, and one that cannot be replaced or should not be:
    where something is mounted, and where this process is.
    """
    to = to.resolve()
    if to.exists() and not to.is_dir():
        raise FileExistsError(f"{to} is a file; give a folder that is empty or not there yet")
    if to.is_dir() and any(to.iterdir()):
        raise FileExistsError(f"the folder {to} is not empty; give one that is, or that is not there yet")
    if to.is_mount() or to == Path.cwd():
        what = "a place where something is mounted" if to.is_mount() else "the current folder"
        raise FileExistsError(f"{to} is {what}, which a finished folder cannot take; give one in it: {to / 'model'}")
    return to


def write_json(file: Path, content: dict[str, Any]) -> None:
    """A JSON file that is there whole or not at all."""
    temporary = file.with_name(f"{file.name}.new")
    temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    temporary.replace(file)


def _check_params(config: ModelConfig, params: Params) -> None:
    wanted, given = dict(named_leaves(abstract_params(config))), dict(named_leaves(params))
    if different := sorted(wanted.keys() ^ given.keys()):
        side = "missing from" if different[0] in wanted else "not a parameter of the model but among"
        raise ValueError(f"{different[0]} is {side} the parameters to save")
    for name, leaf in given.items():
        if leaf.shape != wanted[name].shape:
            raise ValueError(f"{name} has shape {leaf.shape}; the model's configuration says {wanted[name].shape}")
        if str(leaf.dtype) not in DTYPES:
            raise ValueError(f"{name} has dtype {leaf.dtype}; weights are saved in {', '.join(DTYPES)}")
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            raise ValueError(
                f"{name} is spread over {jax.process_count()} processes, and one of them writes a checkpoint; "
                "export from the run's own checkpoint in a single process"
            )


def _tensors(
    params: Params, config: ModelConfig, lora: Lora | None, dtype: str | None
) -> Iterator[tuple[str, np.ndarray]]:
    """The tensors of a checkpoint in its order: embedding, layer by layer, what comes after them."""
    for block in sorted(params):
        if block != "layers":
            for name, leaf in named_leaves({block: _fresh(params[block], dtype=dtype)}):
                yield tensor_name(name), np.asarray(leaf)[: None if block == "norm" else config.vocab_size]
            continue
        for index in range(config.num_layers):
            layer = _one_layer(params["layers"], lora, jnp.int32(index), dtype=dtype)
            for name, leaf in named_leaves(layer):
                yield tensor_name(name, index), np.asarray(leaf)


@partial(jax.jit, static_argnames="dtype")
def _fresh(tree: Any, *, dtype: str | None) -> Any:
    """A copy that is dropped after use: jax keeps the host's copy of every array that was read, with the array."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if dtype else jnp.copy(leaf), tree)


@partial(jax.jit, static_argnames="dtype")
def _one_layer(layers: Any, lora: Lora | None, index: jax.Array, *, dtype: str | None) -> Any:
    """One layer's weights, its adapter merged in float32, rounded once."""

    def cut(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, index, 1), tree)

    layer = merged = cut(layers)
    if lora is not None:
        wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), layer)
        merged = merge_lora({"layers": wide}, Lora(cut(lora.layers), lora.scale))["layers"]
    return jax.tree.map(lambda new, old: new[0].astype(dtype or old.dtype), merged, layer)


def _write_shards(folder: Path, tensors: Iterable[tuple[str, np.ndarray]], limit: int) -> list[dict[str, int]]:
    """Writes the files 0, 1, ... of at most `limit` bytes, or of one larger tensor; returns what each holds: tensor
    names with their bytes."""
    shards: list[dict[str, int]] = []
    pending: dict[str, np.ndarray] = {}

    def flush() -> None:
        write_tensors(pending, folder / str(len(shards)))
        shards.append({name: array.nbytes for name, array in pending.items()})
        pending.clear()

    for name, array in tensors:
        check_reached(name, array)
        if pending and sum(kept.nbytes for kept in pending.values()) + array.nbytes > limit:
            flush()
        pending[name] = np.ascontiguousarray(array)  # safetensors writes memory as it is laid out
    flush()
    return shards


def _remove_checkpoint(folder: Path) -> None:
    """Takes away the checkpoint that a folder has, config.json first: what is left of it never looks whole."""
    for pattern in ("config.json", INDEX, WEIGHTS, SHARD.format(number=0, count=0).replace("00000", "?" * 5)):
        for file in folder.glob(pattern):
            file.unlink()


def _publish(unfinished: Path, folder: Path, shards: list[dict[str, int]]) -> None:
    """Gives the shards their names, and an index where there are several."""
    if len(shards) == 1:
        (unfinished / "0").replace(folder / WEIGHTS)
        return
    weight_map = {}
    for number, names in enumerate(shards):
        file = SHARD.format(number=number + 1, count=len(shards))
        (unfinished / str(number)).replace(folder / file)
        weight_map |= dict.fromkeys(names, file)
    total = sum(sum(names.values()) for names in shards)
    write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})
