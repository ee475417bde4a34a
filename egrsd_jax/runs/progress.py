"""What is shown while completions are sampled: one bar per set of problems, with tokens per second and time left."""

import time
from contextlib import ExitStack

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from egrsd_jax.compilation import CompilationNotices, listening


class EvaluationProgress:
    """Bars on the terminal, one for each `start`, and a line about each program that compiles for long."""

    def __init__(self, *, bar_width: int = 24):
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=bar_width),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[rate]}"),
            console=Console(highlight=False),
        )

    def __enter__(self) -> "EvaluationProgress":
        self._progress.start()
        say = CompilationNotices(lambda line: self._progress.console.print(line, markup=False))
        self._listening = ExitStack()
        self._listening.enter_context(listening(say))
        return self

    def __exit__(self, *_) -> None:
        self._listening.close()
        self._progress.stop()

    def start(self, name: str, *, done: int, total: int) -> None:
        """A new bar; `done` samples are there from an earlier start."""
        self._started, self._tokens = time.perf_counter(), 0
        self._bar = self._progress.add_task(escape(name), completed=done, total=total, rate="")
        if 0 < done < total:
            self._progress.console.print(f"resuming from {done:,} of {total:,} samples of {escape(name)}")

    def warn(self, text: str) -> None:
        """One line that begins with `warning`, above the bars."""
        self._progress.console.print(f"[yellow]warning:[/] {escape(text)}", soft_wrap=True)

    def advance(self, samples: int, tokens: int, occupancy: float | None = None) -> None:
        """Moves the bar by some samples and tokens; `occupancy` is the engine's, of its rows so far."""
        self._tokens += tokens
        rate = f"{self._tokens / (time.perf_counter() - self._started):,.0f} tokens/s"
        if occupancy is not None:
            rate += f", {100 * occupancy:.0f}% occupancy"
        self._progress.update(self._bar, advance=samples, rate=rate)
