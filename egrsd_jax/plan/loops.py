"""How often the loops of a compiled program turn."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from egrsd_jax.plan.program import Computation, Instruction, Program

_KNOWN_TURNS = re.compile(r'known_trip_count\\?"?:\s*\{\s*\\?"?n\\?"?:\s*\\?"?(\d+)')
_SAME_NUMBER = ("copy", "copy-start", "copy-done", "bitcast", "convert")


def loop_turns(program: Program, computation: Computation, loop: Instruction) -> int | None:
    """How often a `while` turns: as XLA states it, or else as its counter, its limit and its step say.

    For a loop that may also end early (a decoder that stops with its last row) this is the most it can turn. None where
    the counter cannot be made out.
    """
    if known := _KNOWN_TURNS.search(loop.attributes):
        return int(known[1])
    condition, body = (program.computations[str(loop.attribute(name)).lstrip("%")] for name in ("condition", "body"))
    for index, limit in _limits(program, condition):
        first, step = _first(program, computation, loop, index), _step(program, body, index)
        if first is not None and step is not None and step > 0:
            return max(-(-(limit - first) // step), 0)
    return None


class _Value(NamedTuple):
    """An instruction with its computation; inside a fusion, also the fusion."""

    computation: Computation
    instruction: Instruction
    fusion: "_Value | None" = None

    def operand(self, index: int) -> "_Value":
        return self._replace(instruction=self.computation.operand(self.instruction, index))


def _limits(program: Program, condition: Computation) -> Iterator[tuple[int, int]]:
    """(which element of the loop's tuple, what it stays under) of every comparison that the condition makes."""
    for value in _values(program, condition):
        if value.instruction.opcode != "compare":
            continue
        left, right = (_resolved(program, value.operand(index)) for index in range(2))
        if value.instruction.attribute("direction") == "GT":
            left, right = right, left
        elif value.instruction.attribute("direction") != "LT":
            continue
        index, limit = _element(left), _number(right)
        if index is not None and limit is not None:
            yield index, limit


def _first(program: Program, computation: Computation, loop: Instruction, index: int) -> int | None:
    """What element `index` of the loop's tuple is before the first turn, where it is a constant."""
    start = computation.operand(loop, 0)
    if start.opcode != "tuple":
        return None
    return _number(_resolved(program, _Value(computation, computation.operand(start, index))))


def _step(program: Program, body: Computation, index: int) -> int | None:
    """By how much one turn raises element `index` of the loop's tuple, where it adds a constant."""
    raised = _resolved(program, _Value(body, body.instructions[body.root]).operand(index))
    if raised.instruction.opcode != "add":
        return None
    terms = [_resolved(program, raised.operand(place)) for place in range(2)]
    steps = [_number(term) for term in terms if _element(term) != index]
    return steps[0] if len(steps) == 1 else None


def _values(program: Program, computation: Computation) -> Iterator[_Value]:
    """The instructions of a computation and those inside its fusions."""
    for instruction in computation.instructions.values():
        yield (value := _Value(computation, instruction))
        if instruction.opcode == "fusion":
            inner = program.computations[instruction.called[0]]
            yield from (_Value(inner, inside, value) for inside in inner.instructions.values())


def _resolved(program: Program, value: _Value) -> _Value:
    """Where a number comes from: through copies, into fusions and out of them again."""
    opcode = value.instruction.opcode
    if opcode in _SAME_NUMBER:
        return _resolved(program, value.operand(0))
    if opcode == "fusion":
        inner = program.computations[value.instruction.called[0]]
        return _resolved(program, _Value(inner, inner.instructions[inner.root], value))
    if opcode == "get-tuple-element" and (made := value.operand(0)).instruction.opcode in ("fusion", "tuple"):
        made = _resolved(program, made)
        return _resolved(program, made.operand(_index(value.instruction)))
    if opcode == "parameter" and value.fusion is not None:
        return _resolved(program, value.fusion.operand(int(value.instruction.literal)))
    return value


def _element(value: _Value) -> int | None:
    """Which element of the loop's tuple, the one parameter of its body and condition, a value is, or None."""
    if value.instruction.opcode != "get-tuple-element" or value.operand(0).instruction.opcode != "parameter":
        return None
    return _index(value.instruction)


def _index(get: Instruction) -> int:
    return int(get.attribute("index") or 0)


def _number(value: _Value) -> int | None:
    """The whole number that a constant is, or None."""
    literal = value.instruction.literal
    is_whole = value.instruction.opcode == "constant" and literal.lstrip("-").isdecimal()
    return int(literal) if is_whole else None
