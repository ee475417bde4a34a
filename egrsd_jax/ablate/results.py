"""What a grid found: its arms, each with a run for every seed, read from the folder that `egrsd ablate` leaves."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from egrsd_jax.ablate.grid import RECORD
from egrsd_jax.ablate.state import failure_line, read_failure
from egrsd_jax.command_line import load_config
from egrsd_jax.evaluate.samples import RESULTS
from egrsd_jax.evaluate.scores import Scores
from egrsd_jax.objective.methods import METHODS
from egrsd_jax.report.entries import held_out_scores, read_entry
from egrsd_jax.report.published import (
    PUBLISHED,
    PUBLISHED_GAMMA_WINDOW,
    PUBLISHED_MEANS,
    PUBLISHED_TEACHERS,
    Published,
    other_regime,
    other_training,
)
from egrsd_jax.runs.layout import CONFIG, benchmarks_folder

ByBenchmark = dict[str, Scores]


@dataclass(frozen=True)
class GridRun:
    """One cell: what was found at each evaluated step. It is `missing`, or `failed`, without its last one."""

    folder: Path
    seed: int
    last: int
    steps: dict[int, ByBenchmark]
    failure: str | None = None

    @property
    def final(self) -> ByBenchmark | None:
        """What it found at its end."""
        return self.steps.get(self.last)

    @property
    def absence(self) -> str:
        """Why there is no `final`, in a word."""
        return "missing" if self.failure is None else "failed"


@dataclass(frozen=True)
class Arm:
    """The cells that differ in the seed alone."""

    label: str
    fields: dict[str, Any]
    runs: list[GridRun]

    def at(self, step: int) -> dict[int, ByBenchmark]:
        """What its runs found at a step, by seed."""
        return {run.seed: run.steps[step] for run in self.runs if step in run.steps}

    @property
    def final(self) -> dict[int, ByBenchmark]:
        """What its ended runs found, by seed."""
        return {run.seed: run.final for run in self.runs if run.final is not None}

    @property
    def absence(self) -> str:
        """What replaces its results where it has none."""
        return "failed" if any(run.failure for run in self.runs) else "missing"


@dataclass(frozen=True)
class GridResults:
    """A grid as a report shows it. `axes` are the fields that arms differ in, each with its values."""

    name: str
    axes: dict[str, list[Any]]
    arms: list[Arm]
    published: list[Published] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def benchmarks(self) -> list[str]:
        """The benchmarks that every ended run has, in the first one's order."""
        finals = [final for arm in self.arms for final in arm.final.values()]
        return [name for name in finals[0] if all(name in final for final in finals)] if finals else []

    def reference(self, arm: Arm) -> Arm | None:
        """What an arm is compared with, of its own model: EGRSD where a cell or method is called so, else the first
        arm that has results; None where none has."""
        ended = [other for other in self.arms if other.final and _model(other) == _model(arm)]
        named = [other for other in ended if "egrsd" in (other.fields.get("cell"), other.fields.get("method.name"))]
        return next(iter(named or ended), None)

    @property
    def reference_label(self) -> str:
        """The reference in words."""
        labels = {reference.label for arm in self.arms if (reference := self.reference(arm)) is not None}
        return labels.pop() if len(labels) == 1 else "its model's reference"

    @property
    def steps(self) -> list[int]:
        """All evaluated steps of any run."""
        return sorted({step for arm in self.arms for run in arm.runs for step in run.steps})


def is_grid(folder: Path) -> bool:
    """Whether a folder is a grid's."""
    return (folder / RECORD).is_file()


