"""Tables that compare several policies: all metrics side by side, paired differences, and what it takes to see one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from egrsd_jax.evaluate.benchmarks import PAPERS
from egrsd_jax.evaluate.comparison import (
    Comparison,
    Difference,
    compare,
    difference_arms,
    holm,
    paired,
    problems_needed,
    samples_needed,
)
from egrsd_jax.evaluate.intervals import percentile_interval
from egrsd_jax.evaluate.metrics import Macro, macro, macro_replicates
from egrsd_jax.report.entries import Entry, Point
from egrsd_jax.report.published import Published
from egrsd_jax.report.tables import Table, count, count_with_error, percent
from egrsd_jax.report.unanswered import UNANSWERED, UNANSWERED_NOTE, unanswered_cells, warnings

TARGETS = (0.01, 0.02)  # differences of accuracy that one would like to see


def points_of(entries: Sequence[Entry]) -> list[Point]:
    """All points of all entries, in order."""
    return [point for entry in entries for point in entry.points]


def common_benchmarks(points: Sequence[Point]) -> list[str]:
    """The benchmarks that every point has, in the first one's order. Raises ValueError where there is none."""
    names = [name for name in points[0].scores if all(name in point.scores for point in points)]
    if not names:
        have = "; ".join(f"{point.label}: {', '.join(point.scores)}" for point in points)
        raise ValueError(f"these have no benchmark in common, so there is nothing to compare ({have})")
    return names


def overview(entries: Sequence[Entry], published: Sequence[Published] = (), notes: Sequence[str] = ()) -> list[Table]:
    """Every point's means over the benchmarks that all have, and its accuracy on each; then the printed rows."""
    points = points_of(entries)
    names = common_benchmarks(points)
    also = ("Rows marked (published) are the paper's, arXiv 2605.13255; it prints no errors.",) if published else ()
    explained = f"Over {', '.join(names)}; ± is one standard error over problems and samples."
    unanswered = [line for point in points for line in warnings([point.scores[name] for name in names], point.label)]
    means = Table(
        "Accuracy and length",
        ["", "Avg (%)", "95%", "AvgLen", "95%", "Eff", *UNANSWERED],
        [
            *(_means_row(point, names) for point in points),
            *([*published_means(row, names), *[""] * len(UNANSWERED)] for row in published),
        ],
        (explained, UNANSWERED_NOTE, *also, *notes, *unanswered),
    )
    if len(names) == 1:
        return [means]
    cells = [[point.label, *(_share(macro([point.scores[name]])) for name in names)] for point in points]
    cells += [[published_label(row), *(_published_share(row, name) for name in names)] for row in published]
    by_benchmark = [
        [point.label, *(" / ".join(unanswered_cells([point.scores[name]])) for name in names)] for point in points
    ]
    title = "No answer / cut off / ungradable, by benchmark"
    return [
        means,
        Table("Accuracy by benchmark (%)", ["", *names], cells),
        Table(title, ["", *names], by_benchmark, (UNANSWERED_NOTE,)),
    ]


@dataclass(frozen=True)
class Pairs:
    """A point against the first one: a comparison for each benchmark that can be paired, and why others cannot."""

    first: Point
    other: Point
    comparisons: list[Comparison]
    notes: list[str]

    def mean(self, channel: int) -> Difference | None:
        """The plain mean of the differences over several benchmarks, without a test."""
        names = [comparison.benchmark for comparison in self.comparisons]
        if len(names) < 2:
            return None
        arms = [difference_arms(*paired(self.first.scores[name], self.other.scores[name])) for name in names]
        parts = [(comparison.accuracy, comparison.length)[channel] for comparison in self.comparisons]
        value = float(np.mean([part.value for part in parts]))
        error = float(np.sqrt(np.sum([part.error**2 for part in parts])) / len(parts))
        return Difference(value, error, *percentile_interval(macro_replicates(arms)[:, channel]), float("nan"))


def pair_with_first(entries: Sequence[Entry]) -> list[Pairs]:
    """Every other point against the first one."""
    first, *others = points_of(entries)
    return [_pairs(first, other) for other in others]


def paired_tables(pairs: Sequence[Pairs]) -> list[Table]:
    """Paired differences of accuracy and of length, and what it would take to see a smaller one."""
    if not pairs:
        return []
    first = pairs[0].first.label
    return [
        _difference_table(f"Accuracy less that of {first} (points)", pairs, 0, lambda share: f"{100 * share:+.1f}"),
        _difference_table(f"Length less that of {first} (tokens)", pairs, 1, _signed),
        _power_table(pairs),
    ]


def headline(point: Point, names: Sequence[str]) -> Macro:
    """A point's means over some benchmarks."""
    return macro([point.scores[name] for name in names])


