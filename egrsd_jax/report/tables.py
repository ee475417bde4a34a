"""A table as one value, shown on the terminal and written as Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.markup import escape
from rich.table import Table as RichTable


@dataclass(frozen=True)
class Table:
    """A title, column names, rows of texts, and notes under it. The first column is flush left, the others right."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = field(default_factory=tuple)

    def markdown(self) -> str:
        """GitHub's Markdown, with a heading."""
        ruler = ["---", *["---:"] * (len(self.columns) - 1)]
        lines = [f"## {_plain(self.title)}", ""]
        lines += [_line(cells) for cells in (self.columns, ruler, *self.rows)]
        for note in self.notes:
            lines += ["", _plain(note)]
        return "\n".join(lines) + "\n"

    def rich(self) -> RichTable:
        """The same for a terminal, without the notes. What files or models named is escaped."""
        table = RichTable(title=escape(self.title), title_justify="left")
        for index, column in enumerate(self.columns):
            table.add_column(escape(column), justify="left" if index == 0 else "right", overflow="fold")
        for row in self.rows:
            table.add_row(*map(escape, row))
        return table


def percent(share: float) -> str:
    """A share as a percentage with one decimal."""
    return f"{100 * share:.1f}"


def count(tokens: float) -> str:
    """A number of tokens: whole from 1,000 on, where a tenth means nothing."""
    return f"{tokens:,.0f}" if abs(tokens) >= 1000 else f"{tokens:.1f}"


def count_with_error(tokens: float, error: float) -> str:
    """A mean length and its standard error, both whole where the length is."""
    return f"{tokens:,.0f} ± {error:,.0f}" if abs(tokens) >= 1000 else f"{tokens:.1f} ± {error:.1f}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_plain(cell).replace("|", r"\|") for cell in cells) + " |"


def _plain(text: str) -> str:
    """One line without control characters."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
