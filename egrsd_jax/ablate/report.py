"""A grid's report: all its tables and plots in a folder, the main tables on the terminal."""

from pathlib import Path

from egrsd_jax.ablate.plots import draw_grid_plots
from egrsd_jax.ablate.results import read_grid_results
from egrsd_jax.ablate.tables import grid_tables
from egrsd_jax.canvas import can_plot
from egrsd_jax.report.write import show_tables, write_report

SHOWN = 3  # tables on the terminal


def write_grid(folder: Path, to: Path) -> None:
    """Reads a grid's folder, writes the folder `to` with all its tables and plots, and shows the main tables.

    Raises ValueError or OSError of one line: no cell that ended, nothing in common.
    """
    results = read_grid_results(folder)
    tables = grid_tables(results)
    to.mkdir(parents=True, exist_ok=True)
    plots = {f"{name}.png": title for name, title in draw_grid_plots(to, results).items()} if can_plot() else {}
    write_report(to, results.name, tables, plots)
    show_tables(tables[:SHOWN], to)
