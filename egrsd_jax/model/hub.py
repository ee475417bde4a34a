"""Hugging Face checkpoints in and out, without torch.

A parameter at `layers/self_attn/q_proj/weight` [L, out, in] is the L tensors `model.layers.{i}.self_attn.q_proj.weight`
of the checkpoint; the names are otherwise the same, so that one rule serves both directions.
"""

import json
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
from jax.sharding import Mesh, SingleDeviceSharding
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from egrsd_jax.model.config import ModelConfig, read_config
from egrsd_jax.model.qwen3 import Params, abstract_params
from egrsd_jax.model.sharding import tree_shardings

DTYPES = ("float32", "bfloat16", "float16")
INDEX = "model.safetensors.index.json"
BUILT_IN = {"arithmetic": Path(__file__).parents[1] / "assets" / "arithmetic"}


def load_pretrained(
    path_or_repo: str | Path, *, mesh: Mesh | None = None, dtype: str = "bfloat16"
) -> tuple[ModelConfig, Params]:
    """Reads a checkpoint folder, or a repository of the Hugging Face hub, into parameters of `dtype`.

    With a mesh each device reads only its own part of every tensor. At most one device's part of one parameter is held
    in host memory at a time. Raises FileNotFoundError or ValueError that names a missing folder or file, a tensor that
    is missing, surplus or of another shape, or an architecture that is not supported.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r} is not supported; choose one of {', '.join(DTYPES)}")
    folder = resolve_folder(path_or_repo)
    config = read_config(folder, dtype=dtype)
    abstract = abstract_params(config, dtype)
    files = _tensor_files(folder)
    try:
        _check_tensors(folder, abstract, config, files)
        return config, _read(abstract, config, files, mesh)
    finally:
        for handle in set(files.values()):
            handle.__exit__(None, None, None)


def save_pretrained(path: str | Path, config: ModelConfig, params: Params, **config_fields: Any) -> None:
    """Writes `config.json` and `model.safetensors` so that transformers, and load_pretrained, read the same numbers.

    `config_fields` are added to config.json (token ids, for example). The folder is made where it does not exist.
    """
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, leaf in _named_leaves(params):
        parts = _checkpoint_names(name, config)
        array = np.asarray(leaf)
        tensors |= {parts[0]: array} if len(parts) == 1 else dict(zip(parts, array, strict=True))
    fields = config.to_hf(param_dtype=str(params["norm"]["weight"].dtype), **config_fields)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")


def resolve_folder(path_or_repo: str | Path) -> Path:
    """The folder of a model: the embedded one by its name, a folder itself, or a hub repository, downloaded once."""
    name, folder = str(path_or_repo), Path(path_or_repo)
    if name in BUILT_IN:
        return BUILT_IN[name]
    if folder.is_dir():
        return folder
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise FileNotFoundError(
            f"there is no model folder {name!r}; give a folder or a hub repository such as Qwen/Qwen3-4B"
        )
    from huggingface_hub import snapshot_download  # imported late: only downloads need it

    try:
        return Path(snapshot_download(name, allow_patterns=["*.safetensors", "*.json", "*.txt", "*.jinja"]))
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise FileNotFoundError(
            f"{name!r} is neither a folder here nor a repository that could be downloaded: {reason}"
        ) from error


def _tensor_files(folder: Path) -> dict[str, Any]:
    """Every tensor's name -> the open safetensors file that holds it."""
    index = folder / INDEX
    if index.is_file():
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    else:
        names = ["model.safetensors"]
    files: dict[str, Any] = {}
    for name in names:
        if not (folder / name).is_file():
            found = ", ".join(sorted(file.name for file in folder.iterdir())) or "nothing"
            raise FileNotFoundError(f"{folder} has no {name} (weights are read from safetensors only); it has: {found}")
        try:
            handle = safe_open(folder / name, framework="np")
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{folder / name} is not a whole safetensors file: {error}") from None
        files |= dict.fromkeys(handle.keys(), handle)
    return files


def _check_tensors(folder: Path, abstract: Params, config: ModelConfig, files: dict[str, Any]) -> None:
    wanted = {
        part: leaf.shape if len(parts) == 1 else leaf.shape[1:]
        for name, leaf in _named_leaves(abstract)
        for parts in [_checkpoint_names(name, config)]
        for part in parts
    }
    surplus = set(files) - set(wanted)
    if config.tie_embeddings:
        surplus -= {"lm_head.weight"}  # some checkpoints keep the tied head as well; it is the embedding
    if missing := sorted(set(wanted) - set(files)):
        raise ValueError(f"{folder}: {len(missing)} tensors are missing, the first is {missing[0]}")
    if surplus:
        raise ValueError(f"{folder}: {len(surplus)} tensors have no place in this model, the first is {min(surplus)}")
    for name, shape in wanted.items():
        if (found := tuple(files[name].get_slice(name).get_shape())) != shape:
            raise ValueError(f"{folder}: {name} has shape {list(found)}; config.json says {list(shape)}")


def _read(abstract: Params, config: ModelConfig, files: dict[str, Any], mesh: Mesh | None) -> Params:
    if mesh is None:
        here = SingleDeviceSharding(jax.local_devices()[0])
        shardings = jax.tree.map(lambda _: here, abstract)
    else:
        shardings = tree_shardings(abstract, mesh)

    def read(path: tuple, leaf: jax.ShapeDtypeStruct, sharding: jax.sharding.Sharding) -> jax.Array:
        parts = _checkpoint_names("/".join(key.key for key in path), config)
        slices = [files[part].get_slice(part) for part in parts]

        def part_of(index: Any) -> np.ndarray:
            if len(parts) == 1:
                return _cast(slices[0][index], leaf.dtype)
            own = slices[index[0]]
            block = np.empty((len(own), *_extent(index[1:], leaf.shape[1:])), leaf.dtype)
            for row, tensor in zip(block, own, strict=True):
                row[...] = _cast(tensor[index[1:]], leaf.dtype)
            return block

        return jax.make_array_from_callback(leaf.shape, sharding, part_of)

    return jax.tree_util.tree_map_with_path(read, abstract, shardings)


def _cast(array: np.ndarray, dtype: Any) -> np.ndarray:
    if array.dtype not in (np.float32, np.float16, ml_dtypes.bfloat16):
        raise ValueError(f"a tensor has dtype {array.dtype}; weights in {', '.join(DTYPES)} are read")
    return array.astype(dtype)


def _extent(index: tuple[slice, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(len(range(*part.indices(size))) for part, size in zip(index, shape, strict=True))


def _checkpoint_names(name: str, config: ModelConfig) -> list[str]:
    """The checkpoint's tensors that a parameter is made of: one, or one a layer."""
    dotted = name.replace("/", ".")
    if dotted.startswith("layers."):
        return [f"model.layers.{layer}.{dotted.removeprefix('layers.')}" for layer in range(config.num_layers)]
    return [dotted if dotted.startswith("lm_head.") else f"model.{dotted}"]


def _named_leaves(tree: Params) -> list[tuple[str, Any]]:
    return [("/".join(key.key for key in path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]
