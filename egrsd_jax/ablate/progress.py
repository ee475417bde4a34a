"""What a grid shows while it runs: a line for each cell that ends, one bar, and the states of all cells."""

import time
from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

NAMES_SHOWN = 3


class GridProgress:
    """The terminal of one session. It is drawn when `show` is called, by no thread of its own."""

    def __init__(self, cells: int, jobs: int = 1):
        self._console = Console(highlight=False)
        self._cells, self._jobs = cells, jobs
        self._seconds: list[float] = []
        self._progress = Progress(
            TextColumn("[bold]cells"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}{task.fields[names]}"),
            console=self._console,
            auto_refresh=False,
        )
        self._task = self._progress.add_task("cells", total=cells, left="", names="")

    def __enter__(self) -> "GridProgress":
        self._progress.start()
        return self

    def __exit__(self, *_) -> None:
        self._progress.stop()

    def show(self, settled: int, running: Sequence[str]) -> None:
        """Moves the bar. The time left is that of the cells that ended here, on average, for those that did not."""
        left = ""
        if self._seconds:
            mean = sum(self._seconds) / len(self._seconds)
            left = f"about {_duration(mean * (self._cells - settled) / self._jobs)} left  "
        more = f" and {len(running) - NAMES_SHOWN} more" if len(running) > NAMES_SHOWN else ""
        names = escape(", ".join(running[:NAMES_SHOWN]) + more)
        self._progress.update(self._task, completed=settled, left=left, names=names, refresh=True)

    def done(self, name: str, seconds: float) -> None:
        """A cell came to its end."""
        self._seconds.append(seconds)
        self._console.print(f"[green]done[/] {escape(name)} in {_duration(seconds)}", soft_wrap=True)

    def failed(self, name: str, why: str, seconds: float) -> None:
        """A cell has failed."""
        self._console.print(f"[red]failed[/] {escape(name)} after {_duration(seconds)}: {escape(why)}", soft_wrap=True)

    def end(self, states: Sequence[str]) -> None:
        """The state of the grid when this session ends."""
        count = Counter(states)
        self._progress.update(self._task, completed=count["done"] + count["failed"], left="", names="", refresh=True)
        self._progress.stop()
        counts = ", ".join(
            f"{count[kind]} {kind}" for kind in ("done", "failed", "running", "begun", "waiting") if count[kind]
        )
        more = "" if count["done"] == len(states) else "; the same command resumes, and retries failed cells"
        self._console.print(f"{counts} of {len(states)} cells{more}")


def show_states(rows: Sequence[tuple[str, str, str]], title: str) -> None:
    """A table of cells `(name, state, note)`."""
    table = Table(title=escape(title), title_justify="left")
    for column in ("cell", "state", ""):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    Console(highlight=False).print(table)


def _duration(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.gmtime(seconds)) if seconds < 86400 else f"{seconds / 86400:.1f} days"
