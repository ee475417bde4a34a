"""Plots of a run over its steps: the gradient's norm, and training dynamics."""

from typing import TYPE_CHECKING, Any

from egrsd_jax.analysis.dynamics import Dynamics
from egrsd_jax.canvas import BLUE, BROWN, GREEN, GREY, RED, make_panels, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_gradient_norm(dynamics: Dynamics) -> "Figure":
    """The gradient's global norm before it is clipped, by step, and where it is clipped."""
    steps, norms = dynamics.series("gradient_norm")
    most = dynamics.config.train.max_grad_norm
    figure, [axes] = make_panels(1, width=7.4, height=4.2)
    axes.plot(steps, norms, color=BLUE, marker="o", markersize=3, linewidth=1.2)
    axes.axhline(most, color=GREY, linestyle="--", linewidth=1, label=f"clipped to train.max_grad_norm, {most:g}")
    axes.set_yscale("log")
    axes.set_xlabel("gradient step")
    axes.set_ylabel("global norm of the gradient before clipping")
    axes.set_title(plain(dynamics.label), fontsize=10)
    axes.legend(fontsize=8)
    figure.supxlabel(f"{int((norms > most).sum())} of {len(steps)} steps were clipped", fontsize=8)
    return figure


def draw_dynamics(dynamics: Dynamics) -> "Figure":
    """Accuracy, length, reward with its running moments, gate, clipping and signs over the steps of a run: a panel for
    each that its method logs."""
    panels = {
        "verified_share": _accuracy,
        "completion_length_mean": _length,
        "reward_mean": _reward,
        "gate_mean": _gate,
        "weight_clipped_low": _clipping,
        "advantage_positive": _signs,
    }
    panels = [draw for name, draw in panels.items() if dynamics.has(name)]
    figure, places = make_panels(len(panels), width=4.6, height=3.6)
    for axes, draw in zip(places, panels, strict=True):
        draw(axes, dynamics)
        axes.set_xlabel("gradient step")
        axes.legend(fontsize=8)
    figure.suptitle(plain(dynamics.label), fontsize=10)
    return figure


def _accuracy(axes: Any, dynamics: Dynamics) -> None:
    _line(axes, dynamics, "verified_share", "training completions", GREY, scale=100)
    _held_out(axes, dynamics, "accuracy", scale=100)
    axes.set_ylabel("accuracy (%)")


def _length(axes: Any, dynamics: Dynamics) -> None:
    _line(axes, dynamics, "completion_length_mean", "training completions", GREY)
    _held_out(axes, dynamics, "length")
    axes.set_ylabel("mean completion length (tokens)")


def _reward(axes: Any, dynamics: Dynamics) -> None:
    _line(axes, dynamics, "reward_mean", "mean reward of the step", GREEN)
    steps, mean = (
        values[1:] for values in dynamics.series("reward_running_mean")
    )  # at first there are no earlier ones
    deviation = dynamics.series("reward_running_std")[1][1:]
    axes.plot(steps, mean, color=BLUE, linewidth=1.3, label=r"$\bar{r}$ of all earlier steps")
    band = {"color": BLUE, "alpha": 0.12, "linewidth": 0, "label": r"$\bar{r} \pm \sigma$"}
    axes.fill_between(steps, mean - deviation, mean + deviation, **band)
    axes.set_ylabel("reward")


def _gate(axes: Any, dynamics: Dynamics) -> None:
    _line(axes, dynamics, "gate_mean", r"mean $\omega$", GREEN)
    _line(axes, dynamics, "gate_min", r"least $\omega$", BROWN)
    axes.set_ylabel(r"gate $\omega$ of the update")


def _clipping(axes: Any, dynamics: Dynamics) -> None:
    _line(axes, dynamics, "weight_clipped_low", r"to $1 - \varepsilon$", RED, scale=100)
    _line(axes, dynamics, "weight_clipped_high", r"to $1 + \varepsilon$", BLUE, scale=100)
    axes.set_ylabel("tokens whose $w$ is clipped (%)")


def _signs(axes: Any, dynamics: Dynamics) -> None:
    _line(axes, dynamics, "advantage_positive", "A > 0: reinforced", GREEN, scale=100)
    _line(axes, dynamics, "advantage_negative", "A < 0: discouraged", RED, scale=100)
    _line(axes, dynamics, "cut_off_share", "cut off", GREY, scale=100)
    axes.set_ylabel("completions (%)")


def _line(axes: Any, dynamics: Dynamics, name: str, label: str, colour: str, *, scale: float = 1) -> None:
    steps, values = dynamics.series(name)
    axes.plot(steps, scale * values, color=colour, linewidth=1.3, label=label)


def _held_out(axes: Any, dynamics: Dynamics, name: str, *, scale: float = 1) -> None:
    """The mean of every evaluation with one standard error to both sides."""
    summaries = [(step, evaluation.summary()) for step, evaluation in dynamics.evaluations]
    if summaries:
        steps = [step for step, _ in summaries]
        means, errors = ([scale * summary[key] for _, summary in summaries] for key in (name, f"{name}_error"))
        axes.errorbar(
            steps, means, yerr=errors, color=GREEN, marker="o", capsize=3, label="held out, ±1 standard error"
        )
