"""Held-out problems that a run is evaluated on, before, on the way and after; and its evaluations, read again."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from egrsd_jax.config import EvaluationSettings
from egrsd_jax.data.tasks.registry import BUILT_IN_TASKS
from egrsd_jax.evaluate.benchmarks import built_in_problems, problems_hash
from egrsd_jax.evaluate.scores import Scores
from egrsd_jax.policy import Policy
from egrsd_jax.rollout.engine import sample_keys
from egrsd_jax.rollout.grading import Grade, Grader, unanswered
from egrsd_jax.rollout.requests import Completion, OnCompletion, Request, Sampler, Sampling, complete
from egrsd_jax.runs.files import read_json
from egrsd_jax.runs.layout import evaluation_files


class ProblemSet(NamedTuple):
    """Which problems these are, as `Scores` has it: a name, what identifies the set, and the problems' ids."""

    benchmark: str
    identity: str
    problems: list[str]


@dataclass(frozen=True)
class HeldOut:
    """Held-out problems, ready to be sampled: prompts, answers, and how to sample.

    `of` names them; its ids are in the order of `prompts`. Raises ValueError for fewer than two.
    """

    of: ProblemSet
    prompts: Sequence[Sequence[int]]
    answers: Sequence[str]
    samples: int
    sampling: Sampling
    key: jax.Array

    def __post_init__(self):
        if len(self.prompts) < 2:
            raise ValueError(f"{self.of.benchmark} has {len(self.prompts)} held-out problem; accuracy needs at least 2")

    def evaluate(
        self, policy: Policy, engine: Sampler, grader: Grader, *, on_completion: OnCompletion | None = None
    ) -> Scores:
        """Samples `samples` completions of each problem and grades them. Always with the same random keys: two policies
        are compared on the same problems and the same random numbers."""
        return self.scores(*self.sample(policy, engine, grader, on_completion=on_completion))

    def sample(
        self, policy: Policy, engine: Sampler, grader: Grader, *, on_completion: OnCompletion | None = None
    ) -> tuple[list[Completion], list[Grade]]:
        """The completions of `evaluate` and their grades, all of the first problem's before the second's."""
        count = len(self.prompts)
        rows = [row for row in range(count) for _ in range(self.samples)]
        keys = sample_keys(self.key, rows, np.tile(range(self.samples), count))
        requests = [Request(self.prompts[row], self.sampling, key) for row, key in zip(rows, keys, strict=True)]
        engine.update_params(*policy)
        completions = complete(engine, requests, on_completion=on_completion)
        return completions, grader.grade(completions, [self.answers[row] for row in rows])

    def scores(self, completions: Sequence[Completion], grades: Sequence[Grade]) -> Scores:
        """The held-out record of what `sample` gave."""
        shape = len(self.prompts), self.samples
        return Scores(
            *self.of,
            correct=np.reshape([grade.correct for grade in grades], shape).astype(int).tolist(),
            tokens=np.reshape([len(completion.tokens) for completion in completions], shape).tolist(),
            cut_off=float(np.mean([not completion.stopped for completion in completions])),
            ungradable=sum(grade.ungradable is not None for grade in grades),
            missing=unanswered(grade.missing for grade in grades),
            max_new_tokens=self.sampling.max_new_tokens,
        )

    def read(self, content: dict[str, Any]) -> Scores:
        """An evaluation of these problems from its JSON, of an earlier version's too."""
        return Scores.from_json(content, **self.of._asdict(), max_new_tokens=self.sampling.max_new_tokens)


def read_evaluations(run: Path, settings: EvaluationSettings) -> dict[int, Scores]:
    """The evaluations that a run with these settings made on its way, by step, in order."""
    evaluations = {}
    for step, file in evaluation_files(run).items():
        content = read_json(file)
        of = problem_set(settings, len(content.get("correct", ())))
        evaluations[step] = Scores.from_json(content, **of._asdict(), max_new_tokens=settings.max_new_tokens)
    return evaluations


def problem_set(settings: EvaluationSettings, count: int) -> ProblemSet:
    """The first `count` held-out problems of a run by name. A built-in task's are those of its benchmark, so that a run
    and an evaluation can be paired; others are identified by where they are read from and numbered."""
    path = str(settings.path)
    if path in BUILT_IN_TASKS:
        return built_in_set(path, count)
    identity = " ".join(filter(None, (path, settings.name, settings.split)))
    return ProblemSet(Path(path).stem, identity, [str(number) for number in range(count)])


def built_in_set(task: str, count: int) -> ProblemSet:
    """The first `count` held-out problems of a built-in task by name."""
    return ProblemSet(task, _built_in_hash(task), [problem.id for problem in built_in_problems(task, count)])


@functools.cache
def _built_in_hash(task: str) -> str:
    return problems_hash(built_in_problems(task))
