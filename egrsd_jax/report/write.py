"""A report on several folders, or on a grid's: report.md, plots, and the same tables on the terminal."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from egrsd_jax.canvas import NO_PLOTS, can_plot
from egrsd_jax.report.comparison import common_benchmarks, overview, pair_with_first, paired_tables, points_of
from egrsd_jax.report.entries import read_entries
from egrsd_jax.report.plots import EVALUATION_PLOTS, draw_budgets, draw_frontier, draw_lengths
from egrsd_jax.report.published import comparable_rows
from egrsd_jax.report.tables import Table


def write_comparison(folders: Sequence[Path], to: Path) -> None:
    """Reads every folder, compares all with the first, writes the folder `to` and shows the tables.

    Raises ValueError or OSError of one line: a folder without results, nothing in common.
    """
    entries = read_entries(folders)
    common_benchmarks(points_of(entries))
    published, notes = comparable_rows(entries)
    tables = [*overview(entries, published, notes), *paired_tables(pair_with_first(entries))]
    to.mkdir(parents=True, exist_ok=True)
    if can_plot():
        draw_frontier(to / "frontier.png", entries, published)
        draw_budgets(to / "budgets.png", entries)
        draw_lengths(to / "lengths.png", entries)
    write_report(to, "Comparison", tables, EVALUATION_PLOTS if can_plot() else {})
    show_tables(tables, to)


def write_report(to: Path, title: str, tables: Sequence[Table], plots: Mapping[str, str]) -> None:
    """Writes report.md: the tables, then the plots by file name and what each shows."""
    shown = [f"![{what}]({name})\n" for name, what in plots.items()]
    text = "\n".join([f"# {title}\n", *(table.markdown() for table in tables), *shown])
    (to / "report.md").write_text(text, encoding="utf-8")


def show_tables(tables: Sequence[Table], to: Path) -> None:
    """Prints tables with their notes, and where they were written."""
    console = Console(highlight=False)
    for table in tables:
        console.print(table.rich())
        for note in table.notes:
            console.print(escape(note), style="dim")
    console.print(f"tables{' and plots' if can_plot() else ''}: {escape(str(to))}", soft_wrap=True)
    if not can_plot():
        console.print(escape(f"no plots: {NO_PLOTS}"), style="dim", soft_wrap=True)
