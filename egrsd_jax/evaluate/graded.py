"""From samples to grades to scores: what can be done again, with another grader, without sampling anything again."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from egrsd_jax.data.problems import Problem
from egrsd_jax.evaluate.samples import Sample
from egrsd_jax.evaluate.scores import Scores, majority_credit
from egrsd_jax.rollout.grading import grade_texts, unanswered
from egrsd_jax.verify.extract import AnswerFormat, Missing
from egrsd_jax.verify.pool import GradingPool, Outcome
from egrsd_jax.verify.votes import votes


@dataclass(frozen=True)
class GradedSample:
    """A sample's answer and its outcome: correct, wrong or ungradable, how it came about, and why there is no answer
    where there is none."""

    problem: str
    sample: int
    answer: str | None
    outcome: str
    reason: str
    missing: Missing | None = None


@dataclass(frozen=True)
class GradingCost:
    """Seconds that grading took per sample, extraction included and the start of worker processes too."""

    samples: int
    median: float
    p95: float
    largest: float


def grade_samples(
    samples: Sequence[Sample], problems: Sequence[Problem], pool: GradingPool, *, answer_format: AnswerFormat = "boxed"
) -> tuple[list[GradedSample], GradingCost]:
    """One grade per sample, in order; see `rollout.grading.grade_texts`."""
    problem_of = {problem.id: problem for problem in problems}
    asked = [problem_of[sample.problem] for sample in samples]
    grades = grade_texts(
        pool,
        [sample.text for sample in samples],
        [sample.stopped for sample in samples],
        [problem.answer for problem in asked],
        [problem.tolerance for problem in asked],
        answer_format=answer_format,
    )
    seconds = np.array([grade.seconds for grade in grades])
    graded = [
        GradedSample(sample.problem, sample.sample, grade.answer, str(grade.outcome), grade.reason, grade.missing)
        for sample, grade in zip(samples, grades, strict=True)
    ]
    return graded, GradingCost(len(graded), *(float(np.quantile(seconds, q)) for q in (0.5, 0.95, 1.0)))


def scores_of(
    benchmark: str,
    identity: str,
    problems: Sequence[Problem],
    samples: Sequence[Sample],
    graded: Sequence[GradedSample],
    max_new_tokens: int,
) -> Scores:
    """The scores of samples and their grades, which are in the same order: K of each problem."""
    rows: dict[str, list[int]] = defaultdict(list)
    for index, sample in enumerate(samples):
        rows[sample.problem].append(index)
    correct = [[int(graded[index].outcome == Outcome.CORRECT) for index in rows[problem.id]] for problem in problems]
    answers = [[graded[index].answer for index in rows[problem.id]] for problem in problems]
    return Scores(
        benchmark=benchmark,
        identity=identity,
        problems=[problem.id for problem in problems],
        correct=correct,
        tokens=[[samples[index].tokens for index in rows[problem.id]] for problem in problems],
        cut_off=float(np.mean([not sample.stopped for sample in samples])),
        ungradable=sum(grade.outcome == Outcome.UNGRADABLE for grade in graded),
        missing=unanswered(grade.missing for grade in graded),
        max_new_tokens=max_new_tokens,
        majority=[
            majority_credit(votes(texts, right := [bool(value) for value in row]), right)
            for texts, row in zip(answers, correct, strict=True)
        ],
    )
