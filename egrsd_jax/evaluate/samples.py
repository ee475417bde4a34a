"""The folder of an evaluation: its regime, its samples as they finish, its grades and results.

Imports no jax. Samples are drawn in one place and graded in another, so old ones can be graded again.
"""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from egrsd_jax.data.problems import Problem

RESULTS = "results.json"


class RegimeMismatch(ValueError):
    """A folder's samples were drawn by other settings than those that would add to them."""


@dataclass(frozen=True)
class Sample:
    """One completion: of which problem, which of its K, with how many tokens, and whether it came to an end.

    `seconds` is the wall-clock time from its prompt's start to its end; many are drawn side by side.
    """

    problem: str
    sample: int
    seed: int
    tokens: int
    stopped: bool
    seconds: float
    text: str


class EvaluationFolder:
    """What an evaluation leaves, and goes on from."""

    def __init__(self, path: Path):
        self.path = path

    def regime(self) -> dict[str, Any]:
        """What the samples here were drawn by; empty for a new folder. Raises ValueError where it cannot be read."""
        file = self.path / "regime.json"
        if not file.is_file():
            return {}
        try:
            return json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{file} cannot be read ({error}); it is written whole, so something changed it") from None

    def bind(self, regime: dict[str, Any]) -> None:
        """Writes the regime, or adds its benchmarks to that which is there.

        Of a regime everything counts but `free`. Raises RegimeMismatch, one line with every setting that differs.
        """
        was = self.regime()
        both = was.get("benchmarks", {}).keys() & regime["benchmarks"].keys()
        kept = {**was, "benchmarks": {name: was["benchmarks"][name] for name in both}} if was else {}
        wanted = {**regime, "benchmarks": {name: regime["benchmarks"][name] for name in both}}
        if was and (different := differences(kept, wanted)):
            raise RegimeMismatch(
                f"the samples in {self.path} were drawn otherwise: {'; '.join(different)}; give those settings, or "
                "another folder with --to"
            )
        merged = {**regime, "benchmarks": {**was.get("benchmarks", {}), **regime["benchmarks"]}}
        self.path.mkdir(parents=True, exist_ok=True)
        self.write_json("regime.json", merged)

    def samples(self, benchmark: str) -> dict[tuple[str, int], Sample]:
        """All samples of a benchmark, by problem and number. A line that a kill cut short is taken off the file.

        Raises ValueError for a line that is whole but no sample, and for a sample that is there twice.
        """
        file = self._samples_file(benchmark)
        if not file.is_file():
            return {}
        drop_half_line(file)
        found: dict[tuple[str, int], Sample] = {}
        for number, line in enumerate(file.read_bytes().splitlines(), start=1):
            try:
                sample = Sample(**json.loads(line))
            except (ValueError, TypeError) as error:
                raise ValueError(f"{file}, line {number} is not a sample ({error}); remove the line") from None
            if (key := (sample.problem, sample.sample)) in found:
                raise ValueError(
                    f"{file}, line {number}: sample {sample.sample} of problem {sample.problem} is there twice, as "
                    "when two evaluations write to one folder at once; remove the line"
                )
            found[key] = sample
        return found

    def append(self, benchmark: str, samples: Iterable[Sample]) -> None:
        """Adds samples to the file of a benchmark; they are on disk when this returns."""
        with self._samples_file(benchmark).open("ab") as stream:
            stream.writelines(json.dumps(asdict(sample)).encode() + b"\n" for sample in samples)
            stream.flush()
            os.fsync(stream.fileno())

    def write_problems(self, benchmark: str, problems: Sequence[Problem]) -> None:
        """The problems with their answers, so that the folder can be graded again by itself."""
        rows = [{"id": problem.id, "problem": problem.problem, "answer": problem.answer} for problem in problems]
        self.write_rows(f"problems_{benchmark}.jsonl", rows)

    def problems(self, benchmark: str) -> list[Problem]:
        """What `write_problems` wrote. Raises FileNotFoundError where it did not."""
        file = self.path / f"problems_{benchmark}.jsonl"
        rows = [json.loads(line) for line in file.read_bytes().splitlines()]
        return [Problem(row["id"], row["problem"], "", row["answer"]) for row in rows]

    def write_rows(self, name: str, rows: Iterable[dict[str, Any]]) -> None:
        """A JSON Lines file, whole."""
        write_whole(self.path / name, "".join(json.dumps(row) + "\n" for row in rows))

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """A JSON file, whole."""
        write_whole(self.path / name, json.dumps(content, indent=1, allow_nan=False) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """A text file, whole."""
        write_whole(self.path / name, text)

    def _samples_file(self, benchmark: str) -> Path:
        return self.path / f"samples_{benchmark}.jsonl"


def drop_half_line(file: Path) -> None:
    """Takes a last line that a kill cut short off a file."""
    content = file.read_bytes()
    if content and not content.endswith(b"\n"):
        os.truncate(file, content.rfind(b"\n") + 1)


def write_whole(file: Path, text: str) -> None:
    """Writes a file so that it is there whole or not at all."""
    beside = file.with_name(file.name + ".new")
    beside.write_text(text, encoding="utf-8")
    beside.replace(file)


def differences(was: Any, now: Any, name: str = "") -> list[str]:
    """Every setting that differs, in words; what stands under `free` does not count."""
    if isinstance(was, dict) and isinstance(now, dict):
        keys = [key for key in sorted(was.keys() | now.keys()) if key != "free"]
        return [line for key in keys for line in differences(was.get(key), now.get(key), f"{name}.{key}".lstrip("."))]
    return [] if was == now else [f"{name} was {was!r} and is {now!r}"]
