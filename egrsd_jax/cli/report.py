"""Compares evaluations and runs, or a grid's cells, in tables and plots."""

from collections.abc import Sequence
from pathlib import Path

from egrsd_jax.command_line import OneLineParser, exit_for


def main(argv: Sequence[str], program: str) -> None:
    """Arguments to one call."""
    parser = OneLineParser(prog=program, description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "folders",
        type=Path,
        nargs="+",
        metavar="FOLDER",
        help="of evaluations or runs, each compared with the first; or of one grid",
    )
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="runs/report; a grid's into its own folder, report/")
    arguments = parser.parse_args(argv)
    from egrsd_jax.ablate.report import write_grid  # imported late: --help needs none of it
    from egrsd_jax.ablate.results import is_grid
    from egrsd_jax.report.write import write_comparison

    folders, to = arguments.folders, arguments.to
    try:
        for folder in folders:
            if not folder.is_dir():
                raise ValueError(
                    f"{folder} is a file, not a folder" if folder.exists() else f"there is no folder {folder}"
                )
        if not any(map(is_grid, folders)):
            write_comparison(folders, to or Path("runs/report"))
        elif len(folders) == 1:
            write_grid(folders[0], to or folders[0] / "report")
        else:
            raise ValueError(f"a grid is reported by itself, and there are {len(folders)} folders")
    except (ValueError, OSError) as error:
        exit_for(program, error)
