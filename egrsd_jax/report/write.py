"""A report on several folders: report.md, three pictures, and the same tables on the terminal."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from egrsd_jax.report.comparison import common_benchmarks, overview, pair_with_first, paired_tables, points_of
from egrsd_jax.report.entries import read_entries
from egrsd_jax.report.pictures import PICTURES, draw_budgets, draw_frontier, draw_lengths
from egrsd_jax.report.published import published_beside


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
    pictures = [f"![{title}]({name})\n" for name, title in PICTURES.items()]
    text = "\n".join(["# Comparison\n", *(table.markdown() for table in tables), *pictures])
    (to / "report.md").write_text(text, encoding="utf-8")
    console = Console(highlight=False)
    for table in tables:
        console.print(table.rich())
        for note in table.notes:
            console.print(escape(note), style="dim")
    console.print(f"tables and pictures: {escape(str(to))}")
