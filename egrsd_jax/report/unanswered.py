"""What an accuracy does not show by itself: samples without an answer, cut off, or that could not be graded."""

from collections.abc import Sequence

import numpy as np

from egrsd_jax.evaluate.scores import Scores
from egrsd_jax.evaluate.watch import complaints
from egrsd_jax.report.tables import percent

UNANSWERED = ("no answer", "cut off", "ungradable")
UNANSWERED_NOTE = (
    "No answer: no box, an unfinished thought, nothing written, or cut off by the cap; cut off is a part of it. These "
    "and what could not be graded count as wrong."
)


def unanswered_cells(benchmarks: Sequence[Scores]) -> list[str]:
    """The three shares as plain means over benchmarks; blank where one is of a version that did not count
    it."""
    missing = [scores.no_answer for scores in benchmarks]
    known = [share for share in missing if share is not None]
    return [
        f"{percent(float(np.mean(known)))}%" if len(known) == len(missing) else "",
        f"{percent(float(np.mean([scores.cut_off for scores in benchmarks])))}%",
        f"{percent(float(np.mean([scores.ungradable_share for scores in benchmarks])))}%",
    ]


def warnings(benchmarks: Sequence[Scores], label: str = "") -> list[str]:
    """One line per benchmark and reason for which its accuracy says little."""
    of = f"{label}, " if label else ""
    return [
        f"Warning: {of}{scores.benchmark}: {line}."
        for scores in benchmarks
        for line in complaints(int(np.size(scores.correct)), scores.missing or {}, scores.ungradable)
    ]
