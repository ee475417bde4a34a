"""How the plots of an analysis show tokens: colours of regimes, texts, and axes whose ticks are the tokens."""

import unicodedata
from functools import cache
from typing import Any

from egrsd_jax.canvas import BLUE, PALE_GREEN, RED, plain

REGIME_COLOURS = {"lock": PALE_GREEN, "mid": "#9a9a9a", "pivot": RED, "fork": BLUE}
LONGEST_TOKEN = 12  # characters of a token under an axis


def visible(text: str, longest: int | None = LONGEST_TOKEN) -> str:
    """A token's text as a plot can show it: one line, no formula, blanks and line ends visible, nothing that the font
    lacks."""
    text = text.replace("\n", "↵").replace("\t", "⇥")
    text = text.strip() or "␣" * len(text)
    text = "".join(letter if _has_glyph(letter) else "□" for letter in text)
    if longest is not None and len(text) > longest:
        text = text[: longest - 1] + "…"
    return plain(text)


def token_axis(axes: Any, texts: list[str], first: int) -> None:
    """The tokens themselves as the ticks of an axis whose positions are counted from `first`."""
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
