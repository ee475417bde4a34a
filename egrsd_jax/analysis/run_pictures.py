"""Pictures of a run over its steps: the gradient's norm, and what training did."""

from typing import TYPE_CHECKING, Any

import numpy as np

from egrsd_jax.analysis.canvas import BLUE, BROWN, GREEN, GREY, RED, row_of_panels
from egrsd_jax.analysis.dynamics import Dynamics

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_gradient_norm(dynamics: Dynamics, title: str) -> "Figure":
    """The gradient's global norm before it is clipped, by step, and where it is clipped."""
    steps, norms = dynamics.series("gradient_norm")
    most = dynamics.config.train.max_grad_norm
    figure, [axes] = row_of_panels(1, width=7.4, height=4.2)
    axes.plot(steps, norms, color=BLUE, marker="o", markersize=3, linewidth=1.2)
    axes.axhline(most, color=GREY, linestyle="--", linewidth=1, label=f"train.max_grad_norm {most:g}")
    axes.set_yscale("log")
    axes.set_xlabel("gradient step")
    axes.set_ylabel("global norm before clipping")
    axes.set_title(title, fontsize=10)
    axes.legend(fontsize=8)
    clipped, last = int((norms > most).sum()), steps[norms > most]
    said = f"{clipped} of {len(steps)} steps were clipped"
    figure.supxlabel(f"{said}, the last one step {last[-1]}" if clipped else said, fontsize=8)
    return figure


def draw_dynamics(dynamics: Dynamics, title: str) -> "Figure":
    """Accuracy, length, reward with its running moments, gate, clipping, and signs over the steps of a run."""
    panels = [panel for panel in PANELS if any(dynamics.has(name) for name, *_ in panel[1])]
    figure, axes = row_of_panels(len(panels), columns=min(3, len(panels)))
    figure.suptitle(title, fontsize=10)
    for each, (label, lines, scale) in zip(axes, panels, strict=True):
        for name, text, colour in lines:
            steps, values = dynamics.series(name)
            if len(steps):
                each.plot(steps, scale * values, color=colour, linewidth=1.3, label=text)
        each.set_xlabel("gradient step")
        each.set_ylabel(label)
        if lines is ACCURACY or lines is LENGTH:
            _held_out(each, dynamics, "accuracy" if lines is ACCURACY else "length", scale)
        if lines is REWARD:
            _band(each, dynamics)
        each.legend(fontsize=8)
    return figure


ACCURACY = [("verified_share", "training completions", GREY)]
LENGTH = [("completion_length_mean", "training completions", GREY)]
REWARD = [
    ("reward_mean", "mean reward of the step", GREEN),
    ("reward_running_mean", r"$\bar{r}$ of earlier steps", BLUE),
]
# y label, lines (metric, name, colour), and what the values are multiplied by
PANELS: list[tuple[str, list[tuple[str, str, str]], float]] = [
    ("accuracy (%)", ACCURACY, 100),
    ("completion length (tokens)", LENGTH, 1),
    ("reward", REWARD, 1),
    (r"gate $\omega$", [("gate_mean", r"mean $\omega$", GREEN), ("gate_min", r"least $\omega$", BROWN)], 1),
    (
        "tokens whose $w$ is clipped (%)",
        [
            ("weight_clipped_low", r"to $1 - \varepsilon$", RED),
            ("weight_clipped_high", r"to $1 + \varepsilon$", BLUE),
        ],
        100,
    ),
    (
        "completions (%)",
        [
            ("advantage_positive", "A > 0: reinforced", GREEN),
            ("advantage_negative", "A < 0: discouraged", RED),
            ("cut_off_share", "cut off", GREY),
        ],
        100,
    ),
]


def _held_out(axes: Any, dynamics: Dynamics, figure: str, scale: float) -> None:
    """Held-out means with one standard error."""
    if dynamics.evaluations:
        found = [(step, evaluation.summary()) for step, evaluation in dynamics.evaluations]
        axes.errorbar(
            [step for step, _ in found],
            [scale * summary[figure] for _, summary in found],
            yerr=[scale * summary[f"{figure}_error"] for _, summary in found],
            color=GREEN,
            marker="o",
            capsize=3,
            label="held out, ±1 standard error",
        )


def _band(axes: Any, dynamics: Dynamics) -> None:
    """The running mean of the reward with its running deviation to both sides."""
    steps, mean = dynamics.series("reward_running_mean")
    deviation: np.ndarray = dynamics.series("reward_running_std")[1]
    axes.fill_between(
        steps, mean - deviation, mean + deviation, color=BLUE, alpha=0.12, linewidth=0, label=r"$\bar{r} \pm \sigma$"
    )
