"""An evaluation from its settings to its results: read, sample what is missing, grade, compute, write, show."""

import time
import zlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from egrsd_jax.data.problems import Problem
from egrsd_jax.data.prompts import PromptTemplates, encode_student
from egrsd_jax.data.tokenizer import check_token_ids
from egrsd_jax.evaluate.benchmarks import (
    PAPERS,
    LoadedBenchmark,
    Protocol,
    find_benchmark,
    load_benchmark,
    with_columns,
    with_overrides,
)
from egrsd_jax.evaluate.graded import GradedSample, GradingCost, grade_samples, scores_of
from egrsd_jax.evaluate.metrics import Macro, Metrics, macro, metrics
from egrsd_jax.evaluate.policies import LoadedPolicy, built_in_model, load_policy
from egrsd_jax.evaluate.samples import RESULTS, EvaluationFolder, Sample
from egrsd_jax.evaluate.scores import Scores
from egrsd_jax.evaluate.settings import DEFAULT_MAX_ROWS, OTHER_MAX_ROWS, Settings
from egrsd_jax.model.sharding import make_mesh
from egrsd_jax.rollout.engine import engine_for, sample_keys
from egrsd_jax.rollout.http.engine import HttpEngine
from egrsd_jax.rollout.http.server import ServerError
from egrsd_jax.rollout.requests import Completion, Request, Sampler, Sampling
from egrsd_jax.runs.folder import PACKAGES
from egrsd_jax.runs.progress import EvaluationProgress
from egrsd_jax.verify.pool import GradingPool

WRITE_EVERY = 0.5  # seconds: what a kill may cost


@dataclass(frozen=True)
class Task:
    """A benchmark to be sampled: its problems, how, and the prompts, one per problem."""

    loaded: LoadedBenchmark
    problems: list[Problem]
    protocol: Protocol
    prompts: list[list[int]]

    @property
    def wanted(self) -> list[tuple[int, int]]:
        """Every sample as the index of its problem and its number."""
        return [(index, sample) for index in range(len(self.problems)) for sample in range(self.protocol.samples)]


@dataclass(frozen=True)
class Result:
    """A benchmark's scores, metrics and grades, and what grading cost."""

    scores: Scores
    metrics: Metrics
    graded: list[GradedSample]
    cost: GradingCost


@dataclass(frozen=True)
class Evaluated:
    """A whole evaluation, as its folder holds it."""

    folder: EvaluationFolder
    regime: dict[str, Any]
    results: list[Result]
    macro: Macro | None  # of several benchmarks


def evaluate(settings: Settings) -> Evaluated:
    """Samples what is missing in the folder and grades all of it.

    Raises ValueError or OSError, one line that says how to fix it, before anything is written or sampled.
    """
    mesh = make_mesh(*settings.mesh)
    loaded = _read_benchmarks(settings)
    policy = load_policy(settings, mesh)
    tasks = [_task(settings, policy, benchmark) for benchmark in loaded]
    folder = EvaluationFolder(settings.to or default_folder(settings, policy))
    with folder.locked():
        folder.bind(_regime(settings, policy, tasks))
        with EvaluationProgress() as progress:
            for task in tasks:
                folder.write_problems(task.loaded.name, task.loaded.problems)
                with closing(_engine(settings, policy, task, mesh)) as engine:
                    _sample_missing(folder, task, policy, engine, settings.seed, progress)
        return _graded(folder, [task.loaded.name for task in tasks])


def regrade(path: Path, benchmarks: Sequence[str] = ()) -> Evaluated:
    """Grades the samples of an earlier evaluation again; needs neither its model nor its data."""
    folder = EvaluationFolder(path)
    if not (regime := folder.regime()):
        raise FileNotFoundError(f"{path} is not an evaluation's folder: it has no regime.json")
    if unknown := sorted(set(benchmarks) - set(regime["benchmarks"])):
        raise ValueError(f"{path} has no samples of {unknown[0]}; it has {', '.join(regime['benchmarks'])}")
    with folder.locked():
        return _graded(folder, list(benchmarks) or list(regime["benchmarks"]))


def default_folder(settings: Settings, policy: LoadedPolicy) -> Path:
    """Where results are kept by default: the same command finds them again."""
    return Path("runs") / f"evaluation-{_label(settings, policy).replace(' ', '-')}-seed{settings.seed}"


def _label(settings: Settings, policy: LoadedPolicy) -> str:
    """What was evaluated: the policy, and the prompt where it was given by name."""
    return policy.label if settings.prompt_name is None else f"{policy.label} prompt {settings.prompt_name}"


