"""Chips with their published limits, and the devices to plan for: this machine's, or TPUs that need not be here."""

import os
from typing import Any, NamedTuple

from egrsd_jax.plan.slices import SLICES, slice_warning

GIB = 2**30

# What lets libtpu compile on a machine without a TPU; read when jax and libtpu are first used.
_WITHOUT_TPU = {
    "JAX_PLATFORMS": "cpu",  # arrays live here; programs are made for the topology
    "TPU_SKIP_MDS_QUERY": "1",  # there is no metadata server to ask for a TPU
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5p-8",  # libtpu warns without one; the topology is what counts
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # nothing here holds a TPU that another process could want
}


class Chip(NamedTuple):
    """One device of a kind, as its vendor describes it.

    memory: bytes that XLA gives a program, somewhat less than the published 16 (v5e), 95 (v5p) and 32 (v6e) GB, and
    half of the 192 of a tpu7x. flops: bfloat16 per second. bandwidth: bytes per second of its main memory. network:
    bytes per second that it sends to other chips over all its links together; the TPUs' published 400, 1,200, 800 and
    1,200 GB/s count both directions. The two cores of a v5p are one device; those of a tpu7x are two, each with half of
    its chip's rates, links among them.
    """

    name: str
    memory: float
    flops: float
    bandwidth: float
    network: float
    per_chip: int = 1  # devices of a chip


# By jax's name of the kind. TPU numbers: the "TPU v5e", "TPU v5p", "TPU v6e" and "TPU7x (Ironwood)" pages of
# docs.cloud.google.com/tpu, and what libtpu's compiler says of memory;
# GPU numbers: NVIDIA's H100 and H200 data sheets (SXM, without sparsity; NVLink 900 GB/s counts both directions).
CHIPS = {
    "TPU v5 lite": Chip("v5e", 15.75 * GIB, 197e12, 819e9, 200e9),
    "TPU v5": Chip("v5p", 95.74 * GIB, 459e12, 2765e9, 600e9),
    "TPU v6 lite": Chip("v6e", 31.25 * GIB, 918e12, 1638e9, 400e9),
    "TPU7x": Chip("tpu7x", 94.75 * GIB, 2307e12 / 2, 7380e9 / 2, 600e9 / 2, per_chip=2),
    "NVIDIA H100 80GB HBM3": Chip("H100", 80e9, 989e12, 3350e9, 450e9),
    "NVIDIA H200": Chip("H200", 141e9, 989e12, 4800e9, 450e9),
}


class Target(NamedTuple):
    """Devices to compile for. `chip` is None where nothing is published here about their kind."""

    name: str
    devices: list[Any]
    chip: Chip | None
    memory: float | None  # bytes per device; None where it cannot be known, as on a CPU, whose devices share it
    warning: str | None = None  # for a topology that nobody can rent

    @property
    def chips(self) -> str:
        """How many chips there are, in words; what is said per chip is per device."""
        per_chip = 1 if self.chip is None else self.chip.per_chip
        devices = f", each of {per_chip} devices (what is per chip below is per device)" if per_chip > 1 else ""
        return f"{len(self.devices) // per_chip} chips{devices}"

    @property
    def is_tpu(self) -> bool:
        """Whether the devices are TPUs."""
        return self.devices[0].platform == "tpu"


def compile_without_tpu() -> None:
    """Sets what libtpu reads on a machine without a TPU; call it before jax is imported."""
    os.environ.update(_WITHOUT_TPU)


def tpu_target(topology: str) -> Target:
    """The chips of a topology such as `v5p:2x2x2`, none of which has to be here.

    Raises ValueError for a name that is not such a topology, and where libtpu is not installed.
    """
    kind, _, shape = topology.partition(":")
    if kind not in SLICES or not all(size.isdecimal() for size in shape.split("x")):
        raise ValueError(
            f"there is no topology {topology!r}; it is one of {', '.join(SLICES)} and the chips along each axis, "
            "such as v5p:2x2x2, v5e:2x4, v6e:8x8 or tpu7x:2x2x1"
        )
    from jax.experimental import topologies  # imported late: jax reads the environment when it is imported

    try:
        devices = list(topologies.get_topology_desc(platform="tpu", topology_name=topology).devices)
    except Exception as error:  # jax and libtpu raise several kinds, plain RuntimeError among them
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        if "not installed" in reason:
            raise ValueError('compiling for a TPU needs libtpu, on any machine: pip install "jax[tpu]"') from None
        raise ValueError(f"the topology {topology!r} cannot be planned for: {reason}") from None
    chip = CHIPS[devices[0].device_kind]
    return Target(topology, devices, chip, chip.memory, slice_warning(kind, tuple(map(int, shape.split("x")))))


def local_target() -> Target:
    """This machine's own devices."""
    import jax

    devices = jax.devices()
    kind = devices[0].device_kind
    memory = (devices[0].memory_stats() or {}).get("bytes_limit")
    return Target(f"{len(devices)} × {kind}", devices, CHIPS.get(kind), memory)
