"""How far a cell is: done, failed, running, begun or waiting; and the commands that it still needs. Imports no jax."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from egrsd_jax.ablate.grid import Cell, Grid
from egrsd_jax.evaluate.samples import RESULTS
from egrsd_jax.runs.binding import settings_that_differ
from egrsd_jax.runs.checksums import checkpoint_steps
from egrsd_jax.runs.files import write_json
from egrsd_jax.runs.layout import (
    ALARMS,
    CHECKPOINTS,
    CONFIG,
    EVALUATIONS,
    METRICS,
    PROBES,
    PROFILES,
    SAMPLES,
    benchmarks_folder,
    evaluation_file,
    evaluation_files,
)
from egrsd_jax.runs.lock import holder
from egrsd_jax.runs.rows import gone, is_whole, read_checked

FAILURE = "failed.json"
CLAIM = "claim"  # the lock by which one process takes a cell; the commands that it starts lock the same folder as well
COMMAND = (sys.executable, "-P", "-m", "egrsd_jax")  # what the command's name and its options follow


@dataclass(frozen=True)
class State:
    """`note`: which process runs it, the step that it reached, or why it failed."""

    kind: Literal["done", "failed", "running", "begun", "waiting"]
    note: str = ""


@dataclass(frozen=True)
class Work:
    """A command, and the file or folder that it writes last."""

    command: list[str]
    writes: Path


def work_left(grid: Grid, cell: Cell, command: Sequence[str] = COMMAND) -> list[Work]:
    """The commands that a cell still needs, in order; none where it is done. Rows that were damaged since are work too:
    training, which has no more steps to do, sets them aside and names them."""
    folder, steps = grid.folder_of(cell), cell.config.train.steps
    trained = folder / (evaluation_file(steps) if cell.config.evaluation.path else f"{CHECKPOINTS}/{steps}")
    is_trained = trained.is_file() if cell.config.evaluation.path else steps in checkpoint_steps(folder / CHECKPOINTS)
    work = []
    if not is_trained or settings_that_differ(folder, cell.config) or not _rows_are_whole(folder):
        place = ["--run.dir", str(grid.folder), "--run.name", cell.name]
        work.append(Work([*command, "train", *cell.argv, *place], trained))
    for step in grid.evaluated_steps(cell):
        to = benchmarks_folder(folder, step)
        if not (to / RESULTS).is_file():
            options = ["--run", str(folder), "--step", str(step), "--to", str(to), *_options(grid)]
            work.append(Work([*command, "evaluate", *options], to / RESULTS))
    return work


def state_of(grid: Grid, cell: Cell) -> State:
    """How far a cell is."""
    folder = grid.folder_of(cell)
    if (who := holder(folder, CLAIM)) is not None:
        return State("running", f"{_progress(folder, cell)}; {who}".lstrip("; "))
    if not work_left(grid, cell):
        return State("done")
    if (failure := read_failure(folder)) is not None:
        return State("failed", failure_line(failure))
    begun = _progress(folder, cell)
    return State("begun", begun) if begun else State("waiting")


def check_folders(grid: Grid) -> None:
    """Raises ValueError where a cell was begun with other settings than those it would be resumed with."""
    for cell in grid.cells:
        folder, steps = grid.folder_of(cell), cell.config.train.steps
        if not (reached := _steps_reached(folder)):
            continue
        changed = settings_that_differ(folder, cell.config)
        if max(reached) > steps:
            changed = [f"it is at step {max(reached)}, and train.steps is {steps}", *changed]
        if changed:
            raise ValueError(
                f"{folder} was begun with other settings: {'; '.join(changed)}; give those, or another --run.name"
            )


def write_failure(folder: Path, command: Sequence[str], exit_code: int, output: str, when: float) -> dict[str, Any]:
    """Writes how a cell failed into its folder, and returns it."""
    failure = {"command": list(command), "exit_code": exit_code, "time": when, "output": output}
    write_json(folder / FAILURE, failure, indent=1)
    return failure


def read_failure(folder: Path) -> dict[str, Any] | None:
    """What `write_failure` wrote, or None."""
    try:
        return json.loads((folder / FAILURE).read_bytes())
    except (FileNotFoundError, ValueError):
        return None


def failure_line(failure: dict[str, Any]) -> str:
    """A failure in one line: the exit code and the last line of the output."""
    lines = [line for line in failure["output"].splitlines() if line.strip()]
    code = failure["exit_code"]
    how = f"exit code {code}" if code >= 0 else f"ended by signal {-code}"
    return ": ".join([how, *(" ".join(line.split()) for line in lines[-1:])])


def _rows_are_whole(folder: Path) -> bool:
    try:
        for file in evaluation_files(folder).values():
            read_checked(file)
    except ValueError:
        return False
    if gone(folder, EVALUATIONS):
        return False
    return all(is_whole(folder / name) for name in (METRICS, PROFILES, PROBES, SAMPLES, ALARMS))


def _steps_reached(folder: Path) -> list[int]:
    """Steps of which a folder has a checkpoint or an evaluation, but for step 0, which a new start does again."""
    return [step for step in [*checkpoint_steps(folder / CHECKPOINTS), *evaluation_files(folder)] if step > 0]


def _progress(folder: Path, cell: Cell) -> str:
    if reached := _steps_reached(folder):
        return f"step {max(reached)} of {cell.config.train.steps}"
    return "before the first checkpoint" if (folder / CONFIG).is_file() else ""


def _options(grid: Grid) -> list[str]:
    """The options of the grid's `evaluate`, as the evaluation command takes them."""
    argv: list[str] = []
    for name, value in (grid.evaluate.options if grid.evaluate else {}).items():
        if isinstance(value, bool):
            argv.append(f"--{name}" if value else f"--no-{name}")
        else:
            argv += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return argv
