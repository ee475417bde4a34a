"""Reports a grid on the task with forks: `python benchmarks/forks/report.py GRID [--before FOLDER] [--to FOLDER]`."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # this file's checkout, installed or not

from egrsd_jax.command_line import OneLineParser, exit_with  # noqa: E402

PROGRAM = "benchmarks/forks/report.py"


def main() -> None:
    """Arguments to one call."""
    parser = OneLineParser(prog=PROGRAM, description=__doc__, allow_abbrev=False)
    parser.add_argument("grid", type=Path, metavar="GRID", help="a grid's folder; docs/gate.md says of which file")
    parser.add_argument(
        "--before", type=Path, metavar="FOLDER", help="what launch/evaluate.py found of the model before training"
    )
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="the grid's own folder, forks/")
    arguments = parser.parse_args()

    try:
        write_forks(arguments.grid, arguments.before, arguments.to or arguments.grid / "forks")
    except (ValueError, OSError) as error:
        exit_with(PROGRAM, str(error))


def write_forks(folder: Path, before: Path | None, to: Path) -> None:
    """Reads a grid on the built-in task with forks, and an evaluation of its model from before training, writes the
    folder `to` with tables and plots of diversity, re-checks and entropies, and shows the tables.

    Raises ValueError or OSError of one line: no cell that ended, a grid on another task.
    """
    from benchmarks.forks.measures import fork_tables, read_held_out  # imported late: --help needs none of it
    from benchmarks.forks.plots import FORK_PLOTS, draw_entropies, draw_measures
    from egrsd_jax.ablate.results import read_grid_results
    from egrsd_jax.report.write import show_tables, write_report

    results = read_grid_results(folder)
    tables = fork_tables(results, None if before is None else read_held_out(before))
    to.mkdir(parents=True, exist_ok=True)
    draw_measures(to / "measures.png", results)
    draw_entropies(to / "entropies.png", results)
    write_report(to, f"{results.name}: forks", tables, FORK_PLOTS)
    show_tables(tables, to)


if __name__ == "__main__":
    main()
