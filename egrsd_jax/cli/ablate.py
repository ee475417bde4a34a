"""Runs a grid of trainings, which one YAML file describes."""

from collections.abc import Sequence
from pathlib import Path

from egrsd_jax.command_line import OneLineParser, exit_for
from egrsd_jax.presets import grid_file
from egrsd_jax.runs import stopping

STOPS_WITHIN = 60  # seconds for the cells to write their checkpoints
MAX_EXIT_CODE = 99  # largest exit code that counts cells
DETAILS = """Any option of training may follow; it holds for every cell and replaces the file's values:
--train.steps 4, --seed "[0, 1]". The same command resumes a grid that was stopped, joins one that runs on another
host or in another process, and retries what failed. The exit code is the number of failed cells.
docs/ablations.md explains the file."""


def main(argv: Sequence[str], program: str) -> None:
    """Arguments to grid to one call."""
    parser = OneLineParser(prog=program, description=__doc__, epilog=DETAILS, allow_abbrev=False)
    parser.add_argument("grid", type=Path, metavar="GRID", help="a YAML file, or a preset: arithmetic_gamma_window")
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="cells at a time, each on its share of the CPUs; 1"
    )
    parser.add_argument("--list", action="store_true", help="print the cells and how far each is, and run nothing")
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
