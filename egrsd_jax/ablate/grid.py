"""A grid of training runs: one YAML file to a list of cells, each checked before anything runs. Imports no jax.

docs/ablations.md describes the file.
"""

import itertools
import json
import re
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_origin

import yaml

from egrsd_jax.command_line import OLD_FIELDS, ConfigParser, field_types, nearest, read_yaml
from egrsd_jax.config import Config
from egrsd_jax.evaluate.settings import Settings
from egrsd_jax.presets import training_file
from egrsd_jax.runs.files import NotWritten
from egrsd_jax.runs.lock import FolderGone

EVALUATED_TOGETHER = 16  # samples, where the grid does not say: as `egrsd evaluate` has it for models of any size
RECORD = "grid.json"  # by which a folder is known to be a grid's
KEYS = ("base", "set", "grid", "cells", "evaluate")
WINDOW, METHOD = "method.window", "method.name"
RESERVED = ("run.dir", "run.name")  # a cell's folder follows from its name
OLD_EVALUATE = {"slots": "max_rows"}  # the evaluation's options that had another name in earlier versions
LONGEST_NAME = 200


@dataclass(frozen=True)
class Cell:
    """One run. `arm` names it without its seed, `fields` are those in which arms differ, by their dotted names."""

    name: str
    arm: str
    seed: int
    fields: dict[str, Any]
    config: Config
    argv: list[str]  # of the training command, without --run.dir and --run.name


@dataclass(frozen=True)
class Evaluate:
    """How every cell is evaluated: the evaluation command's options, and the steps whose checkpoints it takes; none
    means the last."""

    options: dict[str, Any] = field(default_factory=dict)
    steps: tuple[int, ...] = ()


@dataclass(frozen=True)
class Grid:
    """All cells, in the order of the file. `axes` are the fields that arms differ in, each with its values; `cell`
    among them means the file's named cells."""

    name: str
    folder: Path
    axes: dict[str, list[Any]]
    cells: list[Cell]
    evaluate: Evaluate | None

    def folder_of(self, cell: Cell) -> Path:
        """The folder of a cell's run."""
        return self.folder / cell.name

    def evaluated_steps(self, cell: Cell) -> tuple[int, ...]:
        """The steps whose checkpoints are evaluated."""
        return () if self.evaluate is None else self.evaluate.steps or (cell.config.train.steps,)

    def evaluated_samples(self, cell: Cell) -> tuple[int, int]:
        """How many samples of benchmarks a cell is evaluated on after its training, and how many are sampled at once.

        A benchmark whose size is not known beforehand counts none.
        """
        if self.evaluate is None:
            return 0, 1
        from egrsd_jax.evaluate.benchmarks import BENCHMARKS  # imported late: it brings the grading along

        settings = Settings(**self.evaluate.options)
        chosen = [BENCHMARKS[name] for name in settings.benchmarks if name in BENCHMARKS]
        problems = [min(settings.problems or benchmark.rows or 0, benchmark.rows or 0) for benchmark in chosen]
        samples = [settings.samples or benchmark.protocol.samples for benchmark in chosen]
        count = sum(some * each_of for some, each_of in zip(problems, samples, strict=True))
        return count * len(self.evaluated_steps(cell)), settings.max_rows or EVALUATED_TOGETHER


