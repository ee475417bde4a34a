"""A compiled program read back from XLA's text: computations, instructions, and how often a loop turns.

XLA's own cost analysis counts the body of a loop once, and a scanned model is one loop; so the text is read here, with
the turns of every loop.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

_BITS = re.compile(r"(\d+)(?:e\d+m\d+\w*)?$")  # bf16, f32, s8, u4, and the eight-bit floats such as f8e4m3fn
_ARRAY = re.compile(r"([a-z]+\d*\w*)\[([\d,]*)\](\{[^}]*\})?")
_OPERAND = re.compile(r"%([\w.\-]+)")
_CALLS = "calls|to_apply|body|condition|called_computations|branch_computations|true_computation|false_computation"
_CALLED = re.compile(rf"(?:{_CALLS})=(\{{[^}}]*\}}|%[\w.\-]+)")
_COMMENT = re.compile(r"/\*.*?\*/")
_HEADER = re.compile(r"(ENTRY )?%([\w.\-]+) \(.*\{$")
_START = re.compile(r"  (ROOT )?%([\w.\-]+) = ")


class Array(NamedTuple):
    """An array of a program: one device's part of it."""

    bits: int
    dims: tuple[int, ...]
    main_memory: bool  # False: on-chip memory, where the compiler placed it ahead of its use

    @property
    def size(self) -> int:
        """Entries."""
        count = 1
        for dim in self.dims:
            count *= dim
        return count

    @property
    def bytes(self) -> int:
        """Bytes, in whatever memory, without padding."""
        return (self.size * self.bits + 7) // 8

    @property
    def main_bytes(self) -> int:
        """Bytes in main memory."""
        return self.bytes if self.main_memory else 0


class Instruction(NamedTuple):
    """One instruction: what it makes (several arrays, for a tuple), out of which others, and the rest of its text."""

    name: str
    arrays: tuple[Array, ...]
    opcode: str
    operands: tuple[str, ...]
    literal: str  # the text between the parentheses, for constants and parameters
    attributes: str

    @property
    def called(self) -> list[str]:
        """Names of the computations that it runs."""
        return [name for called in _CALLED.findall(self.attributes) for name in _OPERAND.findall(called)]

    def attribute(self, name: str) -> str | None:
        """The text of one attribute, braces removed."""
        match = re.search(rf"\b{name}=(?:\{{([^}}]*)\}}|([^,\s]+))", self.attributes)
        return None if match is None else match[1] if match[1] is not None else match[2]


class Computation:
    """Instructions by name, in the order that they run, and which of them is the result."""

    def __init__(self, name: str):
        self.name = name
        self.instructions: dict[str, Instruction] = {}
        self.root = ""
        self.parameters: dict[int, str] = {}

    def add(self, instruction: Instruction, *, root: bool) -> None:
        """Appends an instruction."""
        self.instructions[instruction.name] = instruction
        if root:
            self.root = instruction.name
        if instruction.opcode == "parameter":
            self.parameters[int(instruction.literal)] = instruction.name

    def users(self, name: str) -> Iterator[Instruction]:
        """Instructions that read `name`."""
        return (instruction for instruction in self.instructions.values() if name in instruction.operands)

    def operand(self, instruction: Instruction, index: int) -> Instruction:
        """The instruction that made an operand."""
        return self.instructions[instruction.operands[index]]


class Program(NamedTuple):
    """A compiled module: its computations by name, and the one that starts."""

    computations: dict[str, Computation]
    entry: Computation


def parse_program(text: str) -> Program:
    """Reads `compiled.as_text()`. Raises ValueError where there is no entry computation."""
    computations: dict[str, Computation] = {}
    entry = current = None
    for line in text.splitlines():
        if current is not None and (start := _START.match(line)):
            current.add(_instruction(start[2], line[start.end() :]), root=bool(start[1]))
        elif header := _HEADER.match(line):
            current = computations[header[2]] = Computation(header[2])
            entry = current if header[1] else entry
    if entry is None:
        raise ValueError("the compiled program's text has no ENTRY computation")
    return Program(computations, entry)


def _instruction(name: str, text: str) -> Instruction:
    text = _COMMENT.sub("", text)
    end = _closing(text, 0) if text.startswith("(") else text.index(" ")
    opcode, _, _ = text[end:].lstrip().partition("(")
    start = text.index("(", end)
    stop = _closing(text, start)
    literal = text[start + 1 : stop - 1]
    return Instruction(name, _arrays(text[:end]), opcode, tuple(_OPERAND.findall(literal)), literal, text[stop:])


def _closing(text: str, start: int) -> int:
    """The place behind the parenthesis that closes the one at `start`."""
    depth = 0
    for place in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if depth == 0:
            return place + 1
    raise ValueError(f"unbalanced parentheses in the compiled program: {text[:200]}")


def _arrays(text: str) -> tuple[Array, ...]:
    return tuple(
        Array(_bits(kind), tuple(int(dim) for dim in dims.split(",") if dim), "S(" not in layout)
        for kind, dims, layout in _ARRAY.findall(text)
    )


def _bits(kind: str) -> int:
    if kind == "pred":
        return 8
    match = _BITS.search(kind)
    return int(match[1]) if match else 0  # tokens and opaque values hold nothing
