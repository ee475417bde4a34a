"""The tables of a grid. Which there are follows from what varies (docs/ablations.md has the rule).

A value is a mean over seeds, and of several benchmarks their plain mean; every ± is a standard error.
"""

from collections.abc import Sequence

import numpy as np

from egrsd_jax.ablate.results import Arm, ByBenchmark, GridResults, value_label
from egrsd_jax.evaluate.benchmarks import PAPERS
from egrsd_jax.evaluate.comparison import holm
from egrsd_jax.evaluate.scores import Scores
from egrsd_jax.evaluate.seeds import (
    SeedComparison,
    SeedDifference,
    Spread,
    accuracy,
    compare_seeds,
    efficiency,
    length,
    pooled,
)
from egrsd_jax.report.comparison import p_value, published_label, published_means
from egrsd_jax.report.tables import Table, count, count_with_error, percent
from egrsd_jax.report.unanswered import UNANSWERED, UNANSWERED_NOTE, unanswered_cells, warnings

BEFORE = "before training"
SWEEPS = {
    "method.gamma": "Gamma sweep",
    "method.window": "Lookahead sweep",
    "method.teacher": "Teacher schedules",
    "model.path": "Models",
}
OVER_SEEDS = "± is the standard error over seeds, of a single seed over problems"
TESTED = (
    "Paired by seed and problem; ± is the standard error over problems / over seeds. p is that of a two-sided "
    "sign-flip test over N problems, which takes the trained weights as they are; p (Holm) is adjusted over the "
    "table's rows. A difference is one between settings only if it is large compared with the error over seeds too."
)


def grid_tables(results: GridResults) -> list[Table]:
    """All tables of a grid, the main ones first."""
    return [
        comparison(results),
        *([by_benchmark(results)] if len(results.benchmarks) > 1 else []),
        *differences(results),
        *(sweep(results, axis) for axis in results.axes if len(results.axes) > 1),
        *(snapshots(results) if len(results.steps) > 1 else []),
        token_efficiency(results),
        every_run(results),
    ]


def comparison(results: GridResults) -> Table:
    """Accuracy, length, Eff and the shares without an answer of every arm, and which of these are alarming."""
    names = results.benchmarks
    starts = {label: _only(start, names) for label, start in before_training(results).items()}
    ends = {arm.label: [pooled(seeds) for seeds in zip(*finals(arm, names), strict=True)] for arm in results.arms}
    rows = [[label, "", *_metrics([start]), *unanswered_cells(start)] for label, start in starts.items()]
    for arm in results.arms:
        shares = unanswered_cells(ends[arm.label]) if arm.final else [""] * len(UNANSWERED)
        rows.append([arm.label, _seeds(arm), *_arm_metrics(arm, names), *shares])
    if sorted(names) == sorted(PAPERS):
        printed = [published_means(row, names) for row in results.published if row.mean_accuracy is not None]
        rows += [
            [label, "", mean, tokens, efficiency, *[""] * len(UNANSWERED)]
            for label, mean, _, tokens, _, efficiency in printed
        ]
    notes = [f"Over {', '.join(names)}. {OVER_SEEDS}; Eff is accuracy in percent per 1,000 tokens.", UNANSWERED_NOTE]
    if results.published:
        notes.append("Rows marked (published) are the paper's, arXiv 2605.13255; it prints no errors.")
    runs = [run for arm in results.arms for run in arm.runs]
    failed = [f"{run.folder.name} failed: {run.failure}." for run in runs if run.failure and run.final is None]
    alarming = [line for label, scores in (starts | ends).items() for line in warnings(scores, label)]
    columns = ["", "seeds", "accuracy (%)", "length", "Eff", *UNANSWERED]
    return Table("Comparison", columns, rows, [*notes, *results.notes, *failed, *alarming])


def by_benchmark(results: GridResults) -> Table:
    """Accuracy of every arm on each benchmark."""
    names = results.benchmarks
    rows = []
    for arm in results.arms:
        cells = [_percent(accuracy(finals(arm, [name]))) if arm.final else arm.absence for name in names]
        rows.append([arm.label, *cells])
    for row in results.published:
        if set(names) & set(row.accuracy):
            shown = [f"{row.accuracy[name]:.2f}" if name in row.accuracy else "" for name in names]
            rows.append([published_label(row), *shown])
    return Table("Accuracy by benchmark (%)", ["", *names], rows, [f"{OVER_SEEDS}."])


