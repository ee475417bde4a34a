"""Plots of a grid, PNG and SVG: heat maps of two fields, and accuracy against length with the Pareto line."""

import itertools
import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from egrsd_jax.ablate.results import Arm, GridResults, value_label
from egrsd_jax.ablate.tables import before_training, compare_arms, finals
from egrsd_jax.canvas import GREY, keep_percent, make_panels, plain, save
from egrsd_jax.evaluate.seeds import SeedDifference, Spread, accuracy, efficiency, length
from egrsd_jax.report.plots import pareto

SHADES, SHADES_OF_LENGTH = "viridis", "viridis_r"  # the better, the lighter
DIFFERENCES = "RdBu"
MARKERS = "osD^vP*Xh<>"  # as many as have no factor in common with ten colours
LEGEND_ROWS = 30
TALL = 12  # rows of a heat map from which on they are as low as their text


@dataclass(frozen=True)
class Panel:
    """A heat map: an arm's value, what it is multiplied by, how it is written, and the benchmark if it is of one."""

    title: str
    metric: Callable[[Arm], Spread | SeedDifference]
    text: str
    scale: float = 1.0
    shades: str = SHADES
    benchmark: str = ""


def draw_grid_plots(to: Path, results: GridResults) -> dict[str, str]:
    """Writes every plot that belongs to the grid into a folder; returns each one's name and what it shows."""
    plots = {"frontier": "accuracy against length"}
    draw_grid_frontier(to / "frontier.png", results)
    if len(results.axes) > 1:
        rows, columns, *others = results.axes
        for values in itertools.product(*(results.axes[other] for other in others)):
            fixed = dict(zip(others, values, strict=True))
            setting = ", ".join(value_label(axis, value) for axis, value in fixed.items())
            name = "-".join(["heatmap", *(str(value).replace("/", "_") for value in values)])
            draw_heat_maps(to / f"{name}.png", results, rows, columns, fixed)
            plots[name] = ": ".join(filter(None, [f"{_word(rows)} × {_word(columns)}", setting]))
    return plots


def draw_heat_maps(path: Path, results: GridResults, rows: str, columns: str, fixed: dict[str, Any]) -> None:
    """One field down, one across, the others fixed: one panel per benchmark where there are several, else accuracy,
    length, Eff, and the difference of accuracy to the first column. Values are written in; a cell without any is
    hatched."""
    arms = {
        (arm.fields[rows], arm.fields[columns]): arm
        for arm in results.arms
        if all(arm.fields[axis] == value for axis, value in fixed.items())
    }
    laid_out = [[arms.get((row, column)) for column in results.axes[columns]] for row in results.axes[rows]]
    panels = _panels_of(results, arms, rows, columns)
    height, width = len(results.axes[rows]), len(results.axes[columns])
    names = [_tick(rows, value) for value in results.axes[rows]]
    inches = max(3.6, width + 1.1 + 0.08 * max(map(len, names)))
    size = {"width": inches, "height": max(2.6, (0.75 if height < TALL else 0.45) * height + 1.3)}
    figure, places = make_panels(len(panels), **size, columns=2)
    for axes, panel in zip(places, panels, strict=True):
        _draw_panel(axes, results, panel, laid_out)
        axes.set_xticks(range(width), [_tick(columns, value) for value in results.axes[columns]])
        axes.set_yticks(range(height), names)
        axes.set_title(textwrap.fill(panel.title, round(9 * inches)), fontsize=10)
        axes.set_xlabel(_word(columns))
        axes.set_ylabel(_word(rows))
    brackets = "; in brackets: published, arXiv 2605.13255" if any(row.fields for row in results.published) else ""
    seeds = max(len(arm.runs) for arm in arms.values())
    over = (
        f"means over {seeds} seeds, ± standard error over seeds"
        if seeds > 1
        else "one seed, ± standard error over problems"
    )
    figure.supxlabel(f"{over}; hatched: no cell has ended{brackets}", fontsize=8)
    save(figure, path, svg=True)


