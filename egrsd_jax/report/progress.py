"""What an evaluation shows while it draws: one bar a benchmark, with tokens a second and the time left."""

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class EvaluationProgress:
    """Bars on the terminal, one for each `start`."""

    def __init__(self):
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[rate]}"),
            console=Console(highlight=False),
        )

    def __enter__(self) -> "EvaluationProgress":
        self._progress.start()
        return self

    def __exit__(self, *_) -> None:
        self._progress.stop()

    def start(self, benchmark: str, *, done: int, total: int) -> None:
        """A new bar; `done` samples are there from an earlier start."""
        self._started, self._tokens = time.perf_counter(), 0
        self._bar = self._progress.add_task(benchmark, completed=done, total=total, rate="")
        if 0 < done < total:
            self._progress.console.print(f"going on from {done:,} of {total:,} samples of {benchmark}")

    def advance(self, samples: int, tokens: int) -> None:
        """Moves the bar by some samples, which have this many tokens together."""
        self._tokens += tokens
        rate = self._tokens / (time.perf_counter() - self._started)
        self._progress.update(self._bar, advance=samples, rate=f"{rate:,.0f} tokens/s")
