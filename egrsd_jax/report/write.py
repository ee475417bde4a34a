"""A report on several folders, or on a grid's: report.md, pictures, and the same tables on the terminal."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from egrsd_jax.report.comparison import common_benchmarks, overview, pair_with_first, paired_tables, points_of
from egrsd_jax.report.entries import read_entries
from egrsd_jax.report.fork_pictures import FORK_PICTURES, draw_entropies, draw_measures
from egrsd_jax.report.forks import fork_tables, read_held_out
from egrsd_jax.report.grid import read_grid_results
from egrsd_jax.report.grid_pictures import draw_pictures
from egrsd_jax.report.grid_tables import grid_tables
from egrsd_jax.report.pictures import PICTURES, draw_budgets, draw_frontier, draw_lengths
from egrsd_jax.report.published import published_beside
from egrsd_jax.report.tables import Table

SHOWN = 3  # of a grid's tables, on the terminal


def write_comparison(folders: Sequence[Path], to: Path) -> None:
    """Reads every folder, compares all with the first, writes the folder `to` and shows the tables.

    Raises ValueError or OSError of one line: a folder without results, nothing in common.
    """
    entries = read_entries(folders)
    common_benchmarks(points_of(entries))
    published, notes = published_beside(entries)
    tables = [*overview(entries, published, notes), *paired_tables(pair_with_first(entries))]
    to.mkdir(parents=True, exist_ok=True)
    draw_frontier(to / "frontier.png", entries, published)
    draw_budgets(to / "budgets.png", entries)
    draw_lengths(to / "lengths.png", entries)
    _write(to, "Comparison", tables, PICTURES)
    _show(tables, to)


def write_grid(folder: Path, to: Path) -> None:
    """Reads a grid's folder, writes the folder `to` with all its tables and pictures, and shows the main tables.

    Raises ValueError or OSError of one line: no cell that ended, nothing in common.
    """
    found = read_grid_results(folder)
    tables = grid_tables(found)
    to.mkdir(parents=True, exist_ok=True)
    pictures = {f"{name}.png": title for name, title in draw_pictures(to, found).items()}
    _write(to, found.name, tables, pictures)
    _show(tables[:SHOWN], to)


def write_forks(folder: Path, before: Path | None, to: Path) -> None:
    """Reads a grid on the embedded task with forks, and an evaluation of its model from before training, writes the
    folder `to` with tables and pictures of diversity, re-checks and entropies, and shows the tables.

    Raises ValueError or OSError of one line: no cell that ended, a grid on another task.
    """
    found = read_grid_results(folder)
    tables = fork_tables(found, None if before is None else read_held_out(before))
    to.mkdir(parents=True, exist_ok=True)
    draw_measures(to / "measures.png", found)
    draw_entropies(to / "entropies.png", found)
    _write(to, f"{found.name}: forks", tables, FORK_PICTURES)
    _show(tables, to)


def _write(to: Path, title: str, tables: Sequence[Table], pictures: Mapping[str, str]) -> None:
    shown = [f"![{what}]({name})\n" for name, what in pictures.items()]
    text = "\n".join([f"# {title}\n", *(table.markdown() for table in tables), *shown])
    (to / "report.md").write_text(text, encoding="utf-8")


def _show(tables: Sequence[Table], to: Path) -> None:
    console = Console(highlight=False)
    for table in tables:
        console.print(table.rich())
        for note in table.notes:
            console.print(escape(note), style="dim")
    console.print(f"tables and pictures: {escape(str(to))}", soft_wrap=True)
