"""What all plots of an analysis share: size, colours, how token texts are shown, and writing PNG and SVG.

matplotlib is imported when the first is drawn: half a second that `--help` does not pay.
"""

import unicodedata
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GREEN, RED, BLUE, BROWN, GREY = "#0b6e4f", "#c8553d", "#2f5d8a", "#8a6d3b", "#7a7a7a"
REGIME_COLOURS = {"lock": "#b7c9c2", "mid": "#9a9a9a", "pivot": RED, "fork": BLUE}
LONGEST_TOKEN = 12  # characters of a token under an axis


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure, inches."""
    import matplotlib.figure

    return matplotlib.figure.Figure(figsize=(width, height), dpi=150, layout="constrained")


def row_of_panels(count: int, *, columns: int | None = None, width: float = 4.6, height: float = 3.6):
    """A figure and its panels with a light grid, `columns` side by side."""
    columns = columns or count
    rows = -(-count // columns)
    figure = new_figure(width * columns, height * rows)
    panels = [figure.add_subplot(rows, columns, place + 1) for place in range(count)]
    for axes in panels:
        axes.grid(alpha=0.3)
    return figure, panels


def save(figure: "Figure", folder: Path, name: str) -> None:
    """Writes NAME.png and NAME.svg. The same figure gives the same SVG, byte for byte."""
    import matplotlib

    figure.savefig(folder / f"{name}.png")
    figure.set_layout_engine("none")  # it is laid out: once is enough
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})


def visible(text: str, longest: int | None = LONGEST_TOKEN) -> str:
    """A token's text as a plot can show it: one line, no formula, visible blanks and line ends, nothing that the font
    lacks."""
    text = text.replace("\n", "↵").replace("\t", "⇥")
    text = text.strip() or "␣" * len(text)
    text = "".join(letter if _has_glyph(letter) else "□" for letter in text)
    if longest is not None and len(text) > longest:
        text = text[: longest - 1] + "…"
    return plain(text)


def plain(text: str) -> str:
    """Text in which no dollar starts a formula."""
    return text.replace("$", r"\$")


def token_axis(axes: Any, texts: list[str], first: int) -> None:
    """The tokens themselves as the ticks of an axis whose places are counted from `first`."""
    axes.set_xticks(range(first, first + len(texts)), [visible(text) for text in texts], rotation=90, fontsize=8)
    axes.set_xlim(first - 0.5, first + len(texts) - 0.5)
    for label in axes.get_xticklabels():
        label.set_family("monospace")


@cache
def _has_glyph(letter: str) -> bool:
    from matplotlib.font_manager import findfont, get_font

    if unicodedata.category(letter)[0] == "C":
        return False
    return get_font(findfont("DejaVu Sans Mono")).get_char_index(ord(letter)) != 0
