"""The benchmarks by name: where each is read from, how many problems it has, and how it is sampled.

Imports no jax.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from egrsd_jax.data.problems import DataError, Problem, load_problems
from egrsd_jax.data.prompts import PROBLEM_ALONE, STUDENT_TEMPLATE
from egrsd_jax.data.tasks.registry import BUILT_IN_SEED, BUILT_IN_TASKS, WORD_TASKS
from egrsd_jax.verify.extract import extract_answer
from egrsd_jax.verify.grade import settle

BUILT_IN_PROBLEMS = 512  # the held-out problems of every training run


@dataclass(frozen=True)
class Protocol:
    """How a benchmark is asked: the paper's settings (arXiv 2605.13255, section 5) by default.

    `samples` K of each problem, at most `max_new_tokens` tokens each; `prompt` is the student's template.
    """

    samples: int = 4
    temperature: float = 1.0
    top_p: float = 0.95
    top_k: int = 0
    max_new_tokens: int = 32_768
    thinking: bool = True
    prompt: str = STUDENT_TEMPLATE


class Columns(NamedTuple):
    """Columns of problem, answer, solution (where the answer is in it) and tolerance (where numbers have one)."""

    problem: str = "problem"
    answer: str | None = "answer"
    solution: str | None = None
    tolerance: str | None = None


@dataclass(frozen=True)
class Benchmark:
    """A set of problems under a name.

    `hub`, `configuration` and `split` name it on the Hugging Face hub; `folder` is what it is called among files. One
    of `columns` fits: the hub's columns, and those of the set's first release. `rows` is how many problems it has, and
    None where that is not known beforehand; `releases` are the sizes of other releases of it.
    """

    name: str
    hub: str | None
    rows: int | None
    split: str = "test"
    configuration: str | None = None
    folder: str = ""
    columns: tuple[Columns, ...] = (Columns(),)
    releases: tuple[int, ...] = ()
    protocol: Protocol = Protocol()


BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark("aime24", "HuggingFaceH4/aime_2024", 30, split="train", folder="aime24"),
        Benchmark("aime25", "yentinglin/aime_2025", 30, split="train", folder="aime25"),
        Benchmark("aime26", "MathArena/aime_2026", 30, split="train", folder="aime26"),
        Benchmark("hmmt_nov25", "MathArena/hmmt_nov_2025", 30, split="train", folder="hmmt_nov_2025"),
        Benchmark("amc23", "math-ai/amc23", 40, folder="amc23", columns=(Columns("question"), Columns())),
        Benchmark(
            "olympiadbench",
            "Hothan/OlympiadBench",
            674,
            split="train",
            configuration="OE_TO_maths_en_COMP",
            folder="olympiadbench",
            columns=(Columns("question", "final_answer", tolerance="error"),),
            releases=(675,),
        ),
        Benchmark("hmmt25", "MathArena/hmmt_feb_2025", 30, split="train", folder="hmmt_feb_2025"),
        Benchmark("math500", "HuggingFaceH4/MATH-500", 500, folder="math500"),
        Benchmark(
            "minerva",
            "math-ai/minervamath",
            272,
            folder="minerva_math",
            columns=(Columns("question"), Columns("problem", None, "solution")),
        ),
        Benchmark("gsm8k", "openai/gsm8k", 1319, configuration="main", folder="gsm8k", columns=(Columns("question"),)),
        *(
            Benchmark(
                name,
                None,
                BUILT_IN_PROBLEMS,
                protocol=Protocol(top_p=1.0, max_new_tokens=max_new_tokens, prompt=PROBLEM_ALONE),
            )
            for name, max_new_tokens in (("arithmetic", 96), ("orders", 48))
        ),
        *(
            Benchmark(name, None, BUILT_IN_PROBLEMS, protocol=Protocol(top_p=1.0, max_new_tokens=task.max_new_tokens))
            for name, task in WORD_TASKS.items()
            if not name.endswith("-rechecked")  # the same problems
        ),
    )
}
PAPERS = ("aime24", "aime25", "hmmt25", "math500", "minerva", "gsm8k")


@dataclass(frozen=True)
class LoadedBenchmark:
    """A benchmark's problems, all of them, and a hash of their ids, texts and answers."""

    benchmark: Benchmark
    problems: list[Problem]
    hash: str

    @property
    def name(self) -> str:
        """The benchmark's name."""
        return self.benchmark.name


