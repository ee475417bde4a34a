"""The tables of a grid. Which there are follows from what varies (docs/ablations.md has the rule).

A figure is a mean over seeds, and of several benchmarks their plain mean; every ± is a standard error.
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
)
from egrsd_jax.report.comparison import p_value, published_label, published_means
from egrsd_jax.report.tables import Table, count, count_with_error, percent

BEFORE = "before training"
SWEEPS = {
    "method.gamma": "Gamma sweep",
    "method.window": "Lookahead sweep",
    "method.teacher": "Teacher schedules",
    "model.path": "Models",
}
OVER_SEEDS = "± is the standard error over seeds, of a single seed over problems"
TESTED = (
    "Paired by seed and problem; ± is the standard error over problems / over seeds. p is of a two-sided sign-flip "
    "test over N problems, which takes the trained weights as they are; p (Holm) is adjusted over the table's rows. A "
    "difference is one of settings only where it is large against the error over seeds as well."
)


def grid_tables(found: GridResults) -> list[Table]:
    """All tables of a grid, the main ones first."""
    return [
        comparison(found),
        *([by_benchmark(found)] if len(found.benchmarks) > 1 else []),
        *differences(found),
        *(sweep(found, axis) for axis in found.axes if len(found.axes) > 1),
        *(snapshots(found) if len(found.steps) > 1 else []),
        token_efficiency(found),
        every_run(found),
    ]


def comparison(found: GridResults) -> Table:
    """Accuracy, length and Eff of every arm."""
    names = found.benchmarks
    rows = [[label, "", *_figures([_only(start, names)])] for label, start in before_training(found).items()]
    rows += [[arm.label, _seeds(arm), *_arm_figures(arm, names)] for arm in found.arms]
    if sorted(names) == sorted(PAPERS):
        printed = [published_means(row, names) for row in found.published if row.mean_accuracy is not None]
        rows += [[label, "", mean, tokens, efficiency] for label, mean, _, tokens, _, efficiency in printed]
    notes = [f"Over {', '.join(names)}. {OVER_SEEDS}; Eff is accuracy in percent per 1,000 tokens."]
    if found.published:
        notes.append("Rows marked (published) are the paper's, arXiv 2605.13255; it prints no errors.")
    runs = [run for arm in found.arms for run in arm.runs]
    failed = [f"{run.folder.name} failed: {run.failure}." for run in runs if run.failure and run.final is None]
    return Table("Comparison", ["", "seeds", "accuracy (%)", "length", "Eff"], rows, [*notes, *found.notes, *failed])


def by_benchmark(found: GridResults) -> Table:
    """Accuracy of every arm on each benchmark."""
    names = found.benchmarks
    rows = []
    for arm in found.arms:
        each = [_percent(accuracy(finals(arm, [name]))) if arm.final else arm.absence for name in names]
        rows.append([arm.label, *each])
    for row in found.published:
        if set(names) & set(row.accuracy):
            shown = [f"{row.accuracy[name]:.2f}" if name in row.accuracy else "" for name in names]
            rows.append([published_label(row), *shown])
    return Table("Accuracy by benchmark (%)", ["", *names], rows, [f"{OVER_SEEDS}."])


def differences(found: GridResults) -> list[Table]:
    """Every arm against the reference on each benchmark, tested, and the tests corrected over the whole table."""
    pairs: list[tuple[str, SeedComparison]] = []
    notes = [TESTED]
    for arm in found.arms:
        reference = found.reference(arm)
        for name in found.benchmarks if reference not in (None, arm) and arm.final else []:
            assert reference is not None
            try:
                label = f"{arm.label}, {name}" if len(found.benchmarks) > 1 else arm.label
                pairs.append((label, compare_arms(reference, arm, [name])))
            except ValueError as reason:
                notes.append(f"{arm.label} is not paired: {reason}.")
    if not pairs:
        return []
    tables = []
    for title, scale, sides in (
        ("Accuracy less that of {} (points)", 100, [each.accuracy for _, each in pairs]),
        ("Length less that of {} (tokens)", 1, [each.length for _, each in pairs]),
    ):
        rows = []
        p_values = [1.0 if side.p is None else side.p for side in sides]
        for (label, each), side, p, adjusted in zip(pairs, sides, p_values, holm(p_values), strict=True):
            cells = [str(len(each.seeds)), f"{each.problems:,}", _difference(side, scale)]
            rows.append([label, *cells, p_value(p), p_value(adjusted)])
        columns = ["", "seeds", "N", "difference", "p", "p (Holm)"]
        tables.append(Table(title.format(found.reference_label), columns, rows, notes))
    return tables


def sweep(found: GridResults, axis: str) -> Table:
    """What one field changes: arms that agree in all others stand together, each against the first of them."""
    others = [other for other in found.axes if other != axis]
    blocks: dict[str, list[Arm]] = {}
    for arm in found.arms:
        blocks.setdefault(", ".join(value_label(other, arm.fields[other]) for other in others), []).append(arm)
    rows = []
    for label, arms in blocks.items():
        first = next((arm for arm in arms if arm.final), arms[0])
        for arm in arms:
            value = value_label(axis, arm.fields[axis])
            rows.append([label, value, *_arm_figures(arm, found.benchmarks), *_change(first, arm, found.benchmarks)])
    columns = ["", "", "accuracy (%)", "length", "Eff", "accuracy − first", "length − first"]
    note = f"{OVER_SEEDS}. The last two columns are paired with the block's first row, ± over problems / over seeds."
    return Table(SWEEPS.get(axis, f"Sweep of {axis}"), columns, rows, [note])


def snapshots(found: GridResults) -> list[Table]:
    """Accuracy and length at every evaluated step."""
    tables = []
    for title, figure, shown in (("Accuracy (%)", accuracy, _percent), ("Length (tokens)", length, _tokens)):
        rows = []
        for arm in found.arms:
            at = [[_only(each, found.benchmarks) for each in arm.at(step).values()] for step in found.steps]
            rows.append([arm.label, *(shown(figure(seeds)) if seeds else arm.absence for seeds in at)])
        notes = [f"{OVER_SEEDS}, of those that reached the step."]
        tables.append(Table(f"{title} by step", ["", *map(str, found.steps)], rows, notes))
    return tables


def token_efficiency(found: GridResults) -> Table:
    """What a right answer costs, and the lengths of right and wrong samples."""
    names, starts = found.benchmarks, before_training(found)
    rows = [[label, *_cost([_only(start, names)], [], [])] for label, start in starts.items()]
    for arm in found.arms:
        start, reference = starts.get(_start_label(found, arm)), found.reference(arm)
        before = [] if start is None else [_only(start, names)]
        against = [] if reference in (None, arm) else finals(reference, names)
        rows.append([arm.label, *(_cost(finals(arm, names), before, against) if arm.final else [arm.absence] * 6)])
    columns = [
        "",
        "Eff",
        f"from {BEFORE}",
        f"from {found.reference_label}",
        "tokens a right answer",
        "length if right",
        "if wrong",
    ]
    note = (
        f"{OVER_SEEDS}. Eff is accuracy in percent per 1,000 tokens; the two columns after it are its change from that "
        "of the policy they name. Tokens a right answer: all tokens by the number of right answers."
    )
    return Table("Token efficiency", columns, rows, [note])


def every_run(found: GridResults) -> Table:
    """Accuracy and length of each seed, and which cells are missing."""
    seeds = sorted({run.seed for arm in found.arms for run in arm.runs})
    rows = []
    for arm in found.arms:
        cells = {}
        for run in arm.runs:
            final = None if run.final is None else [_only(run.final, found.benchmarks)]
            shown = [percent(accuracy(final).value), count(length(final).value)] if final else [run.absence]
            cells[run.seed] = ", ".join(shown)
        rows.append([arm.label, *(cells.get(seed, "") for seed in seeds)])
    return Table("Every run: accuracy (%), length", ["", *(f"seed {seed}" for seed in seeds)], rows)


def before_training(found: GridResults) -> dict[str, ByBenchmark]:
    """The evaluation of step 0, which all runs of one model share, by what its row is called."""
    starts: dict[str, ByBenchmark] = {}
    for arm in found.arms:
        for start in arm.at(0).values():
            if set(found.benchmarks) <= set(start):
                starts.setdefault(_start_label(found, arm), start)
    return starts


def compare_arms(first: Arm, other: Arm, names: Sequence[str]) -> SeedComparison:
    """Another arm's ends less the first one's, as means over benchmarks. Raises ValueError as `compare_seeds` does."""
    before, after = ({seed: _only(final, names) for seed, final in arm.final.items()} for arm in (first, other))
    return compare_seeds(before, after)


def _start_label(found: GridResults, arm: Arm) -> str:
    return f"{BEFORE}, {arm.fields['model.path']}" if "model.path" in found.axes else BEFORE


def _only(benchmarks: ByBenchmark, names: Sequence[str]) -> list[Scores]:
    return [benchmarks[name] for name in names]


def finals(arm: Arm, names: Sequence[str]) -> list[list[Scores]]:
    """What an arm's ended runs found on some benchmarks, a list a seed."""
    return [_only(final, names) for final in arm.final.values()]


