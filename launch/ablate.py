"""Runs a grid of trainings: `python launch/ablate.py GRID.yaml [--jobs N] [--list] [--FIELD VALUE ...]`."""

import signal
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the checkout that this file stands in, installed or not

from egrsd_jax.command_line import OneLineParser, exit_with  # noqa: E402

PROGRAM = "ablate.py"
MOST = 99  # largest exit code that counts cells
DETAILS = """Any field of launch/train.py may follow, for every cell, and takes the place of the file's values:
--train.steps 4, --seed "[0, 1]". The same command goes on with a grid that was stopped, joins one that runs on another
host or in another process, and tries again what failed. The exit code is the number of failed cells.
docs/ablations.md explains the file."""


def main() -> None:
    """Arguments to grid to one call."""
    parser = OneLineParser(prog=PROGRAM, description=__doc__, epilog=DETAILS, allow_abbrev=False)
    parser.add_argument(
        "grid", type=Path, metavar="GRID.yaml", help="such as configs/ablate/arithmetic_gamma_window.yaml"
    )
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="cells at a time, each on its share of the CPUs; 1"
    )
    parser.add_argument("--list", action="store_true", help="print the cells and how far each is, and run nothing")
    arguments, options = parser.parse_known_args()
    if arguments.jobs < 1:
        parser.error(f"--jobs is {arguments.jobs}; it must be at least 1")
    from egrsd_jax.ablate.grid import read_grid  # imported late: --help needs none of it
    from egrsd_jax.ablate.progress import GridProgress, show_states
    from egrsd_jax.ablate.run import run_grid
    from egrsd_jax.ablate.state import check_folders, state_of

    try:
        grid = read_grid(arguments.grid, options)
        check_folders(grid)
    except (ValueError, OSError) as error:
        exit_with(PROGRAM, str(error))
    if arguments.list:
        states = [(cell.name, state_of(grid, cell)) for cell in grid.cells]
        show_states([(name, state.kind, state.note) for name, state in states], str(grid.folder))
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as schedulers end a job
    try:
        with GridProgress(len(grid.cells), arguments.jobs) as progress:
            failed = run_grid(grid, progress, jobs=arguments.jobs)
    except OSError as error:
        exit_with(PROGRAM, str(error))
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on", file=sys.stderr)
        raise SystemExit(130) from None
    raise SystemExit(min(failed, MOST))


if __name__ == "__main__":
    main()
