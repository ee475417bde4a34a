"""What a run shows while it works: one progress bar, a sample completion now and then, a closing table."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from egrsd_jax.evaluate.scores import Scores, paired_difference
from egrsd_jax.rollout.requests import Completion

SAMPLE_WIDTH = 400  # characters of a sample that are shown
LINE_SECONDS = 30.0  # between the lines of a wait where no bar can be shown


class Terminal:
    """The console of one run. Everything that models or files wrote is escaped before it is shown."""

    def __init__(self, done: int, steps: int, *, quiet: bool = False, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._console = Console(highlight=False, quiet=quiet)
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[headline]}"),
            console=self._console,
        )
        self._task = self._progress.add_task("train", completed=done, total=steps, headline="")

    def __enter__(self) -> "Terminal":
        self._progress.start()
        return self

    def __exit__(self, *_) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        """One plain line."""
        self._console.print(escape(text), soft_wrap=True)

    def warn(self, text: str) -> None:
        """One line that begins with `warning`."""
        self._console.print(f"[yellow]warning:[/] {escape(text)}", soft_wrap=True)

    def step(self, done: int, metrics: dict[str, float]) -> None:
        """Moves the bar and shows the metrics that matter."""
        self._progress.update(self._task, completed=done, headline=headline(metrics))

    @contextmanager
    def wait(self, what: str, total: int) -> Iterator[Callable[[Completion], None]]:
        """A bar of its own while so many completions are sampled, which moves with each; where the output is no
        terminal, a line now and then."""
        bar = self._progress.add_task(what, total=total, headline="")
        started = last = self._clock()
        done = tokens = 0

        def advance(completion: Completion) -> None:
            nonlocal last, done, tokens
            done, tokens, now = done + 1, tokens + len(completion.tokens), self._clock()
            rate = f"{tokens / max(now - started, 1e-3):,.0f} tokens/s"
            self._progress.update(bar, completed=done, headline=rate)
            if not self._console.is_terminal and now - last >= LINE_SECONDS:
                last = now
                self.say(f"{what}: {done:,} of {total:,} completions after {now - started:.0f} s, {rate}")

        try:
            yield advance
        finally:
            self._progress.remove_task(bar)

    def sample(self, step: int, metrics: dict[str, float], text: str, *, correct: bool, answer: str) -> None:
        """A line of metrics and a completion, its head and tail where it is long."""
        verdict = "[green]correct[/]" if correct else f"[red]wrong[/] (answer: {escape(answer)})"
        shown = text if len(text) <= SAMPLE_WIDTH else f"{text[: SAMPLE_WIDTH // 2]} … {text[-SAMPLE_WIDTH // 2 :]}"
        self._console.print(f"[bold]step {step}[/]  {headline(metrics)}", soft_wrap=True)
        self._console.print(f"  {verdict} [dim]{escape(shown)}[/]", soft_wrap=True)

    def end(self) -> None:
        """The bar stays as it is; what follows is printed below it."""
        self._progress.stop()

    def closing_table(self, evaluations: Sequence[tuple[int, Scores]], title: str) -> None:
        """Held-out accuracy and length of every evaluation, and the paired change from first to last."""
        table = Table(title=escape(title), title_justify="left")
        for column in ("", "accuracy (%)", "length (tokens)", "no answer", "cut off", "ungradable"):
            table.add_column(column, justify="left" if not column else "right")
        for step, evaluation in evaluations:
            table.add_row(
                f"step {step}",
                f"{100 * evaluation.accuracy:.1f} ± {100 * evaluation.accuracy_error:.1f}",
                f"{evaluation.mean_length:.1f} ± {evaluation.length_error:.1f}",
                "" if evaluation.no_answer is None else f"{100 * evaluation.no_answer:.1f}%",
                f"{100 * evaluation.cut_off:.1f}%",
                f"{100 * evaluation.ungradable_share:.1f}%",
            )
        if len(evaluations) > 1:
            change = paired_difference(evaluations[0][1], evaluations[-1][1])
            table.add_section()
            table.add_row(
                "change",
                f"{100 * change['accuracy']:+.1f} ± {100 * change['accuracy_error']:.1f}",
                f"{change['length']:+.1f} ± {change['length_error']:.1f}",
                *[""] * 3,
            )
        self._console.print(table)
        first = evaluations[0][1]
        self.say(
            f"{len(first.correct)} held-out problems × {len(first.correct[0])} samples; "
            "± is one standard error over problems, paired in the last row"
        )


def headline(metrics: dict[str, float]) -> str:
    """The metrics of a step that people watch, on one line."""
    return (
        f"correct {100 * metrics['verified_share']:.0f}%  length {metrics['completion_length_mean']:.0f}  "
        f"reward {metrics['reward_mean']:.2f}  cut off {100 * metrics['cut_off_share']:.0f}%  "
        f"no answer {100 * metrics['no_answer_share']:.0f}%"
    )