def _read_benchmarks(settings: Settings) -> list[LoadedBenchmark]:
    """Before the model: a mistake in a file is found at once."""
    own = built_in_model(settings)
    names = settings.benchmarks or (PAPERS if own is None else (own,))
    loaded = []
    for name in names:
        benchmark, file = find_benchmark(name, settings.files), settings.files.get(name)
        if file is not None:
            benchmark = with_columns(
                benchmark,
                problem=settings.problem_column,
                answer=settings.answer_column,
                solution=settings.solution_column,
                tolerance=settings.tolerance_column,
                split=settings.split,
                configuration=settings.configuration,
            )
        loaded.append(load_benchmark(benchmark, file=file, folder=settings.data))
    return loaded


def _task(settings: Settings, policy: LoadedPolicy, loaded: LoadedBenchmark) -> Task:
    protocol = with_overrides(
        loaded.benchmark.protocol,
        samples=settings.samples,
        temperature=settings.temperature,
        top_p=settings.top_p,
        top_k=settings.top_k,
        max_new_tokens=settings.max_new_tokens,
        thinking=settings.thinking,
        prompt=settings.template or (policy.prompt and policy.prompt.student),
    )
    problems = loaded.problems[: settings.problems]
    if settings.problems is not None and len(problems) < settings.problems:
        raise ValueError(f"--problems is {settings.problems}, and {loaded.name} has {len(problems)}")
    templates = PromptTemplates(student=protocol.prompt, student_thinking=protocol.thinking, **_turns(settings, policy))
    prompts = [encode_student(policy.tokenizer, templates, problem) for problem in problems]
    check_token_ids(policy.tokenizer, prompts, policy.model.vocab_size, f"a prompt of {loaded.name}")
    longest = max(map(len, prompts)) + protocol.max_new_tokens
    if longest > policy.model.max_positions:
        raise ValueError(
            f"{loaded.name}: the longest prompt and --max_new_tokens {protocol.max_new_tokens} take {longest} "
            f"positions, and the model has {policy.model.max_positions}"
        )
    served = policy.policy.positions if isinstance(policy.policy, HttpEngine) else None
    if served is not None and longest > served:
        raise ValueError(
            f"{loaded.name}: the longest prompt and --max_new_tokens {protocol.max_new_tokens} take {longest} "
            f"positions, and the server takes {served} (max_model_len); ask for fewer, or give it a longer context"
        )
    return Task(loaded, problems, protocol, prompts)


def _turns(settings: Settings, policy: LoadedPolicy) -> dict[str, Any]:
    """The turns before a problem's own, where there are any: the system's, and the examples of a run."""
    system, examples = (policy.prompt.system, policy.prompt.examples) if policy.prompt else ("", ())
    turns = {"system": system if settings.system is None else settings.system, "examples": examples}
    return {name: value for name, value in turns.items() if value}