def read_grid_results(folder: Path) -> GridResults:
    """Reads every cell of a grid. Raises ValueError, one line, where no cell has ended."""
    try:
        record = json.loads((folder / RECORD).read_bytes())
        axes: dict[str, list[Any]] = record["axes"]
        runs: dict[str, list[GridRun]] = {}
        fields: dict[str, dict[str, Any]] = {}
        for cell in record["cells"]:
            runs.setdefault(cell["arm"], []).append(_read_run(folder / cell["name"], cell))
            fields[cell["arm"]] = cell["fields"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / RECORD} cannot be read ({error!r}); `egrsd ablate` writes it anew") from None
    arms = [Arm(_label(name, fields[name], axes), fields[name], runs[name]) for name in runs]
    return grid_results(record["name"], axes, arms)


def grid_results(name: str, axes: dict[str, list[Any]], arms: list[Arm]) -> GridResults:
    """Arms with what is published of the same model and regime. Raises ValueError where no run has ended."""
    if not any(arm.final for arm in arms):
        reasons = [run.failure for arm in arms for run in arm.runs if run.failure]
        raise ValueError(f"no cell of the grid {name} has ended" + (f"; one failed: {reasons[0]}" if reasons else ""))
    results = GridResults(name, axes, arms)
    if len(results.benchmarks) == 0:
        raise ValueError(f"the cells of the grid {name} have no benchmark in common, so there is nothing to compare")
    return GridResults(name, axes, arms, *_published(results))


def _read_run(folder: Path, cell: Mapping[str, Any]) -> GridRun:
    steps: dict[int, ByBenchmark] = {}
    if cell["evaluated"]:
        for step in cell["evaluated"]:
            if (benchmarks_folder(folder, step) / RESULTS).is_file():
                steps[step] = read_entry(benchmarks_folder(folder, step)).points[0].scores
    elif (folder / CONFIG).is_file():
        steps = {step: {scores.benchmark: scores} for step, scores in held_out_scores(folder).items()}
    failure = read_failure(folder)
    return GridRun(folder, cell["seed"], cell["steps"], steps, None if failure is None else failure_line(failure))


def _label(name: str, fields: Mapping[str, Any], axes: Mapping[str, Sequence[Any]]) -> str:
    """An arm in words: its cell's name, and the value of each field that varies."""
    parts = [value_label("cell", fields["cell"])] if fields.get("cell") else []
    parts += [value_label(axis, fields[axis]) for axis in axes if axis != "cell"]
    return ", ".join(parts) or name


def _model(arm: Arm) -> Any:
    return arm.fields.get("model.path")


def value_label(axis: str, value: Any) -> str:
    """A value of a field in words."""
    if axis in ("cell", "method.name"):
        return METHODS[value].title if value in METHODS else str(value)
    return str(value) if isinstance(value, str) else f"{axis.rpartition('.')[2]} {value}"


def _published(results: GridResults) -> tuple[list[Published], list[str]]:
    """The printed rows that belong to this kind of grid, of the models that were trained and evaluated as the paper's;
    and why others have none."""
    rows = [*PUBLISHED, *PUBLISHED_MEANS] if {"cell", "method.name"} & set(results.axes) else []
    if any("method.teacher" in arm.fields for arm in results.arms):
        rows = PUBLISHED_TEACHERS
    if {"method.gamma", "method.window"} <= set(results.axes):
        rows = PUBLISHED_GAMMA_WINDOW
    same: dict[str, None] = {}
    notes: dict[str, None] = {}
    firsts = [run for arm in results.arms for run in [run for run in arm.runs if run.final is not None][:1]]
    for run in firsts if rows else []:
        config = load_config(run.folder / CONFIG)
        model = Path(config.model.path).name
        if model not in {row.model for row in rows} or model in same:
            continue
        benchmarks = benchmarks_folder(run.folder, run.last)
        evaluated = other_regime(read_entry(benchmarks)) if benchmarks.is_dir() else "it was evaluated while training"
        if reason := other_training(config) or evaluated:
            notes[f"The paper's results for {model} are not compared with {run.folder.name}: {reason}."] = None
        else:
            same[model] = None
    return [row for row in rows if row.model in same], list(notes)