def read_grid(file: Path, options: Sequence[str] = ()) -> Grid:
    """The grid of a YAML file, with options of training that hold for every cell.

    An option for a field that the grid varies takes the place of its values, and a list for one that takes a single
    value varies it. Raises ValueError, one line, for anything that is wrong with any cell.
    """
    content = _content(file)
    varied, fixed = _given(file, content, _options(options))
    directory, name = fixed.pop("run.dir", "runs"), fixed.pop("run.name", file.stem)
    seeds = varied.pop("seed", None)
    if seeds and not all(type(seed) is int for seed in seeds):
        raise ValueError(f"{file}: grid: seed is {seeds!r}; it must be a list of whole numbers")
    parser = ConfigParser("egrsd ablate", None, file)
    base = _base(file, content)
    named: dict[str, dict[str, Any]] = content["cells"] or {"": {}}
    cells = []
    for label, own in named.items():
        for values in itertools.product(*varied.values()):
            at = dict(zip(varied, values, strict=True))
            given = _with_method({**content["set"], **own, **at, **fixed})
            argv = ["--config", str(base), *(f"--{field}={_text(value)}" for field, value in given.items())]
            try:
                config = parser.config(argv)
                configs = [replace(config, seed=seed) for seed in seeds or [config.seed]]
            except ValueError as error:
                where = ", ".join([*filter(None, [label]), *(f"{field} {value}" for field, value in at.items())])
                raise ValueError(f"{file}, cell {where or 'base'}: {' '.join(str(error).split())}") from None
            cells += _seeded(label, list(at), list(own), argv, configs)
    _check_names(file, cells)
    axes = {axis: list(dict.fromkeys(cell.fields[axis] for cell in cells)) for axis in ("cell", *varied)}
    axes = {axis: values for axis, values in axes.items() if len(values) > 1}
    grid = Grid(name, Path(directory) / name, axes, cells, _evaluate(file, content))
    _check_evaluated(file, grid)
    return grid


def write_record(grid: Grid) -> None:
    """Writes what a report needs to know of the grid into its folder."""
    cells = [
        {
            "name": cell.name,
            "arm": cell.arm,
            "seed": cell.seed,
            "fields": cell.fields,
            "steps": cell.config.train.steps,
            "evaluated": grid.evaluated_steps(cell),
        }
        for cell in grid.cells
    ]
    content = {"name": grid.name, "axes": grid.axes, "cells": cells}
    grid.folder.mkdir(parents=True, exist_ok=True)
    new = grid.folder / f"{RECORD}.{uuid.uuid4().hex}"  # several hosts may write it at once
    try:
        new.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        new.replace(grid.folder / RECORD)
    except OSError as error:
        with suppress(OSError):
            new.unlink(missing_ok=True)
        raise NotWritten(error.errno, error.strerror, str(grid.folder / RECORD)) from None


def check_record(grid: Grid) -> None:
    """Raises FolderGone where the grid's folder is not the one that `write_record` wrote to: without the disk that it
    is on, every cell would begin again in another place."""
    if not (grid.folder / RECORD).is_file():
        raise FolderGone(
            f"{grid.folder} is no longer the folder of this grid: it was moved, or its disk is away; bring it back, "
            "and the same command resumes"
        )


def _content(file: Path) -> dict[str, Any]:
    """The file's mapping, its keys and names checked."""
    if not file.is_file():
        raise ValueError(f"{file}: there is no such file")
    content = read_yaml(file)
    if not isinstance(content, dict) or "base" not in content:
        raise ValueError(f"{file} names no base: a training configuration, such as 'base: ../arithmetic.yaml'")
    for key in content:
        if key not in KEYS:
            raise ValueError(f"{file}: there is no key {key}; {nearest(str(key), set(KEYS))} (of {', '.join(KEYS)})")
    _base(file, content)
    for key in ("set", "grid", "cells", "evaluate"):
        if not isinstance(content.get(key) or {}, dict):
            raise ValueError(f"{file}: {key} is {content[key]!r}; it must be a mapping")
    cells = {str(label): own or {} for label, own in (content.get("cells") or {}).items()}
    for label, own in cells.items():
        if not isinstance(own, dict):
            raise ValueError(f"{file}: cells: {label} is {own!r}; it must be a mapping of fields, {{}} for none")
        cells[label] = _with_new_names(own)
        _check_fields(f"{file}: cells: {label}", cells[label])
    fields = {key: _with_new_names(content.get(key) or {}) for key in ("set", "grid")}
    return {**content, **fields, "cells": cells}