def _regime(settings: Settings, policy: LoadedPolicy, tasks: Sequence[Task]) -> dict[str, Any]:
    """What the samples depend on, and under `free` what they do not: names, versions, how many there are to be."""
    benchmarks, turns = {}, _turns(settings, policy)
    answer_format = settings.answer_format or (policy.prompt.answer_format if policy.prompt else "boxed")
    for task in tasks:
        protocol = asdict(task.protocol)
        free = {"problems": len(task.problems), "samples": protocol.pop("samples")}
        benchmarks[task.loaded.name] = {"data": task.loaded.hash, **protocol, "free": free}
    return {
        "model": policy.hash,
        "dtype": policy.dtype,
        **({} if settings.weights_dtype is None else {"weights_dtype": settings.weights_dtype}),
        "seed": settings.seed,
        **{name: [*map(list, value)] if name == "examples" else value for name, value in turns.items()},
        **({} if answer_format == "boxed" else {"answer_format": answer_format}),
        "free": {
            "label": _label(settings, policy),
            "base": policy.base,
            "server": settings.server,
            "versions": {name: _version(name) for name in PACKAGES},
        },
        "benchmarks": benchmarks,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _engine(settings: Settings, policy: LoadedPolicy, task: Task, mesh: Mesh) -> Sampler:
    """What a benchmark is sampled with: the server, or an engine here as large as its prompts and completions."""
    if isinstance(policy.policy, HttpEngine):
        return policy.policy
    return engine_for(
        policy.model,
        mesh,
        policy.stop_ids,
        task.prompts,
        max_rows=settings.max_rows or DEFAULT_MAX_ROWS.get(task.loaded.name, OTHER_MAX_ROWS),
        max_new_tokens=task.protocol.max_new_tokens,
        policy=policy.policy,
        tokenizer=policy.tokenizer,
        weights_dtype=settings.weights_dtype,
    )


def _sample_missing(
    folder: EvaluationFolder, task: Task, policy: LoadedPolicy, engine: Sampler, seed: int, progress: EvaluationProgress
) -> None:
    """Samples every completion of a benchmark that its file does not have, and adds them to it as they end."""
    name = task.loaded.name
    notes: list[str] = []
    have = folder.samples(name, notes).keys()
    for note in notes:
        progress.warn(note)
    missing = [place for place in task.wanted if (task.problems[place[0]].id, place[1]) not in have]
    progress.start(name, done=len(task.wanted) - len(missing), total=len(task.wanted))
    requests = _requests(task, missing, seed) if missing else []
    ended: list[Sample] = []
    written = time.monotonic()
    try:
        for number, completion in engine.generate(requests):
            ended.append(_sample(task, policy, missing[number], completion, seed))
            progress.advance(1, ended[-1].tokens)
            if time.monotonic() - written > WRITE_EVERY:
                unwritten, ended, written = ended, [], time.monotonic()
                folder.append(name, unwritten)  # which, where it fails, has added nothing and is not tried again
    except ServerError as error:
        raise ServerError(f"{error}; the samples that ended are kept, and the same command resumes from them") from None
    finally:
        folder.append(name, ended)


def _requests(task: Task, places: Sequence[tuple[int, int]], seed: int) -> list[Request]:
    sampling = Sampling.of(task.protocol)
    keys = benchmark_keys(seed, task.loaded.name, [(task.problems[index].id, sample) for index, sample in places])
    return [Request(task.prompts[index], sampling, key) for (index, _), key in zip(places, keys, strict=True)]


def _sample(task: Task, policy: LoadedPolicy, place: tuple[int, int], completion: Completion, seed: int) -> Sample:
    index, number = place
    text = completion.text
    if text is None:
        text = str(policy.tokenizer.decode(completion.tokens, skip_special_tokens=True))
    return Sample(
        problem=task.problems[index].id,
        sample=number,
        seed=seed,
        tokens=len(completion.tokens),
        stopped=completion.stopped,
        seconds=round(completion.seconds, 6),
        text=text,
    )


def benchmark_keys(seed: int, benchmark: str, places: Sequence[tuple[str, int]]) -> np.ndarray:
    """Raw data of one key a sample, from the seed, the benchmark, the problem and the sample's number: nothing else
    matters, so that more problems, more samples, or an interruption change no sample."""
    names = [zlib.crc32(f"{benchmark}\n{problem}".encode()) for problem, _ in places]
    return sample_keys(jax.random.key(seed), names, [number for _, number in places])


def _graded(folder: EvaluationFolder, benchmarks: Sequence[str]) -> Evaluated:
    """Grades and results of a folder whose samples are all there."""
    regime = folder.regime()
    with GradingPool() as pool:
        results = [_result(folder, regime, name, pool) for name in benchmarks]
    together = macro([result.scores for result in results]) if len(results) > 1 else None
    evaluated = Evaluated(folder, regime, results, together)
    folder.write_json(RESULTS, results_json(evaluated))
    return evaluated


def _result(folder: EvaluationFolder, whole: dict[str, Any], name: str, pool: GradingPool) -> Result:
    regime = whole["benchmarks"][name]
    problems = folder.problems(name)[: regime["free"]["problems"]]
    stored = folder.samples(name)
    wanted = [(problem.id, sample) for problem in problems for sample in range(regime["free"]["samples"])]
    if missing := [place for place in wanted if place not in stored]:
        raise ValueError(
            f"{folder.path} has {len(wanted) - len(missing)} of {len(wanted)} samples of {name}; the command that "
            "sampled them samples the others when it is started again"
        )
    samples = [stored[place] for place in wanted]
    graded, cost = grade_samples(samples, problems, pool, answer_format=whole.get("answer_format", "boxed"))
    folder.write_rows(f"grades_{name}.jsonl", map(asdict, graded))
    scores = scores_of(name, regime["data"], problems, samples, graded, regime["max_new_tokens"])
    return Result(scores, metrics(scores), graded, cost)


def results_json(evaluated: Evaluated) -> dict[str, Any]:
    """What results.json holds; the same samples and grades give the same content."""
    return {
        "regime": evaluated.regime,
        "macro": None if evaluated.macro is None else asdict(evaluated.macro),
        "benchmarks": {
            result.scores.benchmark: {
                "metrics": asdict(result.metrics),
                "ungradable": [asdict(grade) for grade in result.graded if grade.outcome == "ungradable"],
                "scores": result.scores.to_json(),
            }
            for result in evaluated.results
        },
    }
