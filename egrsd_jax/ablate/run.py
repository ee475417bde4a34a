"""Runs the cells of a grid that are not done: some processes at a time, and with other sessions on the same folder."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from egrsd_jax.ablate.grid import Cell, Grid, check_record, write_record
from egrsd_jax.ablate.progress import GridProgress
from egrsd_jax.ablate.state import (
    CLAIM,
    COMMAND,
    FAILURE,
    Work,
    failure_line,
    read_failure,
    state_of,
    work_left,
    write_failure,
)
from egrsd_jax.runs import stopping
from egrsd_jax.runs.lock import HEARTBEAT_SECONDS, Lock, take

SOURCE = str(Path(__file__).resolve().parents[2])  # the folder that holds egrsd_jax
OUTPUT = "output.txt"
KEPT_LINES, KEPT_BYTES = 20, 8192  # of a failed command's output
STOP_SECONDS = 30  # for a process that was asked to stop
POLL_SECONDS = 0.2
PR_SET_PDEATHSIG = 1


@dataclass
class _Running:
    """A cell that runs: its present command and process. `place` is its number among those that run at once."""

    cell: Cell
    folder: Path
    claim: Lock
    work: Work
    place: int
    process: subprocess.Popen
    output: IO[bytes]
    started: float = field(default_factory=time.monotonic)


def run_grid(grid: Grid, progress: GridProgress, *, jobs: int = 1, command: Sequence[str] = COMMAND) -> int:
    """Runs every cell that is neither done nor running elsewhere, `jobs` at a time; returns how many failed.

    A cell that failed in an earlier session is retried; one that fails during this session is not, whoever ran it.
    `command` is followed by `train` or `evaluate` and their options.
    """
    write_record(grid)
    session = _Session(grid, progress, jobs, command)
    try:
        session.run()
    finally:
        session.stop()
    states = [state_of(grid, cell).kind for cell in grid.cells]
    progress.end(states)
    return states.count("failed")


class _Session:
    """The cells that this process runs, and those of which it knows that nothing is left to do."""

    def __init__(self, grid: Grid, progress: GridProgress, jobs: int, command: Sequence[str]):
        self._grid, self._progress, self._jobs, self._command = grid, progress, jobs, command
        self._began = time.time()
        self._running: list[_Running] = []
        self._settled: set[str] = set()

    def run(self) -> None:
        """Until there is nothing left that this process could do."""
        filled_at, free = float("-inf"), True
        while True:
            if free or time.monotonic() - filled_at > HEARTBEAT_SECONDS:
                self._fill()
                filled_at = time.monotonic()
            if not self._running:
                return
            self._progress.show(len(self._settled), [run.cell.name for run in self._running])
            time.sleep(POLL_SECONDS)
            stopping.check()
            check_record(self._grid)
            ended = [run for run in self._running if run.process.poll() is not None]
            for run in [*self._running]:
                if run in ended:
                    self._advance(run)
                elif not run.claim.beat():  # another session took this one for dead
                    _stop(run)
                    self._drop(run)
            free = bool(ended)

    def stop(self) -> None:
        """Ends the processes that still run, and releases their cells."""
        for run in self._running:  # all at once: each may have a checkpoint to write
            run.process.terminate()
        for run in [*self._running]:
            _stop(run)
            self._drop(run)

    def _fill(self) -> None:
        """Starts cells until `jobs` are running."""
        for cell in self._grid.cells:
            if len(self._running) == self._jobs:
                return
            if cell.name not in self._settled and all(run.cell is not cell for run in self._running):
                self._try(cell)

    def _try(self, cell: Cell) -> None:
        folder = self._grid.folder_of(cell)
        if not work_left(self._grid, cell, self._command) or self._failed_now(folder):
            self._settled.add(cell.name)
        elif (claim := take(folder, CLAIM)) is not None:
            # checked again under the claim: another session may have ended it in between
            if (work := work_left(self._grid, cell, self._command)) and not self._failed_now(folder):
                self._start(cell, folder, claim, work[0], self._free_place())
            else:
                claim.release()
                self._settled.add(cell.name)

    def _start(self, cell: Cell, folder: Path, claim: Lock, work: Work, place: int) -> None:
        output = (folder / OUTPUT).open("ab")
        process = subprocess.Popen(
            work.command,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=_environment(),
            preexec_fn=_child_setup(place, self._jobs),
        )
        claim.name_child(process.pid)
        self._running.append(_Running(cell, folder, claim, work, place, process, output))

    def _advance(self, run: _Running) -> None:
        """What follows a command that ended: the next one, the cell's end, or its failure."""
        run.output.close()
        seconds, code = time.monotonic() - run.started, run.process.returncode
        left = work_left(self._grid, run.cell, self._command)
        if code == 0 and left and left[0].writes != run.work.writes:
            self._running.remove(run)
            self._start(run.cell, run.folder, run.claim, left[0], run.place)
            return
        if code == 0 and not left:
            (run.folder / FAILURE).unlink(missing_ok=True)
            self._progress.done(run.cell.name, seconds)
        else:
            output = _tail(run.folder / OUTPUT) if code else f"it ended, and wrote no {run.work.writes.name}"
            failure = write_failure(run.folder, run.work.command, code, output, time.time())
            self._progress.failed(run.cell.name, failure_line(failure), seconds)
        self._settled.add(run.cell.name)
        self._drop(run)

    def _drop(self, run: _Running) -> None:
        run.output.close()
        run.claim.release()
        self._running.remove(run)

    def _failed_now(self, folder: Path) -> bool:
        failure = read_failure(folder)
        return failure is not None and failure["time"] >= self._began

    def _free_place(self) -> int:
        return min(set(range(self._jobs)) - {run.place for run in self._running})


def _environment() -> dict[str, str]:
    """This process's, in which a child imports this very package, whatever the working directory is."""
    search = [SOURCE, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(search)}


def _child_setup(place: int, jobs: int) -> Callable[[], None] | None:
    """What a child does first, on Linux: to end with its parent, and to keep to its share of the processors, so that
    several trainings do not take turns on all of them. The one other thread waits for signals and holds no lock."""
    if sys.platform != "linux":
        return None
    processors = sorted(os.sched_getaffinity(0))
    share = processors[place::jobs] or processors
    library = ctypes.CDLL(None)

    def setup() -> None:
        library.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if jobs > 1:
            os.sched_setaffinity(0, share)

    return setup


def _stop(run: _Running) -> None:
    run.process.terminate()
    try:
        run.process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        run.process.kill()
        run.process.wait()


def _tail(file: Path) -> str:
    """The last lines of a file."""
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - KEPT_BYTES))
        return "\n".join(stream.read().decode("utf-8", "replace").splitlines()[-KEPT_LINES:])
