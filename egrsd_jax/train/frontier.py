"""The plot of a run: accuracy against mean length, before and after."""

from pathlib import Path

from egrsd_jax.canvas import GREEN, GREY, PALE_GREEN, make_panels, plain, save
from egrsd_jax.evaluate.scores import Scores


def draw_frontier(path: Path, evaluations: list[tuple[int, Scores]], title: str) -> None:
    """Writes a PNG: one point per evaluation `(step, scores)`, in order, with its standard errors both ways."""
    figure, [axes] = make_panels(1, width=6.4, height=4.4)
    length = [evaluation.mean_length for _, evaluation in evaluations]
    accuracy = [100 * evaluation.accuracy for _, evaluation in evaluations]
    axes.plot(length, accuracy, color=PALE_GREEN, linewidth=1.5, zorder=1)
    for index, (step, evaluation) in enumerate(evaluations):
        last = index == len(evaluations) - 1
        axes.errorbar(
            length[index],
            accuracy[index],
            xerr=evaluation.length_error,
            yerr=100 * evaluation.accuracy_error,
            color=GREEN if last else GREY,
            marker="o" if index in (0, len(evaluations) - 1) else ".",
            markersize=8 if index in (0, len(evaluations) - 1) else 5,
            capsize=3,
            zorder=2,
        )
        axes.annotate(f"step {step}", (length[index], accuracy[index]), (8, 8), textcoords="offset points", fontsize=9)
    axes.set_xlabel("mean completion length (tokens)")
    axes.set_ylabel("held-out accuracy (%)")
    axes.set_title(plain(title), fontsize=10)
    axes.margins(0.15)
    problems, samples = len(evaluations[0][1].correct), len(evaluations[0][1].correct[0])
    figure.supxlabel(
        f"{problems} problems × {samples} samples, bars: ±1 standard error; better is up and to the left", fontsize=8
    )
    save(figure, path)
