"""Plans a run: its programs compiled for a target, compared with its limits, and the largest micro-batch that fits."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from egrsd_jax.config import Config
from egrsd_jax.model.sharding import batch_shards
from egrsd_jax.plan.compiled import Compiled, compile_program
from egrsd_jax.plan.cost import Cost
from egrsd_jax.plan.steps import (
    Lengths,
    Lowered,
    Workload,
    bytes_per_device,
    cache_bytes,
    lower_rollout,
    lower_update,
    make_workload,
    padded_lengths,
    replicated_arrays,
)
from egrsd_jax.plan.targets import GIB, Chip, Target

REPLICATED = 100_000_000  # bytes from which on an array that every chip holds whole is worth a warning

Say = Callable[[str], None]


class Roofline(NamedTuple):
    """The least seconds by each limit of a chip, as if the others cost nothing."""

    compute: float
    memory: float
    network: float

    @property
    def binds(self) -> str:
        """The limit with the most seconds."""
        return max(zip(self, self._fields, strict=True))[1]

    @property
    def seconds(self) -> float:
        """What the program takes at least, whatever overlaps."""
        return max(self)


class Memory(NamedTuple):
    """Bytes per chip while one program runs."""

    base: float
    trained: float
    optimizer: float
    batch: float  # inputs of every step, and its outputs
    cache: float
    temporary: float

    @property
    def total(self) -> float:
        """All of it."""
        return sum(self)


@dataclass(frozen=True)
class Program:
    """One program of a step, compiled for `rows` completions at a time."""

    name: str
    lengths: Lengths
    rows: int
    compiled: Compiled
    memory: Memory | None  # None where the compiler refused it as too large

    def fits(self, limit: float | None) -> bool:
        """Whether it fits into so many bytes; where that is not known, whether the compiler took it."""
        return self.memory is not None and (limit is None or self.memory.total <= limit)


@dataclass(frozen=True)
class Search:
    """The update at some lengths: as configured, and with the largest micro-batch that fits."""

    configured: Program
    fitting: Program | None  # None: not even the smallest micro-batch fits

    @property
    def shown(self) -> Program:
        """The configured program where it fits or nothing does, or else the largest that fits."""
        if self.fitting is None or self.fitting.rows >= self.configured.rows:
            return self.configured
        return self.fitting


@dataclass(frozen=True)
class Plan:
    """Everything that is reported of a run on a target."""

    workload: Workload
    target: Target
    update: Search
    longest: Search | None  # with the longest teacher prompt that is admitted
    rollout: Program | None  # None: a server samples (rollout.server), on chips of its own
    warnings: list[str]

    @property
    def fits(self) -> bool:
        """Whether the run fits as it is configured, the longest prompts included where they were asked for."""
        searches = [self.update, *([self.longest] if self.longest else [])]
        programs = [search.configured for search in searches] + ([self.rollout] if self.rollout else [])
        return all(program.fits(self.target.memory) for program in programs)


def make_plan(
    config: Config, target: Target, *, student_prompt: int, teacher_prompt: int, longest: bool, say: Say
) -> Plan:
    """Compiles the update of a configuration for a target, and its rollout where no server samples; `say` gets a line
    before and after every compilation.

    Prompts are of so many tokens; with `longest` the update is planned again for teacher prompts of
    data.max_prompt_tokens. Raises ValueError, with a message of one line, where configuration, model and mesh do not go
    together.
    """
    compiler = Compiler(make_workload(config, target), say)
    return plan_with(compiler, target, student_prompt=student_prompt, teacher_prompt=teacher_prompt, longest=longest)


def plan_with(compiler: "Compiler", target: Target, *, student_prompt: int, teacher_prompt: int, longest: bool) -> Plan:
    """As `make_plan`, with a compiler that may have some of the programs already."""
    workload = compiler.workload
    lengths = padded_lengths(workload.config, student_prompt, teacher_prompt)
    far = padded_lengths(workload.config, student_prompt, workload.config.data.max_prompt_tokens)
    update = _search(compiler, lengths, target.memory)
    at_longest = _search(compiler, far, target.memory) if longest and far != lengths else None
    rollout = None if workload.config.rollout.servers else compiler.rollout(lengths)
    warnings = ([target.warning] if target.warning else []) + _warnings(workload, update, rollout)
    return Plan(workload, target, update, at_longest, rollout, warnings)


def roofline(cost: Cost, chip: Chip) -> Roofline:
    """The least seconds for a chip's arithmetic, for its memory, and for its links to other chips."""
    return Roofline(cost.flops / chip.flops, cost.bytes / chip.bandwidth, sum(cost.sent.values()) / chip.network)


def largest_fitting(sizes: Sequence[int], start: int, fits: Callable[[int], bool]) -> int | None:
    """The largest of ascending sizes that fits, by bisection from `sizes[start]`; None where the smallest does not.

    Where a size fits every smaller one is taken to fit too. No size is tried twice.
    """
    low, high, middle = -1, len(sizes), start  # sizes[low] fits, sizes[high] does not
    while high - low > 1:
        if fits(sizes[middle]):
            low = middle
        else:
            high = middle
        middle = (low + high) // 2
    return None if low < 0 else sizes[low]


