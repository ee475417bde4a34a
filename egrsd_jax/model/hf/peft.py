"""Adapters out to, and back from, the two files that PEFT keeps: adapter_config.json and adapter_model.safetensors."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from safetensors.numpy import save_file

from egrsd_jax.model.config import ModelConfig
from egrsd_jax.model.hf.checkpoint_files import DTYPES, stored_tensors
from egrsd_jax.model.hf.checkpoint_names import adapter_source, named_leaves
from egrsd_jax.model.hf.load import read_tree
from egrsd_jax.model.hf.save import write_json
from egrsd_jax.model.lora import PROJECTIONS, Lora, init_lora

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
TARGETS = sorted(PROJECTIONS)

READ = {"peft_type", "r", "lora_alpha", "lora_dropout", "target_modules", "bias", "init_lora_weights"}
HARMLESS = {  # where an adapter came from and how it was trained, not what it computes
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "task_type",
}
INITIALISATIONS = (True, False, "gaussian", "orthogonal")  # those that leave the base weights alone


def save_adapter(path: str | Path, lora: Lora, *, base_model: str, dtype: str | None = None) -> None:
    """Writes an adapter so that `peft` loads it over the transformers model `base_model`, a folder or a repository.

    `dtype` casts the numbers; by default they stay what they are. The folder is made where it does not exist, and an
    adapter that it has is replaced. The configuration comes last, and nothing reads a folder without it; it says with
    what dropout the adapter was trained.
    """
    if dtype not in (None, *DTYPES):
        raise ValueError(f"dtype {dtype!r} is not supported; choose one of {', '.join(DTYPES)}")
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, leaf in named_leaves(lora.layers):
        array = np.asarray(leaf).astype(dtype or leaf.dtype)
        tensors |= dict(zip(adapter_source(name, len(array)).tensors, array, strict=True))
    (folder / CONFIG).unlink(missing_ok=True)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    write_json(folder / CONFIG, _config_fields(lora, base_model))


def load_adapter(path: str | Path, config: ModelConfig, *, mesh: Mesh | None = None, dtype: str = "float32") -> Lora:
    """Reads a PEFT folder into an adapter of `config`'s model, in the shards of a mesh where there is one.

    Raises FileNotFoundError or ValueError that names what is wrong: a missing file, another kind of adapter, other
    target modules, a feature of PEFT's that changes what is computed and that this port does not have (DoRA, ranks by
    pattern, ...), or a tensor that is missing, surplus or of another shape.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r} is not supported; choose one of {', '.join(DTYPES)}")
    folder = Path(path)
    rank, alpha, dropout = _read_config(folder / CONFIG)
    if not (folder / WEIGHTS).is_file():
        raise FileNotFoundError(f"{folder} has no {WEIGHTS}, and adapters are read from safetensors only")
    abstract = jax.eval_shape(
        lambda key: init_lora(key, config, rank=rank, alpha=alpha, dtype=dtype), jax.random.key(0)
    )
    tensors = stored_tensors([folder / WEIGHTS])
    layers = read_tree(folder, abstract.layers, lambda name: adapter_source(name, config.num_layers), tensors, mesh)
    return Lora(layers, scale=abstract.scale, dropout=dropout)


def _config_fields(lora: Lora, base_model: str) -> dict[str, Any]:
    rank = lora.layers["self_attn"]["q_proj"]["a"].shape[1]
    alpha = lora.scale * rank
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "r": rank,
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "lora_dropout": lora.dropout,
        "target_modules": TARGETS,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "modules_to_save": None,
        "rank_pattern": {},
        "alpha_pattern": {},
        "use_dora": False,
        "use_rslora": False,
    }


def _read_config(file: Path) -> tuple[int, float, float]:
    """Rank, alpha and dropout of an adapter that computes what ours do. Any field that is not known to be harmless must
    be empty: one that a later PEFT adds is refused by name, not overlooked."""
    if not file.is_file():
        raise FileNotFoundError(f"{file.parent} is not an adapter's folder: it has no {CONFIG}")
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
        kind, rank, alpha, targets = (fields[name] for name in ("peft_type", "r", "lora_alpha", "target_modules"))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is not the configuration of a LoRA adapter: {error!r}") from None
    if kind != "LORA":
        raise ValueError(f"{file}: peft_type is {kind!r}; 'LORA' is read")
    if not isinstance(targets, list) or sorted(targets) != TARGETS:
        raise ValueError(f"{file}: target_modules is {targets!r}; an adapter here is on all of {', '.join(TARGETS)}")
    if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, int | float):
        raise ValueError(f"{file}: r is {rank!r} and lora_alpha {alpha!r}; a whole number over 0 and a number are read")
    if not isinstance(dropout := fields.get("lora_dropout", 0.0), int | float) or not 0 <= dropout < 1:
        raise ValueError(f"{file}: lora_dropout is {dropout!r}; a number of at least 0 and under 1 is read")
    if (bias := fields.get("bias", "none")) != "none":
        raise ValueError(f"{file}: bias is {bias!r}; only 'none' is read")
    if (start := fields.get("init_lora_weights", True)) not in INITIALISATIONS:
        raise ValueError(f"{file}: init_lora_weights is {start!r}, which changes the base model too; that is not read")
    for name in sorted(set(fields) - READ - HARMLESS):
        if fields[name]:
            raise ValueError(f"{file}: {name} is {fields[name]!r}, and adapters with it are not read")
    return rank, alpha, dropout
