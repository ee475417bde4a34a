"""The folder of an evaluation: its regime, its samples as they finish, its grades and results.

Imports no jax. Sampling and grading are apart, so stored samples can be graded again.
"""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from egrsd_jax.data.problems import Problem
from egrsd_jax.runs.files import (
    check_settings,
    numbered_rows,
    read_settings,
    write_json,
    write_rows,
    write_whole,
)
from egrsd_jax.runs.lock import held
from egrsd_jax.runs.rows import append_rows, heal

RESULTS = "results.json"
REGIME = "regime.json"


@dataclass(frozen=True)
class Sample:
    """One completion: of which problem, which of its K, with how many tokens, and whether it came to an end.

    `seconds` is the wall-clock time from its prompt's start to its end; many are sampled at once.
    """

    problem: str
    sample: int
    seed: int
    tokens: int
    stopped: bool
    seconds: float
    text: str


FIELDS = tuple(field.name for field in fields(Sample))


class EvaluationFolder:
    """What an evaluation leaves, and resumes from."""

    def __init__(self, path: Path):
        self.path = path

    def regime(self) -> dict[str, Any]:
        """What the samples here were sampled with; empty for a new folder. Raises ValueError where it is no JSON."""
        return read_settings(self.path / REGIME)

    def bind(self, regime: dict[str, Any]) -> None:
        """Writes the regime, or adds its benchmarks to that which is there.

        Of a regime everything counts but `free`. Raises SettingsMismatch, one line with every setting that differs.
        """
        was = self.regime()
        both = was.get("benchmarks", {}).keys() & regime["benchmarks"].keys()
        if was:
            before, now = (
                {**settings, "benchmarks": {name: settings["benchmarks"][name] for name in both}}
                for settings in (was, regime)
            )
            check_settings(f"the samples in {self.path}", before, now)
        merged = {**regime, "benchmarks": {**was.get("benchmarks", {}), **regime["benchmarks"]}}
        self.path.mkdir(parents=True, exist_ok=True)
        self.write_json(REGIME, merged)

    def locked(self) -> AbstractContextManager[None]:
        """Keeps other processes from writing here within a block. Raises Locked, one line, where one writes now."""
        return held(self.path)

    def samples(self, benchmark: str, notes: list[str] | None = None) -> dict[tuple[str, int], Sample]:
        """All samples of a benchmark, by problem and number; of an evaluation that is about to add to them.

        A line that a kill cut short is taken off the file, and damaged lines are set aside, each with a line in
        `notes`. Of a sample that is there twice with the same text the first counts; with two texts none does, and it
        is sampled again.
        """
        healed = heal(self._samples_file(benchmark), FIELDS, one_of=("problem", "sample"), same=("text", "tokens"))
        samples = [Sample(**{name: row[name] for name in FIELDS}) for row in healed.rows]
        if notes is not None:
            notes += healed.notes
        return {(sample.problem, sample.sample): sample for sample in samples}

    def append(self, benchmark: str, samples: Iterable[Sample]) -> None:
        """Adds samples to the file of a benchmark; they are on disk when this returns."""
        append_rows(self._samples_file(benchmark), [asdict(sample) for sample in samples], to_disk=True)

    def write_problems(self, benchmark: str, problems: Sequence[Problem]) -> None:
        """The problems with their answers, so that the folder can be graded again by itself."""
        rows = [
            {"id": problem.id, "problem": problem.problem, "answer": problem.answer}
            | ({} if problem.tolerance is None else {"tolerance": problem.tolerance})
            for problem in problems
        ]
        self.write_rows(f"problems_{benchmark}.jsonl", rows)

    def problems(self, benchmark: str) -> list[Problem]:
        """What `write_problems` wrote. Raises FileNotFoundError where it did not."""
        file = self.path / f"problems_{benchmark}.jsonl"
        return [
            Problem(row["id"], row["problem"], "", row["answer"], tolerance=row.get("tolerance"))
            for _, row in numbered_rows(file)
        ]

    def write_rows(self, name: str, rows: Iterable[dict[str, Any]]) -> None:
        """A JSON Lines file, whole."""
        write_rows(self.path / name, rows)

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """A JSON file, whole."""
        write_json(self.path / name, content, indent=1)

    def write_text(self, name: str, text: str) -> None:
        """A text file, whole."""
        write_whole(self.path / name, text)

    def _samples_file(self, benchmark: str) -> Path:
        return self.path / f"samples_{benchmark}.jsonl"