def differences(results: GridResults) -> list[Table]:
    """Every arm against the reference on each benchmark, tested, and the tests corrected over the whole table."""
    pairs: list[tuple[str, SeedComparison]] = []
    notes = [TESTED]
    for arm in results.arms:
        reference = results.reference(arm)
        for name in results.benchmarks if reference not in (None, arm) and arm.final else []:
            assert reference is not None
            try:
                label = f"{arm.label}, {name}" if len(results.benchmarks) > 1 else arm.label
                pairs.append((label, compare_arms(reference, arm, [name])))
            except ValueError as reason:
                notes.append(f"{arm.label} is not paired: {reason}.")
    if not pairs:
        return []
    tables = []
    for title, scale, sides in (
        ("Accuracy less that of {} (points)", 100, [pair.accuracy for _, pair in pairs]),
        ("Length less that of {} (tokens)", 1, [pair.length for _, pair in pairs]),
    ):
        rows = []
        p_values = [1.0 if side.p is None else side.p for side in sides]
        for (label, pair), side, p, adjusted in zip(pairs, sides, p_values, holm(p_values), strict=True):
            cells = [str(len(pair.seeds)), f"{pair.problems:,}", _difference(side, scale)]
            rows.append([label, *cells, p_value(p), p_value(adjusted)])
        columns = ["", "seeds", "N", "difference", "p", "p (Holm)"]
        tables.append(Table(title.format(results.reference_label), columns, rows, notes))
    return tables


def sweep(results: GridResults, axis: str) -> Table:
    """What one field changes: arms that agree in all others form a block, compared with the block's first row."""
    others = [other for other in results.axes if other != axis]
    blocks: dict[str, list[Arm]] = {}
    for arm in results.arms:
        blocks.setdefault(", ".join(value_label(other, arm.fields[other]) for other in others), []).append(arm)
    rows = []
    for label, arms in blocks.items():
        first = next((arm for arm in arms if arm.final), arms[0])
        for arm in arms:
            value = value_label(axis, arm.fields[axis])
            rows.append(
                [label, value, *_arm_metrics(arm, results.benchmarks), *_change(first, arm, results.benchmarks)]
            )
    columns = ["", "", "accuracy (%)", "length", "Eff", "accuracy − first", "length − first"]
    note = f"{OVER_SEEDS}. The last two columns are paired with the block's first row, ± over problems / over seeds."
    return Table(SWEEPS.get(axis, f"Sweep of {axis}"), columns, rows, [note])


def snapshots(results: GridResults) -> list[Table]:
    """Accuracy and length at every evaluated step."""
    tables = []
    for title, metric, shown in (("Accuracy (%)", accuracy, _percent), ("Length (tokens)", length, _tokens)):
        rows = []
        for arm in results.arms:
            at = [[_only(scores, results.benchmarks) for scores in arm.at(step).values()] for step in results.steps]
            rows.append([arm.label, *(shown(metric(seeds)) if seeds else arm.absence for seeds in at)])
        notes = [f"{OVER_SEEDS}, of those that reached the step."]
        tables.append(Table(f"{title} by step", ["", *map(str, results.steps)], rows, notes))
    return tables


def token_efficiency(results: GridResults) -> Table:
    """Tokens per correct answer, and the lengths of correct and wrong samples."""
    names, starts = results.benchmarks, before_training(results)
    rows = [[label, *_cost([_only(start, names)], [], [])] for label, start in starts.items()]
    for arm in results.arms:
        start, reference = starts.get(_start_label(results, arm)), results.reference(arm)
        before = [] if start is None else [_only(start, names)]
        against = [] if reference in (None, arm) else finals(reference, names)
        rows.append([arm.label, *(_cost(finals(arm, names), before, against) if arm.final else [arm.absence] * 6)])
    columns = [
        "",
        "Eff",
        f"from {BEFORE}",
        f"from {results.reference_label}",
        "tokens per correct answer",
        "length if correct",
        "if wrong",
    ]
    note = (
        f"{OVER_SEEDS}. Eff is accuracy in percent per 1,000 tokens; the two columns after it are its change from that "
        "of the policy they name. Tokens per correct answer: all tokens by the number of correct answers."
    )
    return Table("Token efficiency", columns, rows, [note])


