"""Tables and picture of docs/arithmetic.md from finished runs: `python benchmarks/arithmetic.py runs --to docs`.

Reads the folders `<method>_<seed>` that the loop in docs/arithmetic.md leaves, and prints Markdown.
"""

import argparse
import itertools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout that this file stands in

from egrsd_jax.evaluate.held_out import Evaluation, standard_error

METHODS = {
    "egrsd": "EGRSD", "cl_egrsd": "CL-EGRSD", "direction": "γ = 0", "rlsd": "RLSD", "grpo": "GRPO, whitened",
    "grpo_group": "GRPO, group", "dr_grpo": "Dr.GRPO", "dapo": "DAPO", "opsd": "OPSD", "pw_opsd": "PW-OPSD",
    "paced": "PACED", "crisp": "CRISP", "sdpo": "SDPO", "sdft": "SDFT", "eopd": "EOPD", "reopold": "REOPOLD",
    "gates": "GATES", "sft": "SFT", "ssd": "SSD",
}  # fmt: skip
MARKERS = "osD^vP*"


Run = dict[int, Evaluation]


def read(folder: Path) -> Run:
    """The evaluations of one run by their step."""
    files = {int(file.stem.removeprefix("evaluation_step")): file for file in folder.glob("evaluation_step*.json")}
    return {step: Evaluation.from_json(json.loads(files[step].read_text())) for step in sorted(files)}


def figures(runs: list[Run]) -> str:
    """One table row of figures: every seed's final accuracy and length, then their means over seeds."""
    final = [run[max(run)] for run in runs]
    accuracy = np.array([100 * found.accuracy for found in final])
    length = np.array([found.mean_length for found in final])
    each = " ".join(f"{value:.1f}" for value in accuracy), " ".join(f"{value:.1f}" for value in length)
    return " | ".join([*each, with_error(accuracy), with_error(length)])


def with_error(values: np.ndarray) -> str:
    """The mean over seeds, with its standard error where there are several."""
    return f"{values.mean():.1f}" + (f" ± {standard_error(values):.1f}" if len(values) > 1 else "")


def paired(runs: list[Run], against: list[Run]) -> str:
    """Mean difference of final accuracy (points) and length (tokens) to another method on the same problems and seeds.

    Two standard errors each: over problems, each one's difference being its mean over seeds, and over seeds where there
    are several.
    """
    pairs = [(run[max(run)], other[max(other)]) for run, other in zip(runs, against, strict=False)]
    columns = []
    for scale, field in ((100, "correct"), (1, "length")):
        change_SP = np.array(
            [
                scale * (np.mean(getattr(run, field), axis=1) - np.mean(getattr(other, field), axis=1))
                for run, other in pairs
            ]
        )
        seeds = f" / {standard_error(change_SP.mean(axis=1)):.1f}" if len(pairs) > 1 else ""
        columns.append(f"{change_SP.mean():+.1f} ± {standard_error(change_SP.mean(axis=0)):.1f}{seeds}")
    return " | ".join(columns)


def draw(runs: dict[str, list[Run]], path: Path) -> None:
    """Every run's end in the plane of length and accuracy, small, and the mean of each method, large."""
    import matplotlib.figure

    figure = matplotlib.figure.Figure(figsize=(8.4, 5.2), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for number, (method, seeds) in enumerate(runs.items()):
        final = [run[max(run)] for run in seeds]
        length = [found.mean_length for found in final]
        accuracy = [100 * found.accuracy for found in final]
        style: dict[str, Any] = {
            "color": f"C{number % 10}",
            "marker": MARKERS[number % len(MARKERS)],
            "linestyle": "none",
        }
        axes.plot(length, accuracy, markersize=3, alpha=0.4, **style)
        axes.plot([np.mean(length)], [np.mean(accuracy)], markersize=7, label=METHODS[method], **style)
    start = next(iter(runs.values()))[0][0]
    axes.plot([start.mean_length], [100 * start.accuracy], "s", color="black", markersize=7, label="before training")
    axes.set_xlabel("mean completion length (tokens)")
    axes.set_ylabel("held-out accuracy (%)")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8, ncols=2)
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
        if found := [read(folder) for folder in folders if (folder / "frontier.png").is_file()]:
            runs[method] = found
    print("| method | accuracy by seed (%) | length by seed | accuracy | length | accuracy − EGRSD | length − EGRSD |")
    print("|---|---|---|---|---|---|---|")
    for method, seeds in runs.items():
        difference = " |" if method == "egrsd" else paired(seeds, runs["egrsd"])
        print(f"| {METHODS[method]} | {figures(seeds)} | {difference} |")
    draw(runs, arguments.to / "arithmetic.png")


if __name__ == "__main__":
    main()
