"""Adapters out to, and back from, the two files that PEFT keeps: adapter_config.json and adapter_model.safetensors.

Here an adapter is on all seven projections of every layer, with one rank and one scale. PEFT's may be on some of them,
with ranks and scales of their own: what is not there is zero here, which computes the same and stays zero in training,
since the gradient of either factor is a product with the other.
"""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from egrsd_jax.model.config import ModelConfig
from egrsd_jax.model.hf.adapter_config import CONFIG, AdapterConfig, read_adapter_config
from egrsd_jax.model.hf.checkpoint_files import (
    DTYPES,
    READABLE,
    StoredTensor,
    check_reached,
    stored_tensors,
    write_tensors,
)
from egrsd_jax.model.hf.checkpoint_names import adapter_source, adapter_tensor_name, named_leaves, tensor_name
from egrsd_jax.model.hf.save import write_json
from egrsd_jax.model.lora import Lora, projection_shapes
from egrsd_jax.model.sharding import tree_shardings

WEIGHTS = "adapter_model.safetensors"


class _Module(NamedTuple):
    """One projection of one layer that an adapter is on: its place, shape [out, in], rank and scale."""

    block: str
    name: str
    layer: int
    shape: tuple[int, int]
    rank: int
    scale: float

    def tensor(self, side: str) -> str:
        return adapter_tensor_name(f"layers/{self.block}/{self.name}/{side}", self.layer)

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Of the tensors of both sides."""
        out, size = self.shape
        return {self.tensor("a"): (self.rank, size), self.tensor("b"): (out, self.rank)}


def save_adapter(path: str | Path, lora: Lora, *, base_model: str, dtype: str | None = None) -> None:
    """Writes an adapter so that `peft` loads it over the transformers model `base_model`, a folder or a repository.

    `dtype` casts the numbers; by default they stay what they are. The folder is made where it does not exist, and an
    adapter that it has is replaced. The configuration comes last, and nothing reads a folder without it; it says with
    what dropout the adapter was trained. Projections that the adapter is zero on are left out.
    """
    if dtype not in (None, *DTYPES):
        raise ValueError(f"dtype {dtype!r} is not supported; choose one of {', '.join(DTYPES)}")
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    targets = _targets(lora)
    for name, leaf in named_leaves(lora.layers):
        if name.split("/")[1] not in targets:
            continue
        with np.errstate(over="ignore"):  # it is checked below
            array = np.asarray(leaf).astype(dtype or leaf.dtype)
        tensors |= dict(zip(adapter_source(name, len(array)).tensors, array, strict=True))
    for name, array in tensors.items():
        check_reached(name, array)
    (folder / CONFIG).unlink(missing_ok=True)
    write_tensors(tensors, folder / WEIGHTS)
    write_json(folder / CONFIG, _config_fields(lora, base_model, targets))


def load_adapter(path: str | Path, config: ModelConfig, *, mesh: Mesh | None = None, dtype: str = "float32") -> Lora:
    """Reads a PEFT folder into an adapter of `config`'s model, in the shards of a mesh where there is one.

    Any set of projections and layers, ranks and alphas by pattern, and rank-stabilised scaling are read. Raises
    FileNotFoundError or ValueError that names what is wrong: a missing file, another kind of adapter, a feature of
    PEFT's that changes what is computed and that this port does not have (DoRA, other modules that were trained, ...),
    or a tensor that is missing, surplus or of another shape.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r} is not supported; choose one of {', '.join(DTYPES)}")
    folder = Path(path)
    settings = read_adapter_config(folder)
    if not (folder / WEIGHTS).is_file():
        raise FileNotFoundError(
            f"{folder} has no {WEIGHTS}, and adapters are read from safetensors only; peft makes that file of another: "
            "PeftModel.from_pretrained(MODEL, FOLDER).save_pretrained(NEW_FOLDER)"
        )
    tensors = stored_tensors([folder / WEIGHTS])
    modules = _modules(folder, settings, config)
    _check_tensors(folder, settings, modules, tensors)
    layers = _assembled(modules, tensors, config, settings.largest_rank, settings.scale, dtype)
    if mesh is None:
        return Lora(jax.tree.map(jnp.asarray, layers), scale=settings.scale, dropout=settings.dropout)
    placed = jax.tree.map(
        lambda array, sharding: jax.make_array_from_callback(array.shape, sharding, array.__getitem__),
        layers,
        tree_shardings(layers, mesh),
    )
    return Lora(placed, scale=settings.scale, dropout=settings.dropout)