def find_benchmark(name: str, files: dict[str, Path]) -> Benchmark:
    """The benchmark of a name; a name of the user's own, with its file, has the columns problem and answer.

    Raises ValueError for a name that is neither known nor given a file.
    """
    if name in BENCHMARKS:
        return BENCHMARKS[name]
    if name in files:
        return Benchmark(name, None, None)
    raise ValueError(f"there is no benchmark {name!r}; known are {', '.join(BENCHMARKS)}, and any name given a file")


def with_columns(
    benchmark: Benchmark,
    *,
    problem: str | None,
    answer: str | None,
    solution: str | None,
    tolerance: str | None,
    split: str | None,
    configuration: str | None,
) -> Benchmark:
    """The benchmark of a file whose columns, split or configuration are not its own. Columns that are not given have
    their usual names; where the solution's alone is named, the answer is in it."""
    if problem or answer or solution or tolerance:
        answer = answer or (None if solution else "answer")
        benchmark = replace(benchmark, columns=(Columns(problem or "problem", answer, solution, tolerance),))
    return replace(benchmark, split=split or benchmark.split, configuration=configuration or benchmark.configuration)


def load_benchmark(benchmark: Benchmark, *, file: Path | None = None, folder: Path | None = None) -> LoadedBenchmark:
    """All problems of a benchmark, from `file`, from its place in `folder`, or from the hub.

    Raises ValueError: data that cannot be read, another number of problems than the benchmark has, a reference answer
    that would not be graded correct itself.
    """
    if benchmark.name in BUILT_IN_TASKS and file is None:
        problems = built_in_problems(benchmark.name)
    else:
        source = _source(benchmark, file, folder)
        problems = _read(benchmark, source)
        _check_rows(benchmark, source, len(problems))
    _check_answers(benchmark.name, problems)
    return LoadedBenchmark(benchmark, problems, problems_hash(problems))


def built_in_problems(task: str, count: int = BUILT_IN_PROBLEMS) -> list[Problem]:
    """The first `count` held-out problems of a built-in task: the same for every run, evaluation and sample."""
    return BUILT_IN_TASKS[task].problems(count, seed=BUILT_IN_SEED, held_out=True)


def problems_hash(problems: Sequence[Problem]) -> str:
    """SHA-256 of the ids, texts, answers and, where there are any, tolerances and system's turns of problems, in their
    order."""
    rows = [
        (
            *(problem.id, problem.problem, problem.answer),
            *([] if problem.tolerance is None else [problem.tolerance]),
            *([problem.system] if problem.system else []),
        )
        for problem in problems
    ]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def with_overrides(protocol: Protocol, **given: object) -> Protocol:
    """The protocol with every field that is given, not None, in place of its own."""
    return replace(protocol, **{name: value for name, value in given.items() if value is not None})


def _source(benchmark: Benchmark, file: Path | None, folder: Path | None) -> str:
    if file is not None:
        return str(file)
    if folder is not None:
        places = [folder / benchmark.folder / "test.jsonl", folder / f"{benchmark.name}.jsonl"]
        if files := [place for place in places if place.is_file()]:
            return str(files[0])
        raise FileNotFoundError(f"{benchmark.name} is not in {folder}: there is neither {places[0]} nor {places[1]}")
    assert benchmark.hub is not None, "find_benchmark gives a file to every benchmark that is not on the hub"
    return benchmark.hub


def _read(benchmark: Benchmark, source: str) -> list[Problem]:
    """The problems by the first of the benchmark's column names that fits."""
    refusals = []
    for columns in benchmark.columns:
        try:
            loaded = load_problems(
                source,
                problem=columns.problem,
                answer=columns.answer,
                solution=columns.solution,
                tolerance=columns.tolerance,
                several=True,
                split=benchmark.split,
                name=benchmark.configuration,
            )
        except DataError as refusal:
            refusals.append(refusal)
        else:
            return loaded.problems
    raise refusals[0]


def _check_rows(benchmark: Benchmark, source: str, rows: int) -> None:
    if benchmark.rows is not None and rows not in (benchmark.rows, *benchmark.releases):
        raise ValueError(
            f"{benchmark.name} has {benchmark.rows} problems, and {source} has {rows}; results on another set are not "
            "comparable (--problems N takes the first N of the whole set, and --file MYNAME=FILE a set of any size)"
        )


def _check_answers(name: str, problems: Sequence[Problem]) -> None:
    """Raises ValueError for a reference answer that, in a box, is not extracted, or not graded correct."""
    for problem in problems:
        extracted = extract_answer(rf"\boxed{{{problem.answer}}}")
        if extracted is None or settle(extracted, problem.answer) is not True:
            raise ValueError(
                f"{name}, problem {problem.id}: the reference answer {problem.answer!r} is not graded correct "
                "against itself, so no completion could be; mend it in the data"
            )
