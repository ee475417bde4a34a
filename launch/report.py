"""Compares evaluations and runs, or a grid's cells: `python launch/report.py FOLDER [FOLDER ...] [--to FOLDER]`."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the checkout that this file stands in, installed or not

from egrsd_jax.command_line import OneLineParser, exit_with  # noqa: E402

PROGRAM = "report.py"


def main() -> None:
    """Arguments to one call."""
    parser = OneLineParser(prog=PROGRAM, description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "folders",
        type=Path,
        nargs="+",
        metavar="FOLDER",
        help="of evaluations or runs, of which the first is compared with; or of one grid",
    )
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="runs/report; a grid's into its own folder, report/")
    arguments = parser.parse_args()
    from egrsd_jax.ablate.report import write_grid
    from egrsd_jax.ablate.results import is_grid  # imported late: --help needs none of it
    from egrsd_jax.report.write import write_comparison

    folders, to = arguments.folders, arguments.to
    try:
        if not any(map(is_grid, folders)):
            write_comparison(folders, to or Path("runs/report"))
        elif len(folders) == 1:
            write_grid(folders[0], to or folders[0] / "report")
        else:
            raise ValueError(f"a grid is reported by itself, and there are {len(folders)} folders")
    except (ValueError, OSError) as error:
        exit_with(PROGRAM, str(error))


if __name__ == "__main__":
    main()
