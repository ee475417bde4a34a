"""The tables and plots of one evaluation: results.md and, with matplotlib, three PNG files next to results.json."""

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape

from egrsd_jax.canvas import NO_PLOTS, can_plot
from egrsd_jax.evaluate.intervals import Estimate
from egrsd_jax.evaluate.metrics import Lengths
from egrsd_jax.evaluate.run import Evaluated, Result
from egrsd_jax.report.entries import Entry, Point
from egrsd_jax.report.plots import EVALUATION_PLOTS, draw_budgets, draw_frontier, draw_lengths
from egrsd_jax.report.tables import Table, count, count_with_error, percent
from egrsd_jax.report.unanswered import UNANSWERED, UNANSWERED_NOTE, unanswered_cells, warnings

UNGRADABLE_SHOWN = 5


def tables(evaluated: Evaluated) -> list[Table]:
    """Accuracy, metrics of several samples, length, the spread of lengths, and accuracy by token budget."""
    return [
        _accuracy_table(evaluated),
        _samples_table(evaluated),
        _length_table(evaluated),
        _spread_table(evaluated.results),
        *[_budget_table(result) for result in evaluated.results],
    ]


def write_report(evaluated: Evaluated) -> None:
    """Writes results.md and, where matplotlib is installed, the plots into the evaluation's folder."""
    scores = {result.scores.benchmark: result.scores for result in evaluated.results}
    label = evaluated.regime["free"]["label"]
    entry = Entry(label, evaluated.regime["free"]["base"], [Point(label, scores)])
    folder = evaluated.folder.path
    if can_plot():
        draw_frontier(folder / "frontier.png", [entry])
        draw_budgets(folder / "budgets.png", [entry])
        draw_lengths(folder / "lengths.png", [entry])
    parts = [f"# {label}\n", *(table.markdown() for table in tables(evaluated)), _ungradable(evaluated.results)]
    parts += [f"![{title}]({name})\n" for name, title in EVALUATION_PLOTS.items()] if can_plot() else []
    parts.append(_regime(evaluated))
    evaluated.folder.write_text("results.md", "\n".join(part for part in parts if part))


def show(evaluated: Evaluated) -> None:
    """The first tables on the terminal, what grading cost, and where the rest is."""
    console = Console(highlight=False)
    for table in (_accuracy_table(evaluated), _samples_table(evaluated), _length_table(evaluated)):
        console.print(table.rich())
        for note in table.notes:
            console.print(escape(note), style="dim")
    console.print(escape(grading_line(evaluated.results)), soft_wrap=True)
    kept = "tables, plots, samples" if can_plot() else "tables, samples"
    console.print(f"{kept}: {escape(str(evaluated.folder.path))}", soft_wrap=True)
    if not can_plot():
        console.print(escape(f"no plots: {NO_PLOTS}"), style="dim", soft_wrap=True)


def grading_line(results: Sequence[Result]) -> str:
    """What grading cost, and how much of it could not be done."""
    samples = sum(result.cost.samples for result in results)
    ungradable = sum(result.scores.ungradable for result in results)
    slowest = max((result.cost for result in results), key=lambda cost: cost.median)
    median, p95, largest = (f"{1e3 * seconds:.2g} ms" for seconds in (slowest.median, slowest.p95, slowest.largest))
    return (
        f"graded {samples:,} samples, {ungradable} ungradable; a sample took {median} in the median, {p95} at the 95th "
        f"percentile, {largest} at most"
    )


def _accuracy_table(evaluated: Evaluated) -> Table:
    results, together = evaluated.results, evaluated.macro
    columns = ["benchmark", "N", f"avg@{_samples(results)} (%)", "95%", *UNANSWERED]
    rows = [
        [
            result.scores.benchmark,
            f"{len(result.scores.problems):,}",
            *_accuracy(result.metrics.accuracy),
            *unanswered_cells([result.scores]),
        ]
        for result in results
    ]
    everything = [result.scores for result in results]
    rows += [["mean", "", *_accuracy(together.accuracy), *unanswered_cells(everything)]] if together else []
    notes = (
        "N problems; ± is one standard error over problems and samples, with its 95% interval.",
        UNANSWERED_NOTE,
        *warnings(everything),
    )
    return Table(f"{evaluated.regime['free']['label']}: accuracy", columns, rows, notes)


def _samples(results: Sequence[Result]) -> str:
    """K, where it is the same for all."""
    samples = {result.scores.samples for result in results}
    return str(*samples) if len(samples) == 1 else "K"


