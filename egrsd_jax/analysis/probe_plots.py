"""Plots of the two expensive probes: what survives of the teacher's signal, and which branches reach the answer."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from egrsd_jax.analysis.viability import Viability
from egrsd_jax.canvas import BLUE, GREEN, GREY, RED, make_panels
from egrsd_jax.probes.settings import ProbeSettings
from egrsd_jax.probes.statistics import Auroc, Placebo

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEAST_DELTA = 1e-4  # nats: less is rounding, and would take the axis
BINS = 4  # of the branches, as many in each


def draw_placebos(placebos: Sequence[Placebo], settings: ProbeSettings, title: str) -> "Figure":
    """The share of the true teacher's signal that each placebo keeps, and how large its own signal is."""
    names = [placebo.name.replace("_", " ") for placebo in placebos]
    figure, (left, right) = make_panels(2, width=5.2, height=3.4)
    figure.suptitle(title, fontsize=10)
    shares = [100 * placebo.beyond for placebo in placebos]
    reach = [
        [100 * (placebo.beyond - placebo.low) for placebo in placebos],
        [100 * (placebo.high - placebo.beyond) for placebo in placebos],
    ]
    left.barh(names, shares, xerr=np.maximum(reach, 0), color=BLUE, error_kw={"capsize": 2, "linewidth": 1})
    left.axvline(0, color="black", linewidth=0.8)
    if settings.placebo_most is not None:
        left.axvline(100 * settings.placebo_most, color=GREY, linestyle="--", linewidth=1)
        left.set_title("dashed: probes.placebo_most, the limit of wrong and other", fontsize=8)
    left.set_xlabel(r"true teacher's $|\delta|$ that survives beyond chance (%)")
    bars = right.barh(["true", *names], [placebos[0].true_delta, *(placebo.delta for placebo in placebos)], color=GREEN)
    right.bar_label(bars, fmt="%.3g", padding=3, fontsize=9)
    right.set_xscale("log")
    right.margins(x=0.2)
    right.set_xlim(left=max(right.get_xlim()[0], LEAST_DELTA))
    right.set_xlabel(r"mean $|\delta|$ (nats)")
    for axes in (left, right):
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
    figure.supxlabel(
        f"{placebos[0].tokens:,} tokens of {placebos[0].completions} completions; bars: 95% over completions",
        fontsize=8,
    )
    return figure


def draw_viability(viability: Viability, title: str) -> "Figure":
    """How often a branch reaches the answer, by teacher entropy and by position."""
    figure, panels = make_panels(2, width=4.8, height=3.8)
    figure.suptitle(title, fontsize=10)
    reached = np.array(viability.reached, float)
    for axes, name, label, colour, area in (
        (panels[0], "entropy", "teacher entropy where it branches (nats)", RED, viability.entropy),
        (panels[1], "position", "place where it branches, t / T (%)", BLUE, viability.position),
    ):
        if name == "entropy":
            axes.set_xscale("log")
        scale = 100 if name == "position" else 1
        score = scale * np.array([getattr(branch, name) for branch in viability.branches])
        _binned(axes, score, reached, colour, area)
        axes.set_xlabel(label)
        axes.set_ylim(-3, 103)
        axes.set_ylabel("branches that reach the answer (%)")
    figure.supxlabel(
        f"{len(reached)} branches of {len({branch.completion for branch in viability.branches})} correct completions, "
        f"continued by the {viability.by}; bars: ±1 standard error",
        fontsize=8,
    )
    return figure


def _binned(axes: Any, score: np.ndarray, reached: np.ndarray, colour: str, area: Auroc) -> None:
    """Means over bins of as many branches each, at the mean of their scores."""
    bins = [part for part in np.array_split(np.argsort(score, kind="stable"), BINS) if len(part)]
    places = [max(score[part].mean(), 1e-6) for part in bins]  # an entropy of 0 has no place on a log axis
    means = np.array([reached[part].mean() for part in bins])
    errors = [np.sqrt(mean * (1 - mean) / len(part)) for mean, part in zip(means, bins, strict=True)]
    label = f"AUROC {area.value:.2f} ({area.low:.2f} to {area.high:.2f})"
    axes.errorbar(places, 100 * means, yerr=100 * np.array(errors), color=colour, marker="o", capsize=2, label=label)
    axes.legend(fontsize=8)
