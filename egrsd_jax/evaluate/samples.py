"""The folder of an evaluation: its regime, its samples as they finish, its grades and results.

Imports no jax. Sampling and grading are apart, so stored samples can be graded again.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from egrsd_jax.data.problems import Problem
from egrsd_jax.runs.files import (
    append_rows,
    check_settings,
    numbered_rows,
    read_settings,
    resumed_rows,
    write_json,
    write_rows,
    write_whole,
)

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

    def samples(self, benchmark: str) -> dict[tuple[str, int], Sample]:
        """All samples of a benchmark, by problem and number. A line that a kill cut short is taken off the file.

        Raises ValueError for a line that is whole but no sample, and for a sample that is there twice.
        """
        file = self._samples_file(benchmark)
        samples: dict[tuple[str, int], Sample] = {}
        for number, row in resumed_rows(file):
            try:
                sample = Sample(**row)
            except TypeError as error:
                raise ValueError(f"{file}, line {number} is not a sample ({error}); remove the line") from None
            if (key := (sample.problem, sample.sample)) in samples:
                raise ValueError(
                    f"{file}, line {number}: sample {sample.sample} of problem {sample.problem} is there twice, as "
                    "when two evaluations write to one folder at once; remove the line"
                )
            samples[key] = sample
        return samples

    def append(self, benchmark: str, samples: Iterable[Sample]) -> None:
        """Adds samples to the file of a benchmark; they are on disk when this returns."""
        append_rows(self._samples_file(benchmark), map(asdict, samples), to_disk=True)

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