def micro_batch_sizes(rows: int, shards: int, configured: int) -> list[int]:
    """Micro-batches to choose from: one row per batch shard, doubled up to all rows, and the configured one."""
    doubled = [shards]
    while doubled[-1] < rows:
        doubled.append(min(2 * doubled[-1], rows))
    return sorted({*doubled, configured})


class Compiler:
    """Compiles the programs of a workload, each once, and reports it, since each takes about a minute."""

    def __init__(self, workload: Workload, say: Say):
        self.workload, self._say = workload, say
        self._updates: dict[tuple[Lengths, int], Program] = {}
        self._rollouts: dict[Lengths, Program] = {}

    def update(self, lengths: Lengths, micro_batch: int) -> Program:
        """The gradient step with micro-batches of so many rows."""
        key = lengths, micro_batch
        if key not in self._updates:
            what = f"update, micro-batch {micro_batch}, teacher prompt {lengths.teacher:,}"
            lowered = lower_update(self.workload, lengths, micro_batch)
            compiled = self._compile(what, lowered)
            self._updates[key] = self._program("update", lengths, micro_batch, lowered, compiled, cache=0.0)
        return self._updates[key]

    def rollout(self, lengths: Lengths) -> Program:
        """Prefill and decode."""
        if lengths not in self._rollouts:
            workload = self.workload
            lowered = lower_rollout(workload, lengths)
            turns = workload.config.rollout.max_new_tokens
            compiled = self._compile(f"rollout of {workload.max_rows} completions", lowered, loop_turns=turns)
            cache = cache_bytes(workload, lengths)
            self._rollouts[lengths] = self._program(
                "rollout", lengths, workload.max_rows, lowered, compiled, cache=cache
            )
        return self._rollouts[lengths]

    def _compile(self, what: str, lowered: Lowered, *, loop_turns: int | None = None) -> Compiled:
        self._say(f"compiling the {what} ...")
        compiled = compile_program(lowered.program, loop_turns=loop_turns)
        outcome = compiled.refused or f"{compiled.temporary / GIB:.2f} GiB of temporary memory per chip"
        self._say(f"  {compiled.seconds:.0f} s, {outcome}")
        return compiled

    def _program(self, name: str, lengths: Lengths, rows: int, lowered: Lowered, compiled: Compiled, *, cache: float):
        """With the whole state in memory, whichever part of it the program itself takes."""
        if compiled.refused is not None:
            return Program(name, lengths, rows, compiled, None)
        state = self.workload.state
        memory = Memory(
            base=bytes_per_device(self.workload.base),
            trained=bytes_per_device(state.trainable),
            optimizer=bytes_per_device(state._replace(trainable={})),
            batch=bytes_per_device(lowered.inputs) + compiled.results,
            cache=cache,
            temporary=compiled.temporary - cache,
        )
        return Program(name, lengths, rows, compiled, memory)


def _search(compiler: Compiler, lengths: Lengths, limit: float | None) -> Search:
    workload = compiler.workload
    sizes = micro_batch_sizes(workload.rows, batch_shards(workload.mesh), workload.micro_batch)
    start = sizes.index(workload.micro_batch)
    if limit is None:  # nothing to compare a size with: only the configured one
        sizes, start = sizes[start : start + 1], 0
    largest = largest_fitting(sizes, start, lambda size: compiler.update(lengths, size).fits(limit))
    fitting = None if largest is None else compiler.update(lengths, largest)
    return Search(compiler.update(lengths, workload.micro_batch), fitting)


def _warnings(workload: Workload, update: Search, rollout: Program | None) -> list[str]:
    """What costs more than it has to, or could not be counted."""
    config, warnings = workload.config, []
    if workload.note is not None:
        warnings.append(f"attention without the TPU's own kernel, with memory of length squared: {workload.note}")
    if (asked := config.train.batch_size) != workload.rows:
        warnings.append(
            f"train.batch_size {asked} does not divide over {batch_shards(workload.mesh)} chips that share a batch: "
            f"{workload.rows - asked} of {workload.rows} rows are empty"
        )
    replicated = replicated_arrays({"base": workload.base, **workload.state._asdict()}, REPLICATED)
    if replicated:
        largest, largest_size = max(replicated, key=lambda named: named[1])
        warnings.append(
            f"{len(replicated)} arrays of over {REPLICATED / 1e6:.0f} MB are replicated on every chip, "
            f"{sum(size for _, size in replicated) / GIB:.2f} GiB together; the largest is {largest}, "
            f"{largest_size / 1e6:,.0f} MB"
        )
    programs = [update.shown, *([rollout] if rollout else [])]
    uncounted = set().union(*(program.compiled.cost.uncounted for program in programs))
    if uncounted:
        warnings.append(f"not counted in the costs: {', '.join(sorted(uncounted))}")
    return warnings
