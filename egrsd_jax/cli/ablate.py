"""Runs a grid of trainings, which one YAML file describes."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from egrsd_jax.command_line import OneLineParser, exit_for
from egrsd_jax.presets import grid_file
from egrsd_jax.runs import stopping

if TYPE_CHECKING:
    from egrsd_jax.ablate.grid import Grid

STOPS_WITHIN = 60  # seconds for the cells to write their checkpoints
MAX_EXIT_CODE = 99  # largest exit code that counts cells
EVALUATED_TOKENS = 12_000  # about the mean length that the paper prints for its six sets (arXiv 2605.13255)
CANNOT_START = 1
DETAILS = """Any option of training may follow; it holds for every cell and replaces the file's values, and a list
varies the field: --train.steps 4, --seed "[0, 1]". The same command resumes a grid that was stopped, joins one that
runs on another host or in another process, and retries what failed. The exit code is the number of failed cells; with
--dry_run it is 0 where the grid can start and fits, and 1 where not.
docs/ablations.md explains the file."""


def main(argv: Sequence[str], program: str) -> None:
    """Arguments to grid to one call."""
    parser = OneLineParser(prog=program, description=__doc__, epilog=DETAILS, allow_abbrev=False)
    parser.add_argument("grid", type=Path, metavar="GRID", help="a YAML file, or a preset: arithmetic_gamma_window")
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="cells at a time, each on its share of the CPUs; 1"
    )
    parser.add_argument("--list", action="store_true", help="print the cells and how far each is, and run nothing")
    parser.add_argument(
        "--dry_run",
        action="store_true",
        help="check data, templates, lengths, memory and disk, count runs and hours, and run nothing",
    )
    parser.add_argument(
        "--on",
        action="append",
        default=[],
        metavar="KIND:CHIPS",
        help="with --dry_run: a machine to count hours and memory for, such as v5e:8, v5p:8 or H200:1; may be repeated",
    )
    parser.add_argument(
        "--evaluated_tokens",
        type=int,
        default=EVALUATED_TOKENS,
        metavar="N",
        help=f"with --dry_run: mean tokens of a sample of the grid's evaluations; {EVALUATED_TOKENS:,}",
    )
    arguments, options = parser.parse_known_args(argv)
    if arguments.jobs < 1:
        parser.error(f"--jobs is {arguments.jobs}; it must be at least 1")
    from egrsd_jax.ablate.grid import read_grid  # imported late: --help needs none of it
    from egrsd_jax.ablate.progress import GridProgress, show_states
    from egrsd_jax.ablate.run import run_grid
    from egrsd_jax.ablate.state import check_folders, state_of

    try:
        grid = read_grid(grid_file(arguments.grid), options)
        check_folders(grid)
    except (ValueError, OSError) as error:
        exit_for(program, error)
    if arguments.dry_run:
        _dry_run(grid, arguments, program)
        return
    if arguments.list:
        states = [(cell.name, state_of(grid, cell)) for cell in grid.cells]
        show_states([(name, state.kind, state.note) for name, state in states], str(grid.folder))
        return
    stopping.stops_within(STOPS_WITHIN, "the same command resumes the grid")
    try:
        with GridProgress(len(grid.cells), arguments.jobs) as progress:
            failed = run_grid(grid, progress, jobs=arguments.jobs)
    except OSError as error:
        exit_for(program, error)
    report = "python launch/report.py" if program.endswith(".py") else "egrsd report"
    print(f"{report} {grid.folder} makes tables and plots of it")
    raise SystemExit(min(failed, MAX_EXIT_CODE))


def _dry_run(grid: "Grid", arguments: argparse.Namespace, program: str) -> None:
    """Checks the grid and ends with the exit code that says whether it can start."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # it computes nothing, and takes no accelerator from what runs
    from egrsd_jax.ablate.state import state_of  # imported late, as in `main`
    from egrsd_jax.plan.estimate import machine
    from egrsd_jax.preflight.grid import Run, dry_run

    try:
        machines = [machine(text) for text in arguments.on]
        runs = []
        for cell in grid.cells:
            samples, rows = grid.evaluated_samples(cell)
            runs.append(Run(cell.name, cell.config, state_of(grid, cell).kind == "done", samples, rows))
        fine = dry_run(runs, machines, grid.folder, arguments.evaluated_tokens)
    except (ValueError, OSError) as error:
        exit_for(program, error)
    if not fine:
        raise SystemExit(CANNOT_START)