def every_run(results: GridResults) -> Table:
    """Accuracy and length of each seed, and which cells are missing."""
    seeds = sorted({run.seed for arm in results.arms for run in arm.runs})
    rows = []
    for arm in results.arms:
        cells = {}
        for run in arm.runs:
            final = None if run.final is None else [_only(run.final, results.benchmarks)]
            shown = [percent(accuracy(final).value), count(length(final).value)] if final else [run.absence]
            cells[run.seed] = ", ".join(shown)
        rows.append([arm.label, *(cells.get(seed, "") for seed in seeds)])
    return Table("Every run: accuracy (%), length", ["", *(f"seed {seed}" for seed in seeds)], rows)


def before_training(results: GridResults) -> dict[str, ByBenchmark]:
    """The evaluation of step 0, which all runs of one model share, by what its row is called."""
    starts: dict[str, ByBenchmark] = {}
    for arm in results.arms:
        for start in arm.at(0).values():
            if set(results.benchmarks) <= set(start):
                starts.setdefault(_start_label(results, arm), start)
    return starts


def compare_arms(first: Arm, other: Arm, names: Sequence[str]) -> SeedComparison:
    """Another arm's ends less the first one's, as means over benchmarks. Raises ValueError as `compare_seeds` does."""
    before, after = ({seed: _only(final, names) for seed, final in arm.final.items()} for arm in (first, other))
    return compare_seeds(before, after)


def _start_label(results: GridResults, arm: Arm) -> str:
    return f"{BEFORE}, {arm.fields['model.path']}" if "model.path" in results.axes else BEFORE


def _only(benchmarks: ByBenchmark, names: Sequence[str]) -> list[Scores]:
    return [benchmarks[name] for name in names]


def finals(arm: Arm, names: Sequence[str]) -> list[list[Scores]]:
    """The scores of an arm's ended runs on some benchmarks, one list per seed."""
    return [_only(final, names) for final in arm.final.values()]


def _seeds(arm: Arm) -> str:
    ended, all_of_them = len(arm.final), len(arm.runs)
    return str(ended) if ended == all_of_them else f"{ended} of {all_of_them}"


def _arm_metrics(arm: Arm, names: Sequence[str]) -> list[str]:
    return _metrics(finals(arm, names)) if arm.final else [arm.absence] * 3


def _metrics(seeds: Sequence[Sequence[Scores]]) -> list[str]:
    return [_percent(accuracy(seeds)), _tokens(length(seeds)), _eff(efficiency(seeds))]


def _change(first: Arm, arm: Arm, names: Sequence[str]) -> list[str]:
    if arm is first or not arm.final:
        return ["", ""]
    try:
        change = compare_arms(first, arm, names)
    except ValueError:
        return ["not paired"] * 2
    return [_difference(change.accuracy, 100), _difference(change.length, 1)]


def _cost(
    seeds: Sequence[Sequence[Scores]], before: Sequence[Sequence[Scores]], reference: Sequence[Sequence[Scores]]
) -> list[str]:
    eff = efficiency(seeds)
    others = [efficiency(other).value if other else 0.0 for other in (before, reference)]
    to = [f"{100 * (eff.value / other - 1):+.1f}%" if other else "" for other in others]
    all_scores = [scores for benchmarks in seeds for scores in benchmarks]
    correct = sum(int(scores.correct_NK.sum()) for scores in all_scores)
    tokens = sum(int(scores.tokens_NK.sum()) for scores in all_scores)
    return [
        _eff(eff),
        *to,
        count(tokens / correct) if correct else "none is correct",
        *(_mean_length(all_scores, correct=correctness) for correctness in (True, False)),
    ]


def _mean_length(all_scores: Sequence[Scores], *, correct: bool) -> str:
    tokens = np.concatenate([scores.tokens_NK[scores.correct_NK == correct] for scores in all_scores])
    return count(float(tokens.mean())) if tokens.size else ""


def _percent(spread: Spread) -> str:
    return f"{percent(spread.value)} ± {percent(spread.error)}"


def _tokens(spread: Spread) -> str:
    return count_with_error(spread.value, spread.error)


def _eff(spread: Spread) -> str:
    return f"{spread.value:,.2f} ± {spread.error:,.2f}"


def _difference(difference: SeedDifference, scale: int) -> str:
    seeds = "" if difference.over_seeds is None else f" / {scale * difference.over_seeds:,.1f}"
    return f"{scale * difference.value:+,.1f} ± {scale * difference.over_problems:,.1f}{seeds}"
