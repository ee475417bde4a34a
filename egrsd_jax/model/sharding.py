"""The device mesh, and ONE table from parameter names to the mesh axes that each dimension is split over."""

import math
import re
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXES = ("data", "fsdp", "tensor")
TENSOR = "tensor"  # heads and hidden units are split over it
BATCH = ("data", "fsdp")  # the batch is split over both: fsdp devices hold different rows and parts of one model

# Dimensions are those of the checkpoint, [out, in], behind the layers' axis; the first pattern that matches counts.
RULES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    (r"(embed_tokens|lm_head)/weight", ("tensor", "fsdp")),
    (r"(q|k|v|gate|up)_proj/weight", (None, "tensor", "fsdp")),
    (r"(o|down)_proj/weight", (None, "fsdp", "tensor")),
    (r"(q|k|v|gate|up)_proj/a", (None, None, "fsdp")),
    (r"(q|k|v|gate|up)_proj/b", (None, "tensor", None)),
    (r"(o|down)_proj/a", (None, None, "tensor")),
    (r"(o|down)_proj/b", (None, "fsdp", None)),
    (r"(q|k|v|gate|up)_proj/bias", (None, "tensor")),
    (r"(o|down)_proj/bias", (None, "fsdp")),
    (r"norm/weight", ()),
)


def make_mesh(data: int = 1, fsdp: int = 1, tensor: int = 1, *, devices: list | None = None) -> Mesh:
    """A mesh with the axes data, fsdp and tensor over `devices`, all of this run's by default.

    One size may be -1: it takes what the others leave. Raises ValueError where the product is not the device count, or
    where the sizes cannot be laid over the axes of a TPU's torus.
    """
    devices = jax.devices() if devices is None else devices
    sizes = [data, fsdp, tensor]
    if any(size < 1 and size != -1 for size in sizes) or sizes.count(-1) > 1:
        raise ValueError(f"mesh {dict(zip(AXES, sizes, strict=True))}: sizes are at least 1, and one of them may be -1")
    if -1 in sizes:
        sizes[sizes.index(-1)] = max(len(devices) // math.prod(size for size in sizes if size != -1), 1)
    shape = " x ".join(f"{axis} {size}" for axis, size in zip(AXES, sizes, strict=True))
    if math.prod(sizes) != len(devices):
        raise ValueError(f"the mesh {shape} has {math.prod(sizes)} places for {len(devices)} devices")
    try:
        return jax.make_mesh(tuple(sizes), AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)
    except NotImplementedError as error:  # a TPU's chips form a torus of their own
        reason = str(error).split(". ")[0]
        raise ValueError(
            f"the mesh {shape} cannot be laid over these chips; each size must be that of one of their axes, or the "
            f"product of several: {reason}"
        ) from None


def tree_shardings(tree: Any, mesh: Mesh) -> Any:
    """The NamedSharding of every leaf of a tree of parameters, adapters or optimizer moments, by the table above.

    Leaves that the table does not name (counters, keys) are held whole by every device. Raises ValueError that names
    the parameter and the dimension where a size does not divide over its axis.
    """

    def of(path: tuple, leaf: Any) -> NamedSharding:
        name = "/".join(_key_name(key) for key in path)
        return NamedSharding(mesh, _spec(name, leaf.shape, mesh))

    return jax.tree_util.tree_map_with_path(of, tree)


def batch_sharding(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """Rows split over data and fsdp; `axis` is the dimension that counts rows."""
    return NamedSharding(mesh, PartitionSpec(*(None,) * axis, BATCH))


def split_rows(x: jax.Array) -> jax.Array:
    """`x` [B, ...] with its rows over data and fsdp, where it is on such a mesh and B divides.

    Left to itself the partitioner would follow the embedding's split of the hidden size through every layer, and each
    device would compute all rows.
    """
    mesh = jax.typeof(x).sharding.mesh
    if mesh.empty or not set(BATCH) <= set(mesh.axis_names) or x.shape[0] % batch_shards(mesh):
        return x
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec(BATCH)))


def split_hidden(x_BD: jax.Array) -> jax.Array:
    """`x_BD` with its rows over data alone and the hidden size over fsdp, as the output head is, where both divide.

    Few rows times the head is then computed on the head's own shards, and partial logits are added up; left to itself
    the partitioner may send the whole head to every device, for every token.
    """
    mesh = jax.typeof(x_BD).sharding.mesh
    if mesh.empty or not set(BATCH) <= set(mesh.axis_names):
        return x_BD
    if x_BD.shape[0] % mesh.shape["data"] or x_BD.shape[1] % mesh.shape["fsdp"]:
        return x_BD
    return jax.lax.with_sharding_constraint(x_BD, NamedSharding(mesh, PartitionSpec("data", "fsdp")))


def hidden_sharding(mesh: Mesh, hidden_size: int) -> NamedSharding:
    """Of [tokens, D]: D over data and fsdp where it divides, so that tokens of any row can be put in any order."""
    return NamedSharding(mesh, PartitionSpec(None, BATCH if hidden_size % batch_shards(mesh) == 0 else None))


def replicated(mesh: Mesh) -> NamedSharding:
    """Held whole by every device."""
    return NamedSharding(mesh, PartitionSpec())


def round_up(count: int, shards: int) -> int:
    """The least multiple of `shards` that holds `count` rows."""
    return -(-count // shards) * shards


def batch_shards(mesh: Any) -> int:
    """How many parts the rows of a batch are split into, on a mesh or an abstract one."""
    return math.prod(mesh.shape[axis] for axis in BATCH)


def _spec(name: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    axes = next((axes for pattern, axes in RULES if re.search(pattern + "$", name)), ())
    for dimension, axis in enumerate(axes):
        if axis is not None and shape[dimension] % mesh.shape[axis]:
            raise ValueError(
                f"{name} {shape}: dimension {dimension} of size {shape[dimension]} does not divide over the mesh axis "
                f"{axis!r} of size {mesh.shape[axis]}"
            )
    return PartitionSpec(*axes)


def _key_name(key: Any) -> str:
    return str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key))))