def _accuracy(estimate: Estimate) -> list[str]:
    return [
        f"{percent(estimate.value)} ± {percent(estimate.error)}",
        f"{percent(estimate.low)}–{percent(estimate.high)}",
    ]


def _samples_table(evaluated: Evaluated) -> Table:
    k = _samples(evaluated.results)
    rows = [
        [
            result.scores.benchmark,
            _sampling_error(result.metrics.accuracy),
            percent(list(result.metrics.pass_at.values())[-1]),
            "" if result.metrics.majority is None else percent(result.metrics.majority),
        ]
        for result in evaluated.results
    ]
    if (together := evaluated.macro) is not None:
        rows.append(["mean", _sampling_error(together.accuracy), "", ""])
    note = "Sampling: the standard error of avg@K over other samples of the same problems."
    return Table("Several samples (%)", ["benchmark", "sampling", f"pass@{k}", f"maj@{k}"], rows, (note,))


def _sampling_error(estimate: Estimate) -> str:
    return "" if estimate.sampling_error is None else f"± {percent(estimate.sampling_error)}"


def _length_table(evaluated: Evaluated) -> Table:
    columns = ["benchmark", "mean tokens", "95%", "correct", "wrong", "Eff"]
    rows = []
    for result in evaluated.results:
        metrics = result.metrics
        apart = ["" if (mean := metrics.lengths[kind].mean) is None else count(mean) for kind in ("correct", "wrong")]
        cells = [*_length(metrics.length), *apart, f"{metrics.efficiency.value:,.2f}"]
        rows.append([result.scores.benchmark, *cells])
    if (together := evaluated.macro) is not None:
        rows.append(["mean", *_length(together.length), "", "", f"{together.efficiency.value:,.2f}"])
    return Table("Completion length", columns, rows, ("Eff is avg@K in percent per 1,000 tokens.",))


def _length(estimate: Estimate) -> list[str]:
    return [count_with_error(estimate.value, estimate.error), f"{count(estimate.low)}–{count(estimate.high)}"]


def _spread_table(results: Sequence[Result]) -> Table:
    rows = [
        [f"{result.scores.benchmark}, {kind}", *_spread(lengths)]
        for result in results
        for kind, lengths in result.metrics.lengths.items()
    ]
    return Table("Spread of lengths", ["tokens of", "samples", "mean", "median", "95th percentile"], rows)


def _spread(lengths: Lengths) -> list[str]:
    statistics = (lengths.mean, lengths.median, lengths.p95)
    return [f"{lengths.samples:,}", *("" if tokens is None else count(tokens) for tokens in statistics)]


def _budget_table(result: Result) -> Table:
    rows = [
        [f"{budget.tokens:,}", f"{percent(budget.accuracy)} ± {percent(budget.error)}", count(budget.mean_tokens)]
        for budget in result.metrics.budgets
    ]
    note = "The same samples: an answer counts if its completion ended within the budget."
    return Table(
        f"{result.scores.benchmark}: accuracy by token budget",
        ["budget (tokens)", "accuracy (%)", "mean tokens"],
        rows,
        (note,),
    )


def _ungradable(results: Sequence[Result]) -> str:
    named = [
        f"- {result.scores.benchmark}, problem {grade.problem}, sample {grade.sample}: {grade.reason}"
        for result in results
        for grade in result.graded
        if grade.outcome == "ungradable"
    ]
    if not named:
        return "Every answer could be graded.\n"
    shown = named[:UNGRADABLE_SHOWN]
    if len(named) > len(shown):
        shown.append(f"- and {len(named) - len(shown)} more, in results.json")
    return "\n".join([f"{len(named)} answers could not be graded and count as wrong:", "", *shown]) + "\n"


def _regime(evaluated: Evaluated) -> str:
    regime = evaluated.regime
    lines = ["## Regime", "", f"- model {regime['free']['base']}: {regime['model']}, {regime['dtype']}"]
    for result in evaluated.results:
        asked = regime["benchmarks"][result.scores.benchmark]
        lines.append(
            f"- {result.scores.benchmark}: K = {result.scores.samples}, temperature {asked['temperature']}, top-p "
            f"{asked['top_p']}, top-k {asked['top_k']}, at most {asked['max_new_tokens']:,} tokens, thinking "
            f"{'on' if asked['thinking'] else 'off'}, data SHA-256 {asked['data']}"
        )
    versions = ", ".join(f"{name} {version}" for name, version in regime["free"]["versions"].items() if version)
    return "\n".join([*lines, f"- seed {regime['seed']}; {versions}"]) + "\n"
