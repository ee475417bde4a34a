"""Plots of a grid on the built-in task with forks, as PNG: paired differences, and entropies by step."""

from pathlib import Path

import numpy as np

from benchmarks.forks.measures import KINDS, MEASURES, held_out_of, paired, references, token_figures
from egrsd_jax.ablate.results import GridResults
from egrsd_jax.canvas import COLOURS, GREY, make_panels, plain, save
from egrsd_jax.evaluate.intervals import half_width

SHOWN = ("accuracy (%)", "length (tokens)", "re-checks", "same first (%)")
FORK_PLOTS = {
    "measures.png": "differences to the same without a gate, paired by seed and problem",
    "entropies.png": "entropy of the student at forks and pivots while training",
}


def draw_measures(path: Path, results: GridResults) -> None:
    """One panel per measure: every arm less its reference, each seed small and the mean with its 95% t interval."""
    against = references(results)
    held_out = {arm.label: held_out_of(arm) for arm in results.arms if arm.final}
    measures = [measure for measure in MEASURES if measure.name in SHOWN]
    figure, panels = make_panels(len(measures), width=5.6, height=0.5 * len(against) + 1.2, columns=2)
    for axes, measure in zip(panels, measures, strict=True):
        for place, (label, reference) in enumerate(against.items()):
            after, before = (
                {seed: measure.of(samples) for seed, samples in held_out[arm].items()} for arm in (label, reference)
            )
            pair = paired(before, after)
            seeds = [np.nanmean(after[seed] - before[seed]) for seed in sorted(before.keys() & after.keys())]
            colour = COLOURS[place % len(COLOURS)]
            axes.plot(seeds, [place + 0.2] * len(seeds), "o", color=colour, markersize=3, alpha=0.5)
            axes.errorbar(pair.value, place, xerr=pair.over_seeds, color=colour, marker="D", markersize=5, capsize=3)
        axes.axvline(0, color=GREY, linewidth=1)
        names = [f"{plain(label)}\n− {plain(reference)}" for label, reference in against.items()]
        axes.set_yticks(range(len(against)), names, fontsize=8)
        axes.set_ylim(len(against) - 0.5, -0.5)
        axes.set_xlabel(f"difference: {measure.name}")
    figure.supxlabel("diamonds: mean and 95% t interval over seeds; dots: single seeds", fontsize=8)
    save(figure, path)


def draw_entropies(path: Path, results: GridResults) -> None:
    """The student's entropy per token at forks and at pivots by step: mean over seeds with its 95% t interval."""
    figure, panels = make_panels(len(KINDS) - 1, width=5.4, height=3.8, columns=2)
    arms = [arm for arm in results.arms if arm.final]
    runs = {arm.label: [token_figures(run.folder) for run in arm.runs if run.final is not None] for arm in arms}
    for axes, kind in zip(panels, KINDS, strict=False):
        for number, (label, seeds) in enumerate(runs.items()):
            steps = sorted(set.intersection(*(set(run) for run in seeds)))
            values = [[run[step][kind].student_entropy for run in seeds if kind in run[step]] for step in steps]
            means = [np.mean(of_step) for of_step in values]
            reach = [half_width(of_step) for of_step in values]
            shift = 0.25 * (number - len(runs) / 2)  # so that intervals do not hide each other
            axes.errorbar(
                [step + shift for step in steps],
                means,
                yerr=[value if np.isfinite(value) else 0 for value in reach],
                color=COLOURS[number % len(COLOURS)],
                marker="os^vDP*X"[number % 8],
                markersize=4,
                linewidth=1.2,
                capsize=2,
                label=plain(label),
            )
        axes.set_xlabel("step")
        axes.set_ylabel(f"student's entropy at a {kind} (nats)")
    panels[0].legend(fontsize=7)
    figure.supxlabel("mean over seeds and its 95% t interval", fontsize=8)
    save(figure, path)
