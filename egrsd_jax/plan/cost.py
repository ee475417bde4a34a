"""What a compiled program costs one device: FLOPs, bytes of main memory, and bytes sent to other devices.

Every loop counts as often as it turns. FLOPs are those of matrix products, two per multiply-add; bytes are those that
instructions read and write in main memory, each operand once, without what a fusion keeps to itself or the compiler
keeps on the chip; bytes sent assume ring collectives, which move the least.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from egrsd_jax.plan.loops import loop_turns
from egrsd_jax.plan.program import Array, Computation, Instruction, Program

COLLECTIVES = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "ragged-all-to-all", "collective-permute")

# Matrix products of the attention kernels that a causal block of queries and keys takes (ops/splash_attention.py):
# forward q·k, p·v; for the queries' gradient q·k, do·v, ds·k; for the keys' and values' q·k, do·v, p·do, ds·q.
ATTENTION_PRODUCTS = {"splash_mha_fwd": 2, "splash_mha_dq": 3, "splash_mha_dkv": 4}
RAGGED_ATTENTION = "ragged_attention"  # of one token a row (ops/ragged_attention.py): q·k, p·v

_FREE = {  # they name, pass on or reserve what is there
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "after-all",
    "partition-id",
    "replica-id",
    "optimization-barrier",
    "add-dependency",
    "domain",
}
_RESERVES = {"AllocateBuffer", "AssumeGatherIndicesInBound", "Sharding", "SPMDFullToShardShape"}
_SLICES = {"dynamic-slice", "slice", "gather"}
_WINDOW_DEFAULTS = {"stride": 1, "lhs_dilate": 1, "rhs_dilate": 1, "pad": 0}


class Cost(NamedTuple):
    """What a part of a program costs one device, and what of it could not be counted."""

    flops: float = 0.0
    bytes: float = 0.0
    sent: Counter = Counter()  # noqa: RUF012  (added to, never changed) bytes by kind of collective
    uncounted: frozenset[str] = frozenset()

    def __add__(self, other: "Cost") -> "Cost":  # type: ignore[override]
        return Cost(
            self.flops + other.flops,
            self.bytes + other.bytes,
            self.sent + other.sent,
            self.uncounted | other.uncounted,
        )

    def times(self, turns: int) -> "Cost":
        """The cost of so many turns."""
        sent = Counter({kind: turns * count for kind, count in self.sent.items()})
        return Cost(turns * self.flops, turns * self.bytes, sent, self.uncounted)


def program_cost(program: Program) -> Cost:
    """The cost of one run of a program."""
    return _Costs(program).of(program.entry)


def loop_cost(program: Program, turns: int) -> Cost:
    """One turn of the last loop of the entry computation that turns so often. Raises ValueError where there is none."""
    loops = (instruction for instruction in program.entry.instructions.values() if instruction.opcode == "while")
    matching = [loop for loop in loops if loop_turns(program, program.entry, loop) == turns]
    if not matching:
        raise ValueError(f"the compiled program has no loop of {turns} turns")
    return _Costs(program).turn(matching[-1])


class _Costs:
    """The cost of each computation of a program, each worked out once."""

    def __init__(self, program: Program):
        self._program = program
        self._known: dict[str, Cost] = {}

    def of(self, computation: Computation) -> Cost:
        """One run of a computation."""
        if computation.name not in self._known:
            parts = (self._instruction(computation, instruction) for instruction in computation.instructions.values())
            self._known[computation.name] = sum(parts, Cost())
        return self._known[computation.name]

    def turn(self, loop: Instruction) -> Cost:
        """One turn of a loop, its condition included."""
        return sum((self._named(name) for name in loop.called), Cost())

    def _named(self, name: str) -> Cost:
        return self.of(self._program.computations[name])

    def _instruction(self, computation: Computation, instruction: Instruction) -> Cost:
        opcode = instruction.opcode
        if opcode in _FREE or opcode.endswith("-done"):
            return Cost()
        if opcode == "while":
            turns = loop_turns(self._program, computation, instruction)
            once = self.turn(instruction)
            unknown = Cost(uncounted=frozenset([f"turns of the loop {instruction.name}, taken as one"]))
            return once + unknown if turns is None else once.times(turns)
        if opcode == "conditional":  # one branch runs; the most expensive one is planned for
            return max((self._named(name) for name in instruction.called), key=lambda cost: (cost.flops, cost.bytes))
        if opcode in ("call", "async-start"):
            return sum((self._named(name) for name in instruction.called), Cost())
        moved = Cost(bytes=_bytes_moved(self._program, computation, instruction))
        if opcode == "fusion":
            return moved + self._named(instruction.called[0])._replace(bytes=0.0)  # its bytes are those at its edge
        return moved + _arithmetic(computation, instruction) + _exchange(computation, instruction)


def _arithmetic(computation: Computation, instruction: Instruction) -> Cost:
    """FLOPs of a matrix product, in whatever form the compiler gave it."""
    if instruction.opcode == "dot":
        left = computation.operand(instruction, 0).arrays[0]
        contracted = _numbers(instruction.attribute("lhs_contracting_dims"))
        return Cost(flops=2.0 * instruction.arrays[0].size * math.prod(left.dims[dim] for dim in contracted))
    if instruction.opcode == "convolution":
        return Cost(flops=_convolution_flops(computation, instruction))
    if instruction.opcode == "custom-call":
        return _custom_call(computation, instruction)
    return Cost()


def _custom_call(computation: Computation, instruction: Instruction) -> Cost:
    target = (instruction.attribute("custom_call_target") or "").strip('"')
    if instruction.name.startswith(RAGGED_ATTENTION):
        query, key = [array for array in _operand_arrays(computation, instruction) if len(array.dims) == 4][:2]
        return Cost(flops=2.0 * 2 * math.prod(query.dims) * key.dims[-1])  # as if every row filled its cache
    kernel = next((kernel for kernel in ATTENTION_PRODUCTS if instruction.name.startswith(kernel)), None)
    if kernel is None:
        known = target != "tpu_custom_call" and not target.startswith(("__cublas", "__cudnn", "__onednn"))
        return Cost() if known else Cost(uncounted=frozenset([f"FLOPs of the kernel {target} {instruction.name}"]))
    mask, _, query, key = (computation.operand(instruction, index).arrays[0] for index in range(4))
    # The mask is kept as blocks [heads or 1, blocks of queries, most blocks of keys that one of them sees].
    rows, columns = mask.dims[-2:]
    blocks = min(rows * columns, rows * (rows + 1) // 2)  # those on and under the diagonal
    block = query.dims[-2] // rows * (key.dims[-2] // rows)
    heads, head_dim = math.prod(query.dims[:-2]), query.dims[-1]
    return Cost(flops=2.0 * ATTENTION_PRODUCTS[kernel] * heads * blocks * block * head_dim)


def _convolution_flops(computation: Computation, instruction: Instruction) -> float:
    """Products of a convolution, which is what XLA makes of a matrix product on a TPU. Padding costs nothing."""
    labels, _, out_labels = (instruction.attribute("dim_labels") or "").partition("->")
    left_labels, right_labels = labels.split("_")
    left, right = (computation.operand(instruction, index).arrays[0] for index in range(2))
    out = instruction.arrays[0]
    window = _window(instruction.attribute("window") or "")
    pairs = 1
    for dim in range(len(left_labels) - 2):
        sizes = (array.dims[names.index(str(dim))] for array, names in ((left, left_labels), (out, out_labels)))
        pairs *= _window_pairs(*sizes, **{name: values[dim] for name, values in window.items()})
    rows = out.dims[out_labels.index("b")]
    columns, contracted = (right.dims[right_labels.index(label)] for label in "oi")
    return 2.0 * rows * columns * contracted * pairs / int(instruction.attribute("batch_group_count") or 1)


def _window(text: str) -> dict[str, list[int]]:
    """`size=2x4 pad=1_1x0_0` as numbers for each dimension; of the padding only the part in front counts."""
    fields = dict(field.split("=") for field in text.split())
    sizes = [int(size) for size in fields.pop("size", "").split("x") if size]
    fields.pop("rhs_reversal", None)
    window = {name: [default] * len(sizes) for name, default in _WINDOW_DEFAULTS.items()} | {"size": sizes}
    return window | {
        name: [int(value.split("_")[0]) for value in re.split(r"(?<=\d)x", text)] for name, text in fields.items()
    }


def _window_pairs(entries: int, places: int, *, size, stride, pad, lhs_dilate, rhs_dilate) -> int:
    """How many pairs of an input entry and a window entry meet along one dimension."""
    if size == 1 and stride == 1 and lhs_dilate == 1 and pad == 0:
        return places
    at = np.arange(places)[:, None] * stride + np.arange(size)[None, :] * rhs_dilate - pad
    return int(np.sum((at >= 0) & (at < (entries - 1) * lhs_dilate + 1) & (at % lhs_dilate == 0)))


def _exchange(computation: Computation, instruction: Instruction) -> Cost:
    """Bytes that a device sends in a collective, as a ring does it: what it receives it also sends."""
    kind = instruction.opcode.removesuffix("-start")
    if kind not in COLLECTIVES or _carried_on(computation, instruction):
        return Cost()
    given = sum(array.bytes for array in _operand_arrays(computation, instruction))
    if kind == "collective-permute":
        return Cost(sent=Counter({kind: given}))
    group = _group_size(instruction)
    share = (group - 1) / group
    return Cost(
        sent=Counter(
            {
                kind: {
                    "all-gather": given * (group - 1),
                    "reduce-scatter": given * share,
                    "all-reduce": 2 * given * share,
                    "all-to-all": given * share,
                    "ragged-all-to-all": given * share,
                }[kind]
            }
        )
    )


def _carried_on(computation: Computation, collective: Instruction) -> bool:
    """Whether a collective was started by another fusion, and here only continues alongside other work or ends.

    The compiler writes such a collective into every fusion that it runs along with, under one chain.
    """
    if "chain_id" not in collective.attributes:
        return False
    starts = "AsyncCollectiveStart"
    return not any(starts in instruction.attributes for instruction in computation.instructions.values())


def _group_size(instruction: Instruction) -> int:
    """Devices that take part together: `{{0,1},{2,3}}`, `[4,2]<=[8]` or `mesh['a'=4,'b'=2] {'b'}`."""
    text = instruction.attributes
    if listed := re.search(r"replica_groups=\{\{([\d,]*)\}", text):
        return len(_numbers(listed[1]))
    if tiled := re.search(r"replica_groups=\[(\d+),(\d+)\]", text):
        return int(tiled[2])
    if meshed := re.search(r"replica_groups=@?mesh[^\[]*\[([^\]]*)\].*?\{('[^}]*)\}", text):
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", meshed[1]))
        axes = re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", meshed[2])  # an axis, or part of one: 'a':(2)4
        return math.prod(int(part or sizes[axis]) for axis, part in axes)
    raise ValueError(f"the devices of the collective {instruction.name} cannot be read: {text[:200]}")


def _bytes_moved(program: Program, computation: Computation, instruction: Instruction) -> float:
    """Bytes of main memory that an instruction reads and writes."""
    opcode, written = instruction.opcode, sum(array.main_bytes for array in instruction.arrays)
    if opcode == "custom-call" and (instruction.attribute("custom_call_target") or "").strip('"') in _RESERVES:
        return 0.0
    if opcode == "fusion":
        inner = program.computations[instruction.called[0]]
        read = sum(_read(program, inner, inner.parameters[place]) for place in range(len(instruction.operands)))
        return read + _written(program, inner, inner.instructions[inner.root])
    if opcode.endswith("-start"):
        return _bytes_started(computation, instruction)
    if opcode in _SLICES:
        return 2.0 * written
    if opcode == "dynamic-update-slice":
        return 2.0 * computation.operand(instruction, 1).arrays[0].main_bytes
    return written + sum(array.main_bytes for array in _operand_arrays(computation, instruction))


def _bytes_started(computation: Computation, start: Instruction) -> float:
    """Bytes of a transfer whose result names both ends: of a copy where it goes and whence, of others the reverse."""
    given = list(_operand_arrays(computation, start))
    count = len(given)
    to = (start.arrays[:count] if start.opcode == "copy-start" else start.arrays[count : 2 * count]) or start.arrays
    written = sum(array.main_bytes for array in to)
    if start.opcode.endswith("slice-start"):  # of what is given it reads as much as it makes
        return written + (to[0].bytes if given[0].main_memory else 0.0)
    return written + sum(array.main_bytes for array in given)


def _operand_arrays(computation: Computation, instruction: Instruction) -> Iterator[Array]:
    return (array for name in instruction.operands for array in computation.instructions[name].arrays)


def _read(program: Program, inner: Computation, parameter: str) -> float:
    """Bytes that a fusion reads of one operand: of one that it only slices, the slices."""
    whole = inner.instructions[parameter].arrays[0].main_bytes
    if not whole:
        return 0.0
    return min(whole, sum(_read_by(program, inner, parameter, user) for user in inner.users(parameter)))


def _read_by(program: Program, inner: Computation, name: str, user: Instruction) -> float:
    if user.opcode in _SLICES and user.operands[0] == name:
        return user.arrays[0].bytes
    if user.opcode == "dynamic-update-slice" and user.operands[0] == name:
        return 0.0
    if user.opcode == "tuple" or "AsyncCollective" in user.attributes or _carried_on(inner, user):
        return 0.0  # handed on as it is
    if user.opcode == "bitcast":
        return sum(_read_by(program, inner, user.name, next_user) for next_user in inner.users(user.name))
    if user.opcode == "fusion":
        nested = program.computations[user.called[0]]
        places = [place for place, operand in enumerate(user.operands) if operand == name]
        return sum(_read(program, nested, nested.parameters[place]) for place in places)
    return inner.instructions[name].arrays[0].bytes


def _written(program: Program, inner: Computation, root: Instruction) -> float:
    """Bytes that a fusion writes: of a result that it only updates, the update."""
    if root.opcode == "tuple":
        return sum(_written(program, inner, inner.instructions[name]) for name in root.operands)
    if root.opcode == "dynamic-update-slice":
        return inner.operand(root, 1).arrays[0].bytes if root.arrays[0].main_memory else 0.0
    if root.opcode == "bitcast" and root.operands[0] not in inner.parameters.values():
        return _written(program, inner, inner.operand(root, 0))
    if root.opcode == "fusion":
        nested = program.computations[root.called[0]]
        return _written(program, nested, nested.instructions[nested.root])
    if root.opcode == "parameter" or "AsyncCollectiveDone" in root.attributes or _carried_on(inner, root):
        return 0.0  # there already
    return sum(array.main_bytes for array in root.arrays)


def _numbers(text: str | None) -> list[int]:
    return [int(number) for number in (text or "").split(",") if number.strip()]
