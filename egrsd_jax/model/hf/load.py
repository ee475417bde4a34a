"""Checkpoints into sharded arrays: the tensors are checked by name, then read into each device's parts."""

import gc
import math
import mmap
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, Sharding, SingleDeviceSharding

from egrsd_jax.model.config import ModelConfig, read_config
from egrsd_jax.model.decoder import Params, abstract_params
from egrsd_jax.model.hf.checkpoint_files import READABLE, StoredTensor, stored_tensors, weight_files
from egrsd_jax.model.hf.checkpoint_names import Source, as_causal_model, named_leaves, parameter_source, path_name
from egrsd_jax.model.hf.tied_head import EMBEDDING, HEAD
from egrsd_jax.model.sharding import TENSOR, tree_shardings

STRIP = 2**19  # elements read at a time: 1 MB of bfloat16, still in the processor's cache when it is copied

Bounds = tuple[tuple[int, int], ...]  # start and stop of every dimension of a part


def read_checkpoint(folder: Path, *, mesh: Mesh | None, dtype: str) -> tuple[ModelConfig, Params]:
    """The model in a folder, its weights cast to `dtype`. Errors are those of `load_pretrained`."""
    config = read_config(folder, dtype=dtype).divided_over(1 if mesh is None else mesh.shape[TENSOR])
    abstract = abstract_params(config, dtype)
    tensors = as_causal_model(stored_tensors(weight_files(folder)))
    optional: set[str] = set()
    if config.tie_embeddings:
        if EMBEDDING not in tensors and HEAD in tensors:  # of two names of one matrix, accelerate may keep this one
            tensors[EMBEDDING] = tensors[HEAD]
        optional = {HEAD}  # kept by some; it is the embedding

    def source_of(name: str) -> Source:
        return parameter_source(name, config.num_layers)

    rows = config.vocabulary_padding
    padding: dict[str, int] = {"embed_tokens/weight": rows, "lm_head/weight": rows}
    return config, read_tree(folder, abstract, source_of, tensors, mesh, optional=optional, padding=padding)


def read_tree(
    where: Path,
    abstract: Any,
    source_of: Callable[[str], Source],
    tensors: dict[str, StoredTensor],
    mesh: Mesh | None,
    *,
    optional: Set[str] = frozenset(),
    padding: Mapping[str, int] = MappingProxyType({}),
) -> Any:
    """Arrays of the shapes and dtypes of `abstract`, in the shards of a mesh or on this process's first device.

    `source_of` maps a parameter to where it is stored; `where` is named in errors. The last `padding` rows of a
    parameter are not stored, and zero. Raises ValueError, before anything
    is read, that names a tensor of an unreadable dtype, a missing, a surplus or a mis-shaped one.
    """
    sources = {name: source_of(name) for name, _ in named_leaves(abstract)}
    wanted = {
        tensor: leaf.shape[1:] if sources[name].stacked else (leaf.shape[0] - padding.get(name, 0), *leaf.shape[1:])
        for name, leaf in named_leaves(abstract)
        for tensor in sources[name].tensors
    }
    _check_tensors(where, wanted, tensors, optional)
    if mesh is None:
        here = SingleDeviceSharding(jax.local_devices()[0])
        shardings = jax.tree.map(lambda _: here, abstract)
    else:
        shardings = tree_shardings(abstract, mesh)

    def read(path: tuple, leaf: jax.ShapeDtypeStruct, sharding: Sharding) -> jax.Array:
        source = sources[path_name(path)]
        return _read_array(leaf, sharding, [tensors[name] for name in source.tensors], stacked=source.stacked)

    return jax.tree_util.tree_map_with_path(read, abstract, shardings)


def _check_tensors(
    where: Path, wanted: dict[str, tuple[int, ...]], tensors: dict[str, StoredTensor], optional: Set[str]
) -> None:
    """Dtypes first: a quantised checkpoint has surplus tensors as well, and that is not what is wrong with it."""
    for name, tensor in tensors.items():
        if (dtype := tensor.dtype) not in READABLE:
            raise ValueError(
                f"{where}: {name} has dtype {dtype}; weights in {', '.join(sorted(READABLE))} are read, and neither "
                "integers nor quantised ones: take the model's weights in 16 bits, or dequantise them and save that"
            )
    if missing := sorted(set(wanted) - set(tensors)):
        raise ValueError(
            f"{where}: {_count(missing)} missing, the first is {missing[0]}{_perhaps(missing[0], tensors)}"
        )
    if surplus := sorted(set(tensors) - set(wanted) - optional):
        raise ValueError(f"{where}: {_count(surplus)} without a place in this model, the first is {surplus[0]}")
    for name, shape in wanted.items():
        if (stored := tensors[name].shape) != shape:
            raise ValueError(f"{where}: {name} has shape {list(stored)}; its configuration says {list(shape)}")


