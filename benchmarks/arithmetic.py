"""Tables and picture of docs/arithmetic.md from finished runs: `python benchmarks/arithmetic.py runs --to docs`.

Reads the folders `<method>_<seed>` that the loop in docs/arithmetic.md leaves, and prints Markdown.
"""

import argparse
import itertools
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout that this file stands in

from egrsd_jax.evaluate.held_out import Evaluation, standard_error

METHODS = {"grpo": "GRPO", "direction": "γ = 0", "egrsd": "EGRSD", "cl_egrsd": "CL-EGRSD"}
COLOURS = {"grpo": "#b5651d", "direction": "#6a51a3", "egrsd": "#0b6e4f", "cl_egrsd": "#1f77b4"}


def read(folder: Path) -> dict[int, Evaluation]:
    """The evaluations of one run by their step."""
    files = {int(file.stem.removeprefix("evaluation_step")): file for file in folder.glob("evaluation_step*.json")}
    return {step: Evaluation.from_json(json.loads(files[step].read_text())) for step in sorted(files)}


def figures(runs: list[dict[int, Evaluation]]) -> str:
    """One table row of figures: every seed's final accuracy and length, then their means over seeds."""
    final = [run[max(run)] for run in runs]
    accuracy = np.array([100 * found.accuracy for found in final])
    length = np.array([found.mean_length for found in final])
    each = " ".join(f"{value:.1f}" for value in accuracy), " ".join(f"{value:.1f}" for value in length)
    means = (f"{values.mean():.1f} ± {standard_error(values):.1f}" for values in (accuracy, length))
    return " | ".join([*each, *means])


def paired(runs: list[dict[int, Evaluation]], against: list[dict[int, Evaluation]]) -> str:
    """Mean difference of final accuracy (points) and length (tokens) to another method, over the same seeds."""
    pairs = [(run[max(run)], other[max(other)]) for run, other in zip(runs, against, strict=True)]
    accuracy = np.array([100 * (run.accuracy - other.accuracy) for run, other in pairs])
    length = np.array([run.mean_length - other.mean_length for run, other in pairs])
    return " | ".join(f"{values.mean():+.1f} ± {standard_error(values):.1f}" for values in (accuracy, length))


def draw(runs: dict[str, list[dict[int, Evaluation]]], path: Path) -> None:
    """Every run's path in the plane of length and accuracy, a colour a method."""
    import matplotlib.figure

    figure = matplotlib.figure.Figure(figsize=(7.2, 4.8), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for method, seeds in runs.items():
        for seed, run in enumerate(seeds):
            length = [found.mean_length for found in run.values()]
            accuracy = [100 * found.accuracy for found in run.values()]
            axes.plot(length, accuracy, color=COLOURS[method], alpha=0.35, linewidth=1)
            label = METHODS[method] if seed == 0 else None
            axes.plot(length[-1:], accuracy[-1:], "o", color=COLOURS[method], markersize=6, label=label)
    start = next(iter(runs.values()))[0][0]
    axes.plot([start.mean_length], [100 * start.accuracy], "s", color="black", markersize=7, label="before training")
    axes.set_xlabel("mean completion length (tokens)")
    axes.set_ylabel("held-out accuracy (%)")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path)


def main() -> None:
    """Arguments to tables and one picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, help="folder that holds <method>_<seed>")
    parser.add_argument("--to", type=Path, required=True, help="where arithmetic.png is written")
    arguments = parser.parse_args()
    runs = {}
    for method in METHODS:
        folders = itertools.takewhile(Path.is_dir, (arguments.runs / f"{method}_{seed}" for seed in itertools.count()))
        runs[method] = [read(folder) for folder in folders]
    print("| method | accuracy by seed (%) | length by seed | accuracy | length | accuracy − EGRSD | length − EGRSD |")
    print("|---|---|---|---|---|---|---|")
    for method, seeds in runs.items():
        difference = "|" if method == "egrsd" else paired(seeds, runs["egrsd"])
        print(f"| {METHODS[method]} | {figures(seeds)} | {difference} |")
    draw(runs, arguments.to / "arithmetic.png")


if __name__ == "__main__":
    main()