def _seeds(arm: Arm) -> str:
    ended, all_of_them = len(arm.final), len(arm.runs)
    return str(ended) if ended == all_of_them else f"{ended} of {all_of_them}"


def _arm_figures(arm: Arm, names: Sequence[str]) -> list[str]:
    return _figures(finals(arm, names)) if arm.final else [arm.absence] * 3


def _figures(seeds: Sequence[Sequence[Scores]]) -> list[str]:
    return [_percent(accuracy(seeds)), _tokens(length(seeds)), _eff(efficiency(seeds))]


def _change(first: Arm, arm: Arm, names: Sequence[str]) -> list[str]:
    if arm is first or not arm.final:
        return ["", ""]
    try:
        found = compare_arms(first, arm, names)
    except ValueError:
        return ["not paired"] * 2
    return [_difference(found.accuracy, 100), _difference(found.length, 1)]


def _cost(
    seeds: Sequence[Sequence[Scores]], before: Sequence[Sequence[Scores]], reference: Sequence[Sequence[Scores]]
) -> list[str]:
    found = efficiency(seeds)
    others = [efficiency(other).value if other else 0.0 for other in (before, reference)]
    to = [f"{100 * (found.value / other - 1):+.1f}%" if other else "" for other in others]
    scores = [each for benchmarks in seeds for each in benchmarks]
    right = sum(int(each.correct_NK.sum()) for each in scores)
    return [
        _eff(found),
        *to,
        count(sum(int(each.tokens_NK.sum()) for each in scores) / right) if right else "none is right",
        *(_mean_length(scores, right=kind) for kind in (True, False)),
    ]


def _mean_length(scores: Sequence[Scores], *, right: bool) -> str:
    tokens = np.concatenate([each.tokens_NK[each.correct_NK == right] for each in scores])
    return count(float(tokens.mean())) if tokens.size else ""


def _percent(found: Spread) -> str:
    return f"{percent(found.value)} ± {percent(found.error)}"


def _tokens(found: Spread) -> str:
    return count_with_error(found.value, found.error)


def _eff(found: Spread) -> str:
    return f"{found.value:,.2f} ± {found.error:,.2f}"


def _difference(found: SeedDifference, scale: int) -> str:
    seeds = "" if found.over_seeds is None else f" / {scale * found.over_seeds:,.1f}"
    return f"{scale * found.value:+,.1f} ± {scale * found.over_problems:,.1f}{seeds}"
