"""What a report compares: evaluations and training runs, read from their folders into scores."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from egrsd_jax.command_line import load_config
from egrsd_jax.evaluate.held_out import read_evaluations
from egrsd_jax.evaluate.samples import RESULTS
from egrsd_jax.evaluate.scores import Scores
from egrsd_jax.runs.files import read_json
from egrsd_jax.runs.layout import CONFIG, evaluation_file


@dataclass(frozen=True)
class Point:
    """One policy: its scores by benchmark."""

    label: str
    scores: dict[str, Scores]


@dataclass(frozen=True)
class Entry:
    """A folder that was given: an evaluation, which is one point, or a training run, one point per evaluated step.

    `base` is the model as it was named; `regime` is that of an evaluation's results.json, empty for a run.
    """

    label: str
    base: str
    points: list[Point]
    regime: dict[str, Any] = field(default_factory=dict)


def read_entries(folders: Sequence[Path]) -> list[Entry]:
    """The results of every folder. An evaluation is called what was evaluated; where two would be called the same,
    each is called what its folder is."""
    entries = [read_entry(folder) for folder in folders]
    labels = [point.label for entry in entries for point in entry.points]
    for index, (entry, folder) in enumerate(zip(entries, folders, strict=True)):
        if entry.regime and labels.count(entry.label) > 1:
            renamed = [replace(point, label=folder.resolve().name) for point in entry.points]
            entries[index] = replace(entry, label=folder.resolve().name, points=renamed)
    return entries


def read_entry(folder: Path) -> Entry:
    """Raises FileNotFoundError or ValueError, one line, for a folder that has neither kind of result."""
    if (folder / RESULTS).is_file():
        return _read_evaluation(folder)
    if (folder / CONFIG).is_file() and (evaluations := held_out_scores(folder)):
        return _read_training(folder, evaluations)
    raise FileNotFoundError(
        f"{folder} has no results to report: `egrsd evaluate` leaves {RESULTS}, and `egrsd train` {CONFIG} and "
        f"{evaluation_file(0)} where evaluation.path is given"
    )


def _read_evaluation(folder: Path) -> Entry:
    content = read_json(folder / RESULTS)
    try:
        scores = {name: Scores.from_json(result["scores"]) for name, result in content["benchmarks"].items()}
        base, label = content["regime"]["free"]["base"], content["regime"]["free"]["label"]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{folder / RESULTS} is not an evaluation's: {error!r}") from None
    return Entry(label, base, [Point(label, scores)], content["regime"])


def _read_training(folder: Path, evaluations: dict[int, Scores]) -> Entry:
    name = folder.resolve().name
    points = [Point(f"{name} step {step}", {scores.benchmark: scores}) for step, scores in evaluations.items()]
    return Entry(name, load_config(folder / CONFIG).model.path, points)


def held_out_scores(folder: Path) -> dict[int, Scores]:
    """The evaluations that a training run made on its way, by step."""
    return read_evaluations(folder, load_config(folder / CONFIG).evaluation)
