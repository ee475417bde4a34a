"""Reports a grid on the embedded task with forks: `python launch/forks.py GRID [--before FOLDER] [--to FOLDER]`."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the checkout that this file stands in, installed or not

from egrsd_jax.command_line import OneLineParser, exit_with  # noqa: E402

PROGRAM = "forks.py"


def main() -> None:
    """Arguments to one call."""
    parser = OneLineParser(prog=PROGRAM, description=__doc__, allow_abbrev=False)
    parser.add_argument("grid", type=Path, metavar="GRID", help="a grid's folder; docs/gate.md says of which file")
    parser.add_argument(
        "--before", type=Path, metavar="FOLDER", help="what launch/evaluate.py found of the model before training"
    )
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="the grid's own folder, forks/")
    arguments = parser.parse_args()
    from egrsd_jax.report.write import write_forks  # imported late: --help needs none of it

    try:
        write_forks(arguments.grid, arguments.before, arguments.to or arguments.grid / "forks")
    except (ValueError, OSError) as error:
        exit_with(PROGRAM, str(error))


if __name__ == "__main__":
    main()
