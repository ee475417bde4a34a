"""Runs the cells of a grid that are not done: some processes at a time, beside others that do the same."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from egrsd_jax.ablate.claim import HEARTBEAT_SECONDS, Claim, take
from egrsd_jax.ablate.grid import Cell, Grid, write_record
from egrsd_jax.ablate.progress import GridProgress
from egrsd_jax.ablate.state import FAILURE, LAUNCH, Work, failure_line, read_failure, state_of, work_left, write_failure

OUTPUT = "output.txt"
KEPT_LINES, KEPT_BYTES = 20, 8192  # of a failed command's output
STOP_SECONDS = 20  # for a process that was asked to stop
POLL_SECONDS = 0.2
PR_SET_PDEATHSIG = 1


@dataclass
class _Running:
    """A cell at work: the command that runs now, and its process."""

    cell: Cell
    folder: Path
    claim: Claim
    work: Work
    slot: int
    process: subprocess.Popen
    output: IO[bytes]
    started: float = field(default_factory=time.monotonic)


def run_grid(grid: Grid, progress: GridProgress, *, jobs: int = 1, launch: Path = LAUNCH) -> int:
    """Runs every cell that is neither done nor being worked on elsewhere, `jobs` at a time; returns how many failed.

    A cell that failed in an earlier session is tried again, one that fails in this session is not, whoever tried it.
    """
    write_record(grid)
    session = _Session(grid, progress, jobs, launch)
    try:
        session.run()
    finally:
        session.stop()
    states = [state_of(grid, cell).kind for cell in grid.cells]
    progress.end(states, grid.folder)
    return states.count("failed")


class _Session:
    """The cells at work in this process, and those of which it knows that nothing is left to do."""

    def __init__(self, grid: Grid, progress: GridProgress, jobs: int, launch: Path):
        self._grid, self._progress, self._jobs, self._launch = grid, progress, jobs, launch
        self._began = time.time()
        self._running: list[_Running] = []
        self._settled: set[str] = set()

    def run(self) -> None:
        """Until there is nothing left that this process could do."""
        looked, free = float("-inf"), True
        while True:
            if free or time.monotonic() - looked > HEARTBEAT_SECONDS:
                self._fill()
                looked = time.monotonic()
            if not self._running:
                return
            self._progress.show(len(self._settled), [each.cell.name for each in self._running])
            time.sleep(POLL_SECONDS)
            ended = [each for each in self._running if each.process.poll() is not None]
            for each in [*self._running]:
                if each in ended:
                    self._went_on(each)
                elif not each.claim.beat():  # another process took this one for dead
                    _stop(each)
                    self._drop(each)
            free = bool(ended)

    def stop(self) -> None:
        """Ends what still runs, and gives its cells back."""
        for each in [*self._running]:
            _stop(each)
            self._drop(each)

    def _fill(self) -> None:
        """Starts cells until `jobs` are at work."""
        for cell in self._grid.cells:
            if len(self._running) == self._jobs:
                return
            if cell.name not in self._settled and all(each.cell is not cell for each in self._running):
                self._try(cell)

    def _try(self, cell: Cell) -> None:
        folder = self._grid.folder_of(cell)
        if not work_left(self._grid, cell, self._launch) or self._failed_now(folder):
            self._settled.add(cell.name)
        elif (claim := take(folder)) is not None:
            # looked at again under the claim: another process may have ended it in between
            if (work := work_left(self._grid, cell, self._launch)) and not self._failed_now(folder):
                self._start(cell, folder, claim, work[0], self._free_slot())
            else:
                claim.release()
                self._settled.add(cell.name)

    def _start(self, cell: Cell, folder: Path, claim: Claim, work: Work, slot: int) -> None:
        output = (folder / OUTPUT).open("ab")
        process = subprocess.Popen(
            work.command,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            preexec_fn=_child_setup(slot, self._jobs),
        )
        claim.name_child(process.pid)
        self._running.append(_Running(cell, folder, claim, work, slot, process, output))

    def _went_on(self, each: _Running) -> None:
        """What follows a command that ended: the next one, the cell's end, or its failure."""
        each.output.close()
        seconds, code = time.monotonic() - each.started, each.process.returncode
        left = work_left(self._grid, each.cell, self._launch)
        if code == 0 and left and left[0].leaves != each.work.leaves:
            self._running.remove(each)
            self._start(each.cell, each.folder, each.claim, left[0], each.slot)
            return
        if code == 0 and not left:
            (each.folder / FAILURE).unlink(missing_ok=True)
            self._progress.done(each.cell.name, seconds)
        else:
            said = _tail(each.folder / OUTPUT) if code else f"it ended, and left no {each.work.leaves.name}"
            failure = write_failure(each.folder, each.work.command, code, said, time.time())
            self._progress.failed(each.cell.name, failure_line(failure), seconds)
        self._settled.add(each.cell.name)
        self._drop(each)

    def _drop(self, each: _Running) -> None:
        each.output.close()
        each.claim.release()
        self._running.remove(each)

    def _failed_now(self, folder: Path) -> bool:
        failure = read_failure(folder)
        return failure is not None and failure["time"] >= self._began

    def _free_slot(self) -> int:
        return min(set(range(self._jobs)) - {each.slot for each in self._running})


def _child_setup(slot: int, jobs: int) -> Callable[[], None] | None:
    """What a child does first, on Linux: to end with its parent, and to keep to its share of the processors, so that
    several trainings do not take turns on all of them. No thread runs here, so forking is safe."""
    if sys.platform != "linux":
        return None
    processors = sorted(os.sched_getaffinity(0))
    share = processors[slot::jobs] or processors
    library = ctypes.CDLL(None)

    def setup() -> None:
        library.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if jobs > 1:
            os.sched_setaffinity(0, share)

    return setup


def _stop(each: _Running) -> None:
    each.process.terminate()
    try:
        each.process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        each.process.kill()
        each.process.wait()


def _tail(file: Path) -> str:
    """The last lines of a file."""
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - KEPT_BYTES))
        return "\n".join(stream.read().decode("utf-8", "replace").splitlines()[-KEPT_LINES:])
