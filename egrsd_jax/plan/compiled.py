"""A lowered program compiled for its devices: its memory, its cost, and how long and how large the compilation was."""

import re
import time
from typing import NamedTuple

import jax

from egrsd_jax.plan.cost import Cost, loop_cost, program_cost
from egrsd_jax.plan.program import parse_program

_TOO_LARGE = re.compile(r"\((\d+(?:\.\d+)?)([KMGT])\) exceeds|[Uu]sed (\d+(?:\.\d+)?)([KMGT]) of")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class Compiled(NamedTuple):
    """What the compiler reports of a program, all of it for one device: bytes, FLOPs, and the seconds that it took."""

    arguments: float
    results: float  # beyond what is written over arguments
    temporary: float  # of a program that was refused: what it asked for
    cost: Cost
    loop: Cost | None  # one turn of the loop that was asked for
    seconds: float
    processor_seconds: float  # of all threads together: much the same on a busy machine
    text_bytes: int
    refused: str | None = None  # the compiler's reason, where the program does not fit the device


def compile_program(lowered: jax.stages.Lowered, *, loop_turns: int | None = None) -> Compiled:
    """Compiles a program and reads it; with `loop_turns` also the cost of one turn of the last loop of so many.

    A program that the compiler refuses because it is too large for the device comes back as `refused`.
    """
    started, processor_started = time.perf_counter(), time.process_time()
    refused = program = None
    try:
        program = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        refused = str(error)
    seconds, processor_seconds = time.perf_counter() - started, time.process_time() - processor_started
    if program is None:
        return _refused(str(refused), seconds, processor_seconds)
    memory, text = program.memory_analysis(), program.as_text()
    if memory is None or text is None:
        raise RuntimeError(f"XLA reports no memory analysis on {jax.default_backend()}")
    parsed = parse_program(text)
    return Compiled(
        arguments=memory.argument_size_in_bytes,
        results=memory.output_size_in_bytes - memory.alias_size_in_bytes,
        temporary=memory.temp_size_in_bytes,
        cost=program_cost(parsed),
        loop=None if loop_turns is None else loop_cost(parsed, loop_turns),
        seconds=seconds,
        processor_seconds=processor_seconds,
        text_bytes=len(text),
    )


def _refused(reason: str, seconds: float, processor_seconds: float) -> Compiled:
    match = _TOO_LARGE.search(reason)
    asked = 0.0 if match is None else float(match[1] or match[3]) * _UNITS[match[2] or match[4]]
    first = (reason.strip() or "it gave no reason").splitlines()[0].removeprefix("RESOURCE_EXHAUSTED: ")
    return Compiled(0.0, 0.0, asked, Cost(), None, seconds, processor_seconds, 0, refused=first)
