"""What all plots share: size, colours, panels, and how they are written. Imports nothing of the package.

matplotlib is imported when the first is made: half a second that `--help` does not pay.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GREEN, RED, BLUE, BROWN, GREY, PALE_GREEN = "#0b6e4f", "#c8553d", "#2f5d8a", "#8a6d3b", "#7a7a7a", "#b7c9c2"
COLOURS = (GREEN, RED, BLUE, BROWN, "#6b4c9a", "#3a7d8c", "#a23b72", "#5f6b3a")  # of lines that are compared

NO_PLOTS = "matplotlib is not installed: pip install 'egrsd-jax[plots]'"


def can_plot() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure, inches."""
    import matplotlib.figure

    return matplotlib.figure.Figure(figsize=(width, height), dpi=150, layout="constrained")


def make_panels(count: int, *, width: float = 5.2, height: float = 3.8, columns: int = 3) -> "tuple[Figure, list[Any]]":
    """A figure with `count` panels, inches each, with a light grid; at most `columns` in a row."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = new_figure(width * columns, height * rows)
    panels = [figure.add_subplot(rows, columns, number) for number in range(1, count + 1)]
    for axes in panels:
        axes.grid(alpha=0.3)
    return figure, panels


def save(figure: "Figure", path: Path, *, svg: bool = False) -> None:
    """Writes NAME.png, and with `svg` NAME.svg next to it. The same figure gives the same SVG, byte for byte."""
    figure.savefig(path)
    if svg:
        import matplotlib

        name = path.name.removesuffix(".png")
        figure.set_layout_engine("none")  # it is laid out: once is enough
        with matplotlib.rc_context({"svg.hashsalt": name}):
            figure.savefig(path.with_name(f"{name}.svg"), metadata={"Date": None})


def keep_percent(axes: Any) -> None:
    """Ends an axis of percentages a little below 0 and above 100, however long its error bars are."""
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, -3), min(high, 103))


def plain(text: str) -> str:
    """Text as matplotlib should show it: no dollar starts a formula."""
    return text.replace("$", r"\$")