def _modules(folder: Path, settings: AdapterConfig, config: ModelConfig) -> list[_Module]:
    """The projections that the adapter is on, in the order of their tensors' names."""
    modules = []
    for block, projections in sorted(projection_shapes(config).items()):
        for name, shape in sorted(projections.items()):
            for layer in range(config.num_layers):
                module = tensor_name(f"layers/{block}/{name}", layer)
                if settings.is_on(module):
                    rank, scale = settings.rank_and_scale(module)
                    modules.append(_Module(block, name, layer, shape, rank, scale))
    if not modules:
        raise ValueError(
            f"{folder / CONFIG}: target_modules is {settings.targets!r}, and that is no projection of this model's "
            f"{config.num_layers} layers"
        )
    return modules


def _check_tensors(
    folder: Path, settings: AdapterConfig, modules: list[_Module], tensors: dict[str, StoredTensor]
) -> None:
    base = f"; its configuration says that it was trained over {settings.base!r}" if settings.base else ""
    wanted = {name: shape for module in modules for name, shape in module.shapes.items()}
    for name, tensor in tensors.items():
        if tensor.dtype not in READABLE:
            raise ValueError(f"{folder}: {name} has dtype {tensor.dtype}; {', '.join(sorted(READABLE))} are read")
    surplus = sorted(set(tensors) - set(wanted))
    if missing := sorted(set(wanted) - set(tensors)):
        count = "1 tensor is" if len(missing) == 1 else f"{len(missing)} tensors are"
        instead = f"; it has {surplus[0]}, which is no name of peft's save_pretrained for this model" if surplus else ""
        raise ValueError(f"{folder}: {count} missing, the first is {missing[0]}{instead}{base}")
    if surplus:
        raise ValueError(
            f"{folder}: {surplus[0]} has no place in an adapter on the projections that its configuration names; merge "
            f"the adapter with peft's merge_and_unload, save that, and give the folder as the model{base}"
        )
    for name, shape in wanted.items():
        if (stored := tensors[name].shape) != shape:
            raise ValueError(
                f"{folder}: {name} has shape {list(stored)}; its configuration and this model say {list(shape)}{base}"
            )


def _assembled(
    modules: list[_Module], tensors: dict[str, StoredTensor], config: ModelConfig, rank: int, scale: float, dtype: str
) -> dict[str, Any]:
    """All projections of all layers with one rank and scale: zero where the adapter is not."""
    count, to = config.num_layers, np.dtype(READABLE[{"float32": "F32", "bfloat16": "BF16", "float16": "F16"}[dtype]])
    layers: dict[str, Any] = {
        block: {
            name: {"a": np.zeros((count, rank, size), to), "b": np.zeros((count, out, rank), to)}
            for name, (out, size) in projections.items()
        }
        for block, projections in projection_shapes(config).items()
    }
    for module in modules:
        factors = layers[module.block][module.name]
        a, b = (tensors[module.tensor(side)] for side in "ab")
        factors["a"][module.layer, : module.rank] = a.finite_rows(0, a.shape[0])
        b_array = b.finite_rows(0, b.shape[0])
        if module.scale != scale:
            b_array = b_array.astype(np.float32) * np.float32(module.scale / scale)
        factors["b"][module.layer, :, : module.rank] = b_array
    return layers


def _targets(lora: Lora) -> list[str]:
    """The projections that an adapter is on: those with a factor that is not zero, or all where every one is."""
    names = [name for block in lora.layers.values() for name in block]
    is_on = {
        name: any(bool(jnp.any(factor)) for factor in factors.values())
        for block in lora.layers.values()
        for name, factors in block.items()
    }
    return sorted(name for name in names if is_on[name]) or sorted(names)


def _config_fields(lora: Lora, base_model: str, targets: list[str]) -> dict[str, Any]:
    rank = jax.tree.leaves(lora.layers)[0].shape[1]  # of an A, which comes before its B
    alpha = lora.scale * rank
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "r": rank,
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "lora_dropout": lora.dropout,
        "target_modules": targets,
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
