"""Compares evaluations and training runs: `python launch/report.py FOLDER [FOLDER ...] [--to FOLDER]`."""

import argparse
import sys
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the checkout that this file stands in, installed or not

from egrsd_jax.command_line import exit_with  # noqa: E402

PROGRAM = "report.py"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Exit code 2 and one line on stderr."""
        exit_with(self.prog, message)


def main() -> None:
    """Arguments to one call."""
    parser = _Parser(prog=PROGRAM, description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "folders", type=Path, nargs="+", metavar="FOLDER", help="of an evaluation or a run; the first is compared with"
    )
    parser.add_argument("--to", type=Path, default=Path("runs/report"), metavar="FOLDER", help="runs/report")
    arguments = parser.parse_args()
    from egrsd_jax.report.write import write_comparison  # imported late: --help needs none of it

    try:
        write_comparison(arguments.folders, arguments.to)
    except (ValueError, OSError) as error:
        exit_with(PROGRAM, str(error))


if __name__ == "__main__":
    main()
