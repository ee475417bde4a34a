"""What a report compares: evaluations and training runs, read from their folders into scores."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from egrsd_jax.command_line import load_config
from egrsd_jax.config import EvaluationSettings
from egrsd_jax.data.tasks.registry import BUILT_IN_TASKS
from egrsd_jax.evaluate.benchmarks import BENCHMARKS, LoadedBenchmark, load_benchmark
from egrsd_jax.evaluate.held_out import Evaluation
from egrsd_jax.evaluate.samples import RESULTS
from egrsd_jax.evaluate.scores import Scores
from egrsd_jax.runs.files import read_json
from egrsd_jax.runs.layout import CONFIG, evaluation_file, evaluation_files


@dataclass(frozen=True)
class Point:
    """One policy: its scores by benchmark."""

    label: str
    scores: dict[str, Scores]


@dataclass(frozen=True)
class Entry:
    """A folder that was given: an evaluation, which is one point, or a training run, a point for each evaluated step.

    `base` is the model as it was named; `regime` what an evaluation's results.json says of it, empty for a run.
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
    if (folder / CONFIG).is_file() and (found := held_out_scores(folder)):
        return _read_training(folder, found)
    raise FileNotFoundError(
        f"{folder} has no results to report: `egrsd evaluate` leaves {RESULTS}, and `egrsd train` {CONFIG} and "
        f"{evaluation_file(0)} where evaluation.path is given"
    )


def _read_evaluation(folder: Path) -> Entry:
    content = read_json(folder / RESULTS)
    try:
        scores = {name: Scores.from_json(found["scores"]) for name, found in content["benchmarks"].items()}
        base, label = content["regime"]["free"]["base"], content["regime"]["free"]["label"]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{folder / RESULTS} is not an evaluation's: {error!r}") from None
    return Entry(label, base, [Point(label, scores)], content["regime"])


def _read_training(folder: Path, found: dict[int, Scores]) -> Entry:
    name = folder.resolve().name
    points = [Point(f"{name} step {step}", {scores.benchmark: scores}) for step, scores in found.items()]
    return Entry(name, load_config(folder / CONFIG).model.path, points)


def held_out_scores(folder: Path) -> dict[int, Scores]:
    """The evaluations that a training run made on its way, by step."""
    settings = load_config(folder / CONFIG).evaluation
    files = evaluation_files(folder)
    return {step: _scores(settings, Evaluation.from_json(read_json(file))) for step, file in files.items()}


@functools.cache
def _built_in_benchmark(task: str) -> LoadedBenchmark:
    """A built-in task's benchmark: reading it checks every answer, and a report reads a hundred runs."""
    return load_benchmark(BENCHMARKS[task])


def _scores(settings: EvaluationSettings, found: Evaluation) -> Scores:
    """Held-out samples as scores. A built-in task's problems are those of its benchmark, so the two can be paired."""
    path = str(settings.path)
    if path in BUILT_IN_TASKS:
        loaded = _built_in_benchmark(path)
        name, identity, names = loaded.name, loaded.hash, [problem.id for problem in loaded.problems]
    else:
        name = Path(path).stem
        identity = " ".join(filter(None, (path, settings.name, settings.split)))
        names = [str(number) for number in range(len(found.correct))]
    return Scores(
        benchmark=name,
        identity=identity,
        problems=names[: len(found.correct)],
        right=found.correct,
        tokens=found.length,
        cut_off=found.cut_off,
        ungradable=found.ungradable,
        max_new_tokens=settings.max_new_tokens,
    )
