"""The picture of a run: accuracy against mean length, before and after."""

from pathlib import Path

from egrsd_jax.evaluate.scores import Scores

BEFORE, AFTER, PATH = "#7a7a7a", "#0b6e4f", "#b7c9c2"


def draw_frontier(path: Path, evaluations: list[tuple[int, Scores]], title: str) -> None:
    """Writes a PNG: one point an evaluation `(step, evaluation)`, in order, with its standard errors both ways."""
    import matplotlib.figure  # imported late: half a second, and only the end of a run needs it

    figure = matplotlib.figure.Figure(figsize=(6.4, 4.4), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    length = [evaluation.mean_length for _, evaluation in evaluations]
    accuracy = [100 * evaluation.accuracy for _, evaluation in evaluations]
    axes.plot(length, accuracy, color=PATH, linewidth=1.5, zorder=1)
    for index, (step, evaluation) in enumerate(evaluations):
        last = index == len(evaluations) - 1
        axes.errorbar(
            length[index],
            accuracy[index],
            xerr=evaluation.length_error,
            yerr=100 * evaluation.accuracy_error,
            color=AFTER if last else BEFORE,
            marker="o" if index in (0, len(evaluations) - 1) else ".",
            markersize=8 if index in (0, len(evaluations) - 1) else 5,
            capsize=3,
            zorder=2,
        )
        axes.annotate(f"step {step}", (length[index], accuracy[index]), (8, 8), textcoords="offset points", fontsize=9)
    axes.set_xlabel("mean completion length (tokens)")
    axes.set_ylabel("held-out accuracy (%)")
    axes.set_title(title, fontsize=10)
    axes.margins(0.15)
    axes.grid(alpha=0.3)
    problems, samples = len(evaluations[0][1].correct), len(evaluations[0][1].correct[0])
    figure.supxlabel(
        f"{problems} problems × {samples} samples, bars: ±1 standard error; better is up and to the left", fontsize=8
    )
    figure.savefig(path)
