"""Plots of evaluations, as PNG: the frontier, accuracy against token budget, completion lengths."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from egrsd_jax.canvas import COLOURS, GREY, keep_percent, make_panels, plain, save
from egrsd_jax.evaluate.benchmarks import PAPERS
from egrsd_jax.evaluate.metrics import at_budget, budgets
from egrsd_jax.report.comparison import common_benchmarks, headline, points_of
from egrsd_jax.report.entries import Entry, Point
from egrsd_jax.report.published import Published

BINS = 30
EVALUATION_PLOTS = {
    "frontier.png": "accuracy against length",
    "budgets.png": "accuracy against token budget",
    "lengths.png": "completion lengths, correct and wrong",
}


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which of some (length, accuracy) no other one beats in both, by length: the line of the frontier."""
    best, kept = float("-inf"), []
    for index in sorted(range(len(points)), key=lambda index: (points[index][0], -points[index][1])):
        if points[index][1] > best:
            best = points[index][1]
            kept.append(index)
    return kept


def draw_frontier(path: Path, entries: Sequence[Entry], published: Sequence[Published] = ()) -> None:
    """Accuracy against mean length with 95% intervals both ways, the Pareto line over all points, and printed points
    (numbers) where the benchmarks are the paper's six."""
    points = points_of(entries)
    names = common_benchmarks(points)
    figure, [axes] = make_panels(1, width=7.0, height=4.8)
    means = [headline(point, names) for point in points]
    places = [(mean.length.value, 100 * mean.accuracy.value) for mean in means]
    line = pareto(places)
    axes.plot(*zip(*(places[index] for index in line), strict=True), color=GREY, linewidth=1, linestyle="--", zorder=1)
    colour = {id(point): COLOURS[index % len(COLOURS)] for index, entry in enumerate(entries) for point in entry.points}
    for point, mean, (length, accuracy) in zip(points, means, places, strict=True):
        axes.errorbar(
            length,
            accuracy,
            xerr=[[length - mean.length.low], [mean.length.high - length]],
            yerr=[[accuracy - 100 * mean.accuracy.low], [100 * mean.accuracy.high - accuracy]],
            color=colour[id(point)],
            marker="o",
            capsize=3,
            linewidth=1.2,
            zorder=2,
        )
    _name_points(axes, places, [point.label for point in points])
    for number, row in enumerate(published if sorted(names) == sorted(PAPERS) else (), start=1):
        label = f"{row.model} {row.method} (published)"
        if row.length is None or row.mean_accuracy is None:
            continue
        axes.plot(row.length, row.mean_accuracy, marker=f"${number}$", color=GREY, linestyle="", label=label)
    if axes.get_legend_handles_labels()[1]:
        figure.legend(fontsize=6, loc="outside right upper")
    axes.set_xlabel("mean completion length (tokens)")
    axes.set_ylabel("accuracy (%)")
    axes.margins(0.25)
    keep_percent(axes)
    what = names[0] if len(names) == 1 else f"mean of {len(names)} benchmarks"
    figure.supxlabel(f"{what}; bars: 95% intervals; dashed: Pareto line; better is up and to the left", fontsize=8)
    save(figure, path)


def draw_budgets(path: Path, entries: Sequence[Entry]) -> None:
    """Accuracy against token budget, from the same samples: one panel per benchmark, one line per policy."""
    points = _shown(entries)
    names = _benchmarks(points)
    figure, panels = make_panels(len(names))
    for axes, name in zip(panels, names, strict=True):
        for index, point in enumerate(points):
            if (scores := point.scores.get(name)) is None:
                continue
            at = [at_budget(scores.correct_NK, scores.tokens_NK, tokens) for tokens in budgets(scores.max_new_tokens)]
            axes.errorbar(
                [budget.tokens for budget in at],
                [100 * budget.accuracy for budget in at],
                yerr=[100 * budget.error for budget in at],
                color=COLOURS[index % len(COLOURS)],
                marker="o",
                markersize=4,
                capsize=2,
                label=plain(point.label),
            )
        axes.set_xscale("log", base=2)
        axes.set_xticks([budget.tokens for budget in at], [f"{budget.tokens:,}" for budget in at], fontsize=7)
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("token budget")
        axes.set_ylabel("accuracy (%)")
        axes.legend(fontsize=7)
    figure.supxlabel("an answer counts if its completion ended within the budget; bars: ±1 standard error", fontsize=8)
    save(figure, path)


def draw_lengths(path: Path, entries: Sequence[Entry]) -> None:
    """Histograms of completion length, correct (filled) and wrong (outline): one panel per benchmark and policy."""
    shown = [(name, point) for point in _shown(entries) for name in point.scores]
    figure, panels = make_panels(len(shown))
    for axes, (name, point) in zip(panels, shown, strict=True):
        correct_NK, tokens_NK = point.scores[name].correct_NK, point.scores[name].tokens_NK
        edges = np.linspace(0, max(1, int(tokens_NK.max())), BINS + 1)
        axes.hist(tokens_NK[correct_NK], edges, color=COLOURS[0], alpha=0.6, label=f"correct ({correct_NK.sum():,})")
        wrong = tokens_NK[~correct_NK]
        axes.hist(wrong, edges, histtype="step", color=COLOURS[1], linewidth=1.5, label=f"wrong ({wrong.size:,})")
        axes.set_title(name if len(point.scores) == len(shown) else f"{name}, {plain(point.label)}", fontsize=9)
        axes.set_xlabel("completion length (tokens)")
        axes.set_ylabel("samples")
        axes.legend(fontsize=7)
    save(figure, path)


def _name_points(axes: Any, places: Sequence[tuple[float, float]], labels: Sequence[str]) -> None:
    """Labels next to points, those of neighbours on different sides, so that few overlap."""
    for rank, index in enumerate(sorted(range(len(places)), key=lambda index: places[index])):
        right, above = rank % 2 == 0, rank % 4 < 2
        axes.annotate(
            plain(labels[index]),
            places[index],
            (6 if right else -6, 6 if above else -6),
            textcoords="offset points",
            horizontalalignment="left" if right else "right",
            verticalalignment="bottom" if above else "top",
            fontsize=8,
        )


def _shown(entries: Sequence[Entry]) -> list[Point]:
    """An evaluation's point, a training run's first and last: all of a run's would hide each other."""
    return [point for entry in entries for point in (entry.points[:1] + entry.points[1:][-1:])]


def _benchmarks(points: Sequence[Point]) -> list[str]:
    """Every benchmark of any point, in order of first appearance."""
    return list(dict.fromkeys(name for point in points for name in point.scores))