def _with_new_names(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields under the names that they have today, by dotted name."""
    return {OLD_FIELDS.get(name, name): value for name, value in fields.items()}


def _base(file: Path, content: dict[str, Any]) -> Path:
    """The training configuration that a grid's file names: a file relative to its own folder, or a preset."""
    given = str(content["base"])
    relative = file.parent / given
    try:
        return relative.resolve() if relative.is_file() else training_file(given).resolve()
    except ValueError:
        raise ValueError(
            f"{file}: base {given} is neither a file ({relative}) nor a preset; a file is relative to the grid's file"
        ) from None


def _given(file: Path, content: dict[str, Any], options: dict[str, str]) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """The values of every field that is varied, and the options for all the others."""
    _check_fields(f"{file}: set", content["set"])
    varied: dict[str, list[Any]] = dict(content["grid"])
    _check_fields(f"{file}: grid", varied)
    named = {name: label for label, own in content["cells"].items() for name in own}
    if both := sorted(set(varied) & set(named)):
        raise ValueError(f"{file}: {both[0]} is varied by grid and set by the cell {named[both[0]]}; it can be in one")
    fixed: dict[str, Any] = {}
    for name, text in options.items():
        if name in named:
            raise ValueError(f"--{name} is set by the cell {named[name]} of {file}, and cannot be given for all cells")
        if name in varied or _is_list(name, text):
            try:
                value = yaml.safe_load(text)
            except (yaml.YAMLError, ValueError):
                raise ValueError(
                    f"--{name} is {text}; it must be a value or a list of values, such as [0, 1]"
                ) from None
            varied[name] = value if isinstance(value, list) else [value]
        else:
            fixed[name] = text
    for name, values in varied.items():
        if not isinstance(values, list) or not values:
            raise ValueError(f"{file}: grid: {name} is {values!r}; it must be a list of values, such as [0, 1]")
    return varied, fixed


def _is_list(name: str, text: str) -> bool:
    """Whether an option is several values for a field that takes one. A text may begin with a bracket itself."""
    kind = field_types()[name]
    return text.lstrip().startswith("[") and kind not in (str, str | None) and get_origin(kind) is not tuple


def _options(options: Sequence[str]) -> dict[str, str]:
    """`--NAME VALUE` and `--NAME=VALUE` by name."""
    by_name, rest = {}, list(options)
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        if not name.startswith("--"):
            raise ValueError(f"{name} belongs to no option; give the grid's file first, then --FIELD VALUE")
        if not equals and not rest:
            raise ValueError(f"{name} has no value; give {name} VALUE")
        by_name[name.removeprefix("--")] = value if equals else rest.pop(0)
    by_name = _with_new_names(by_name)
    _check_fields("the command line", by_name, reserved=())
    return by_name


def _check_fields(where: str, fields: dict[str, Any], reserved: Sequence[str] = RESERVED) -> None:
    known = set(field_types())
    for name in map(str, fields):
        if name not in known:
            inside = sorted(field for field in known if field.startswith(f"{name}."))
            fix = f"write one of its fields, such as {inside[0]}" if inside else nearest(name, known)
            raise ValueError(f"{where}: there is no field {name}; {fix}")
        if name in reserved:
            raise ValueError(f"{where}: {name} can only be given on the command line: cells are kept by name")
        if name.startswith("run.") and name not in RESERVED:
            raise ValueError(f"{where}: {name}: a cell runs on one host; start the grid on each host instead")


def _with_method(fields: dict[str, Any]) -> dict[str, Any]:
    """Window 0 is EGRSD and any other one CL-EGRSD, so a grid that varies the window names neither."""
    window = _text(fields.get(WINDOW)).strip()
    if window == "null" or METHOD in fields:
        return fields
    return {METHOD: "egrsd" if window == "0" else "cl_egrsd", **fields}  # what is no number, the parser refuses


def _seeded(
    label: str, varied: Sequence[str], own: Sequence[str], argv: list[str], configs: Sequence[Config]
) -> list[Cell]:
    """The cells of one arm, which differ in the seed alone."""
    at = {field: _value(configs[0], field) for field in varied}
    arm = "-".join([*filter(None, [_safe(label)]), *_named(at)]) or "base"
    fields = {"cell": label, **at, **{field: _value(configs[0], field) for field in own}}
    return [
        Cell(f"{arm}-seed{config.seed}", arm, config.seed, fields, config, [*argv, f"--seed={config.seed}"])
        for config in configs
    ]


def _named(fields: dict[str, Any]) -> list[str]:
    """Parts of a name: the last word of a number's field and the number; a text alone."""
    last = [name.rpartition(".")[2] for name in fields]
    short = {name: word if last.count(word) == 1 else name for name, word in zip(fields, last, strict=True)}
    return [_safe(value if isinstance(value, str) else f"{short[name]}{value}") for name, value in fields.items()]


def _safe(text: str) -> str:
    """As a file may be called everywhere."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).lstrip(".-")


def _value(config: Config, name: str) -> Any:
    """A field's value; null for one that the method does not have, which a cell may say it leaves at null."""
    section, _, field = name.rpartition(".")
    return getattr(getattr(config, section) if section else config, field, None)


def _text(value: Any) -> str:
    """A value as the command line takes it."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _check_names(file: Path, cells: Sequence[Cell]) -> None:
    by_name: dict[str, Cell] = {}
    for cell in cells:
        if (other := by_name.setdefault(cell.name.lower(), cell)) is not cell:  # some file systems know no case
            raise ValueError(
                f"{file}: two cells would be called {cell.name}: {_described(other)}; and {_described(cell)}; give "
                "each value once, or name cells"
            )
        if len(cell.name) > LONGEST_NAME:
            raise ValueError(f"{file}: the name {cell.name} is too long for a folder; use named cells")


def _described(cell: Cell) -> str:
    fields = {name: value for name, value in cell.fields.items() if (name, value) != ("cell", "")}
    return ", ".join(f"{name} {value}" for name, value in [*fields.items(), ("seed", cell.seed)])


def _evaluate(file: Path, content: dict[str, Any]) -> Evaluate | None:
    """The options of the evaluation command, checked as it would check them."""
    given_options: dict[str, Any] = content.get("evaluate") or {}
    options = {OLD_EVALUATE.get(name, name): value for name, value in given_options.items()}
    if not options:
        return None
    from egrsd_jax.evaluate.benchmarks import find_benchmark  # imported late: it brings the grading along

    steps = options.pop("steps", [])
    ours = {"model", "run", "step", "adapter", "to", "files", "mesh"}
    if unknown := sorted(set(options) - (set(Settings.__dataclass_fields__) - ours)):
        known = ", ".join(["steps", *(name for name in Settings.__dataclass_fields__ if name not in ours)])
        raise ValueError(f"{file}: evaluate: there is no option {unknown[0]}; it takes {known}")
    if not isinstance(steps, list) or not all(type(step) is int and step >= 1 for step in steps):
        raise ValueError(f"{file}: evaluate: steps is {steps!r}; it must be a list of whole numbers, each at least 1")
    try:
        given: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in options.items()
        }
        Settings(**given)
        for name in given.get("benchmarks", ()):
            find_benchmark(name, {})
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file}: evaluate: {error}") from None
    return Evaluate(options, tuple(steps))


def _check_evaluated(file: Path, grid: Grid) -> None:
    """A grid without results has nothing to compare."""
    for cell in grid.cells:
        train = cell.config.train
        if cell.config.evaluation.path is None and grid.evaluate is None:
            raise ValueError(
                f"{file}: nothing evaluates the cell {cell.name}; set evaluation.path, or give evaluate: "
                "{benchmarks: [...]}"
            )
        for step in grid.evaluated_steps(cell):
            if step > train.steps or (step < train.steps and step % train.checkpoint_every):
                raise ValueError(
                    f"{file}: evaluate: steps has {step}, of which the cell {cell.name} writes no checkpoint: it makes "
                    f"{train.steps} steps and one every {train.checkpoint_every}"
                )