def _means_row(point: Point, names: Sequence[str]) -> list[str]:
    headlines = headline(point, names)
    return [
        point.label,
        _share(headlines),
        f"{percent(headlines.accuracy.low)}–{percent(headlines.accuracy.high)}",
        count_with_error(headlines.length.value, headlines.length.error),
        f"{count(headlines.length.low)}–{count(headlines.length.high)}",
        f"{headlines.efficiency.value:,.2f}",
        *unanswered_cells([point.scores[name] for name in names]),
    ]


def _share(means: Macro) -> str:
    return f"{percent(means.accuracy.value)} ± {percent(means.accuracy.error)}"


def published_means(row: Published, names: Sequence[str]) -> list[str]:
    """A printed row: its means where they are of the same benchmarks, its accuracy where there is one benchmark."""
    if sorted(names) == sorted(PAPERS) and row.mean_accuracy is not None:
        mean, length, efficiency = f"{row.mean_accuracy:.2f}", "", ""
        if row.length is not None:
            length = f"{'~' if row.approximate else ''}{row.length:,.0f}"
            efficiency = f"{row.mean_accuracy / (row.length / 1000):.2f}"
        return [published_label(row), mean, "", length, "", efficiency]
    return [published_label(row), _published_share(row, names[0]) if len(names) == 1 else "", "", "", "", ""]


def _published_share(row: Published, name: str) -> str:
    return f"{row.accuracy[name]:.2f}" if name in row.accuracy else ""


def published_label(row: Published) -> str:
    """What a printed row is called, marked as such."""
    return f"{row.model} {row.method} (published)"


def _pairs(first: Point, other: Point) -> Pairs:
    comparisons, notes = [], []
    for name in (name for name in first.scores if name in other.scores):
        try:
            comparisons.append(compare(first.scores[name], other.scores[name]))
        except ValueError as reason:
            notes.append(f"{other.label} is not paired: {reason}.")
    return Pairs(first, other, comparisons, notes)


def _difference_table(title: str, pairs: Sequence[Pairs], channel: int, show: Callable[[float], str]) -> Table:
    """One row per policy and benchmark; p-values are adjusted over the benchmarks of each policy."""
    rows: list[list[str]] = []
    for pair in pairs:
        channel_differences = [(comparison.accuracy, comparison.length)[channel] for comparison in pair.comparisons]
        adjusted = holm([difference.p for difference in channel_differences])
        for comparison, difference, p in zip(pair.comparisons, channel_differences, adjusted, strict=True):
            cells = [
                f"{comparison.problems:,}",
                *_difference_cells(difference, show),
                p_value(difference.p),
                p_value(p),
            ]
            rows.append([_row_label(pair, comparison.benchmark), *cells])
        if (mean := pair.mean(channel)) is not None:
            rows.append([_row_label(pair, "mean"), "", *_difference_cells(mean, show), "", ""])
    notes = list(dict.fromkeys(note for pair in pairs for note in pair.notes))
    notes.append(
        "Paired over N problems; p is of a two-sided sign-flip permutation test over problems, then adjusted over the "
        "benchmarks of a row's policy by Holm's rule."
    )
    return Table(title, ["", "N", "difference", "95%", "p", "p (Holm)"], rows, notes)


def _row_label(pairs: Pairs, benchmark: str) -> str:
    return f"{pairs.other.label}, {benchmark}" if len(pairs.other.scores) > 1 else pairs.other.label


def _difference_cells(difference: Difference, show: Callable[[float], str]) -> list[str]:
    return [
        f"{show(difference.value)} ± {show(difference.error).lstrip('+')}",
        f"{show(difference.low)} to {show(difference.high)}",
    ]


def _power_table(pairs: Sequence[Pairs]) -> Table:
    """What the variances of these very comparisons say about the next one."""
    columns = ["", "seen now"]
    for target in TARGETS:
        columns += [f"{100 * target:g}: problems", "or samples"]
    rows = [
        [_row_label(pair, comparison.benchmark), *_power_cells(comparison)]
        for pair in pairs
        for comparison in pair.comparisons
    ]
    note = (
        "Differences of accuracy, in points, that a two-sided test at 5% finds with 80% power: the smallest that was "
        "seen with these problems and samples; and for 1 and 2 points, how many problems with as many samples each, or "
        "how many samples of each of these problems ('none': no number does, the problems differ too much)."
    )
    return Table("What it takes to see a difference", columns, rows, (note,))


def _power_cells(pair: Comparison) -> list[str]:
    cells = [f"{100 * pair.visible:.1f}"]
    for target in TARGETS:
        if pair.components is None:
            cells += ["", ""]
            continue
        samples = samples_needed(pair.components, target, pair.problems)
        problems = problems_needed(pair.components, target, min(pair.samples))
        cells += [f"{problems:,}", "none" if samples is None else f"{samples:,}"]
    return cells


def p_value(value: float) -> str:
    """A p-value for a table."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _signed(tokens: float) -> str:
    return f"{tokens:+,.0f}" if abs(tokens) >= 1000 else f"{tokens:+.1f}"