def _perhaps(missing: str, tensors: Iterable[str]) -> str:
    """A hint where a wrapper around the model left a prefix, or an adapter's layer its own names."""
    ends = (missing, missing.replace(".weight", ".base_layer.weight"))
    if wrapped := next((name for name in sorted(tensors) if name.endswith(ends)), None):
        return f"; {wrapped} looks like it: save the model without what it was wrapped in"
    if missing == HEAD and (head := next((name for name in sorted(tensors) if name.startswith("score.")), None)):
        return f"; {head} is of the head of a classifier or a reward model, which writes no text"
    return "; where the head is the embedding, config.json has tie_word_embeddings true" if missing == HEAD else ""


def _count(names: list[str]) -> str:
    return f"{len(names)} tensor is" if len(names) == 1 else f"{len(names)} tensors are"


def _read_array(
    leaf: jax.ShapeDtypeStruct, sharding: Sharding, tensors: list[StoredTensor], *, stacked: bool
) -> jax.Array:
    """One parameter: its tensors are read once, into the parts that this process's devices hold, and these go to their
    devices one after the other."""
    devices_of: dict[Bounds, list] = {}
    for device, index in sharding.addressable_devices_indices_map(leaf.shape).items():
        assert index is not None, "every device of a parameter's sharding holds a part of it"
        bounds = tuple(part.indices(size)[:2] for part, size in zip(index, leaf.shape, strict=True))
        devices_of.setdefault(bounds, []).append(device)
    parts = {bounds: _new_memory([stop - start for start, stop in bounds], leaf.dtype) for bounds in devices_of}
    for layer, tensor in enumerate(tensors):
        _scatter(tensor, dict(_rows_of(parts, layer, stacked=stacked)))
    arrays: list[jax.Array] = []
    for bounds, devices in devices_of.items():
        part = parts.pop(bounds)
        arrays += jax.block_until_ready([jax.device_put(part, device) for device in devices])
        del part
        gc.collect(0)  # jax keeps a reference to what it has copied until python next collects
    return jax.make_array_from_single_device_arrays(leaf.shape, sharding, arrays)


def _new_memory(shape: list[int], dtype: np.dtype) -> np.ndarray:
    """Memory for a part that jax takes over where the host is the device, since it begins on a page: a copy would go to
    pages of its own, and new pages cost more time than all else.

    NumPy asks for huge pages. Those that a virtual machine has given back to its host cost several times as much.
    """
    return np.frombuffer(mmap.mmap(-1, math.prod(shape) * dtype.itemsize), dtype).reshape(shape)


def _rows_of(parts: dict[Bounds, np.ndarray], layer: int, *, stacked: bool) -> Iterator[tuple[Bounds, np.ndarray]]:
    """What one tensor fills of each part, with its bounds in that tensor: a layer of the stack, or all of it."""
    for bounds, part in parts.items():
        if not stacked:
            yield bounds, part
        elif bounds[0][0] <= layer < bounds[0][1]:
            yield bounds[1:], part[layer - bounds[0][0]]


def _scatter(tensor: StoredTensor, parts: dict[Bounds, np.ndarray]) -> None:
    """Reads a tensor in strips of whole rows and copies to each part what it holds of them, cast."""
    size, *inner = tensor.shape
    rows = max(1, STRIP // math.prod(inner))
    for start in range(0, size, rows):
        stop = min(start + rows, size)
        held = [bounds for bounds in parts if bounds[0][0] < stop and start < bounds[0][1]]
        if not held:
            continue  # rows of other processes
        strip = tensor.finite_rows(start, stop)
        for bounds in held:
            (first, last), *columns = bounds
            low, high = max(first, start), min(last, stop)
            cut = slice(low - start, high - start), *(slice(*ends) for ends in columns)
            parts[bounds][low - first : high - first] = strip[cut]
