"""Where a model's folder is, and the way of its checkpoint in and out, without torch."""

import os
from collections.abc import Iterable
from pathlib import Path

from jax.sharding import Mesh

from egrsd_jax.model.config import ModelConfig
from egrsd_jax.model.decoder import Params
from egrsd_jax.model.hf.adapter_config import CONFIG as ADAPTER_CONFIG
from egrsd_jax.model.hf.checkpoint_files import DTYPES
from egrsd_jax.model.hf.load import read_checkpoint
from egrsd_jax.model.hf.save import save_pretrained

__all__ = ["load_pretrained", "resolve_folder", "save_pretrained"]

BUILT_IN = {name: Path(__file__).parents[2] / "assets" / name for name in ("arithmetic", "orders")}


def load_pretrained(
    path_or_repo: str | Path, *, mesh: Mesh | None = None, dtype: str = "bfloat16"
) -> tuple[ModelConfig, Params]:
    """Reads a checkpoint folder, or a repository of the Hugging Face hub, into parameters of `dtype`.

    With a mesh each process keeps only the parts that its devices hold. In addition to the parameters themselves, host
    memory holds these parts of one parameter at a time.

    Raises FileNotFoundError or ValueError that names what is wrong: a folder, file or shard that is missing or cut
    short, a pickle, a broken index, an architecture that is not supported, and a tensor that is missing, surplus, of
    another shape, or of an integer or quantised dtype.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r} is not supported; choose one of {', '.join(DTYPES)}")
    return read_checkpoint(resolve_folder(path_or_repo), mesh=mesh, dtype=dtype)


def resolve_folder(path_or_repo: str | Path, *, weights: bool = True) -> Path:
    """The folder of a model: a built-in one by its name, a folder itself, or a hub repository, downloaded once (on
    request without its weights)."""
    name = os.path.expanduser(str(path_or_repo))  # noqa: PTH111  (Path's raises for a user without a home)
    folder = Path(name)
    if name in BUILT_IN:
        return BUILT_IN[name]
    if folder.is_dir():
        _check_is_a_model(folder)
        return folder
    if folder.is_file():
        raise FileNotFoundError(f"{name} is a file; give the folder of a model{_import_hint([folder])}")
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise FileNotFoundError(
            f"there is no model folder {name!r}; give a folder or a hub repository such as Qwen/Qwen3-4B"
        )
    from huggingface_hub import snapshot_download  # imported late: only downloads need it

    try:
        patterns = ["*.json", "*.txt", "*.jinja", "tokenizer.model", *(["*.safetensors"] if weights else [])]
        return Path(snapshot_download(name, allow_patterns=patterns))
    except Exception as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise FileNotFoundError(
            f"{name!r} is neither a folder here nor a repository that could be downloaded: {reason}"
        ) from error


def _check_is_a_model(folder: Path) -> None:
    """Raises FileNotFoundError, which says what to give, for a folder without config.json: an adapter's, a run's, one
    with models in its folders, or a copy of links to files that are elsewhere."""
    if (folder / "config.json").is_file():
        return
    if (folder / "config.json").is_symlink():
        raise FileNotFoundError(
            f"{folder / 'config.json'} is a link to {(folder / 'config.json').readlink()}, which is not there; copy a "
            "folder of the hub's cache with what its links lead to (cp -rL)"
        )
    if (folder / ADAPTER_CONFIG).is_file():
        raise FileNotFoundError(
            f"{folder} is an adapter's folder and no model's; give the model that it was trained over, and the adapter "
            "as --adapter of evaluate, sample and analyze, or as --lora.path of train"
        )
    if (folder / "config.yaml").is_file():
        raise FileNotFoundError(
            f"{folder} is a run's folder and no model's; give it as --run of evaluate and sample, or export it first"
        )
    within = [
        str(file.parent.relative_to(folder))
        for depth in ("*", "*/*")
        for file in sorted(folder.glob(f"{depth}/config.json"))
    ]
    hint = f"; give a folder in it that has one: {', '.join(within[:5])}" if within else _import_hint(folder.iterdir())
    raise FileNotFoundError(f"{folder} is not a checkpoint folder: it has no config.json{hint}")


def _import_hint(files: Iterable[Path]) -> str:
    """How a model's folder is made of the first GGUF file there is."""
    gguf = next((file for file in sorted(files) if file.suffix == ".gguf"), None)
    return "" if gguf is None else f"; `egrsd import {gguf} --to DIR` makes one of it"