def draw_grid_frontier(path: Path, results: GridResults) -> None:
    """Every run, small, and the mean of each arm, large, with its 95% interval over seeds and problems; the Pareto line
    is that of the means."""
    ended = [arm for arm in results.arms if arm.final]
    columns = -(-len(ended) // LEGEND_ROWS)
    figure, [axes] = make_panels(1, width=6.0 + 2.4 * columns, height=5.2)
    places = []
    for number, arm in enumerate(ended):
        correct, tokens = (metric(finals(arm, results.benchmarks)) for metric in (accuracy, length))
        place = tokens.value, 100 * correct.value
        places.append(place)
        style: dict[str, Any] = {"color": f"C{number % 10}", "marker": MARKERS[number % len(MARKERS)], "linewidth": 1}
        shares = [100 * share for share in correct.by_seed]
        axes.plot(tokens.by_seed, shares, linestyle="", markersize=3, alpha=0.4, **style)
        bars = {"xerr": tokens.half_width, "yerr": 100 * correct.half_width, "capsize": 2}
        axes.errorbar(*place, markersize=5, label=plain(arm.label), **bars, **style)
    line = [places[index] for index in pareto(places)]
    axes.plot(*zip(*line, strict=True), color=GREY, linewidth=1, linestyle="--", zorder=1)
    for label, start in before_training(results).items():
        before = [[start[name] for name in results.benchmarks]]
        axes.plot(length(before).value, 100 * accuracy(before).value, "x", color="black", label=plain(label))
    axes.set_xlabel("mean completion length (tokens)")
    axes.set_ylabel("accuracy (%)")
    keep_percent(axes)
    figure.legend(fontsize=7, loc="outside right upper", ncols=columns)
    what = results.benchmarks[0] if len(results.benchmarks) == 1 else f"mean of {len(results.benchmarks)} benchmarks"
    bars = "bars: 95% over seeds and problems (Student's); small: single runs; dashed: Pareto line"
    figure.supxlabel(f"{what}; {bars}; better is up and to the left", fontsize=8)
    save(figure, path, svg=True)


def _panels_of(results: GridResults, arms: dict[tuple[Any, Any], Arm], rows: str, columns: str) -> list[Panel]:
    names, first = results.benchmarks, results.axes[columns][0]

    def of(metric: Callable[..., Spread], names: Sequence[str]) -> Callable[[Arm], Spread]:
        return lambda arm: metric(finals(arm, names))

    def less_first(arm: Arm) -> SeedDifference:
        return compare_arms(arms[arm.fields[rows], first], arm, names).accuracy

    if len(names) > 1:
        return [Panel(f"{name}: accuracy (%)", of(accuracy, [name]), "{:.1f}", 100, benchmark=name) for name in names]
    title = f"accuracy less that of {value_label(columns, first)} (points)"
    return [
        Panel("accuracy (%)", of(accuracy, names), "{:.1f}", 100),
        Panel("length (tokens)", of(length, names), "{:,.1f}", shades=SHADES_OF_LENGTH),
        Panel("Eff (% per 1,000 tokens)", of(efficiency, names), "{:,.0f}"),
        Panel(title, less_first, "{:+.1f}", 100, shades=DIFFERENCES),
    ]


def _draw_panel(axes: Any, results: GridResults, panel: Panel, arms: Sequence[Sequence[Arm | None]]) -> None:
    """Colours from the least to the largest value; of differences around 0, blue above it and red below."""
    metrics = [[_metric(panel, arm) for arm in row] for row in arms]
    values = [[math.nan if spread is None else panel.scale * spread.value for spread in row] for row in metrics]
    known = [value for row in values for value in row if not math.isnan(value)]
    most = max(map(abs, known), default=0.0) or 1.0
    low, high = (-most, most) if panel.shades == DIFFERENCES else (min(known, default=0.0), max(known, default=1.0))
    image = axes.imshow(values, cmap=panel.shades, vmin=low, vmax=high, aspect="auto")
    axes.grid(visible=False)
    for row, column in itertools.product(range(len(arms)), range(len(arms[0]))):
        arm, metric, value = arms[row][column], metrics[row][column], values[row][column]
        if arm is None or metric is None:
            axes.add_patch(_hatched(column, row))
            absent = arm.absence if arm is not None and not arm.final else "missing"
            axes.text(column, row, absent, ha="center", va="center", fontsize=8, backgroundcolor="white")
        else:
            red, green, blue, _ = image.cmap(image.norm(value))
            colour = "black" if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else "white"
            axes.text(
                column,
                row,
                "\n".join(_lines(results, panel, arm, metric)),
                ha="center",
                va="center",
                fontsize=8,
                color=colour,
            )


def _metric(panel: Panel, arm: Arm | None) -> Spread | SeedDifference | None:
    """A cell's value; None where there is none, or nothing to compare it with."""
    if arm is None or not arm.final:
        return None
    try:
        return panel.metric(arm)
    except (ValueError, KeyError):
        return None


def _lines(results: GridResults, panel: Panel, arm: Arm, metric: Spread | SeedDifference) -> list[str]:
    """A cell's text: the value, its error, the published value of the same setting, and how many of the seeds
    have ended where some have not."""
    value, error = (panel.text.format(panel.scale * number) for number in (metric.value, metric.error))
    lines = [value, f"± {error.lstrip('+')}"]
    lines += [
        f"({row.accuracy[panel.benchmark]:.1f})"
        for row in results.published
        if row.fields and panel.benchmark in row.accuracy and row.fields.items() <= arm.fields.items()
    ]
    return [*lines, f"{len(arm.final)} of {len(arm.runs)}"] if len(arm.final) < len(arm.runs) else lines


def _hatched(column: int, row: int) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor="white", edgecolor=GREY, hatch="///", linewidth=0)


def _word(axis: str) -> str:
    return axis.rpartition(".")[2]


def _tick(axis: str, value: Any) -> str:
    return plain(value_label(axis, value).removeprefix(f"{_word(axis)} "))
