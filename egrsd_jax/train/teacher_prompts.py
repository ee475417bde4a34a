"""What the teacher reads of a step: the problems' prompts, or prompts that show it completions of the same step."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from egrsd_jax.data.prompts import encode_teacher
from egrsd_jax.objective.methods import METHODS
from egrsd_jax.objective.selection import others, shown_attempts
from egrsd_jax.objective.settings import contrasts, privilege, shows_completion
from egrsd_jax.rollout.grading import Grade
from egrsd_jax.train.rows import longest_with_completion
from egrsd_jax.train.setup import Prepared


class TeacherPrompts(NamedTuple):
    """Token ids for every completion of a step; both lists are empty without a teacher."""

    prompts: list[list[int]]
    contrasts: list[list[list[int]]]  # each with a wrong completion, at most `method.contrasts`
    count: np.ndarray  # bool: the teacher has all that the method shows it, so that the completion counts


def teacher_prompts(
    run: Prepared, rows: np.ndarray, grades: Sequence[Grade], correct: np.ndarray, length: np.ndarray
) -> TeacherPrompts:
    """The teacher's prompts for completions of the problems `rows`.

    They are those of the problems but for a teacher that reads other completions, which are known only now. Where there
    is none to read, or it is too long, the problem's own is kept, and the completion does not count.
    """
    config, count = run.config, np.ones(len(rows), bool)
    if not METHODS[config.method.name].teacher:
        return TeacherPrompts([], [], count)
    prompts = [run.problems.teacher_prompts[row] for row in rows]
    if shows_completion(config.method):
        for at, other in enumerate(_shown(run, correct, length)):
            prompt = None if other is None else _showing(run, rows[at], grades[other])
            count[at] = prompt is not None
            prompts[at] = prompt or prompts[at]
    most, with_wrong = contrasts(config.method), [[] for _ in rows]
    if most:
        answered = np.array([grade.missing is None and grade.ungradable is None for grade in grades])
        for at, wrong in enumerate(others(answered & ~correct, config.rollout.samples_per_problem)):
            fitting = (prompt for other in wrong if (prompt := _showing(run, rows[at], grades[other])) is not None)
            with_wrong[at] = [prompt for prompt, _ in zip(fitting, range(most), strict=False)]
            count[at] &= bool(with_wrong[at])
    return TeacherPrompts(prompts, with_wrong, count)


def _shown(run: Prepared, correct: np.ndarray, length: np.ndarray) -> list[int | None]:
    """Which completion the teacher reads for each of the step's, by `method.privilege`; None where there is none."""
    group = run.config.rollout.samples_per_problem
    if privilege(run.config.method) == "own":
        return [next(iter(candidates), None) for candidates in others(correct, group)]
    return [int(other) for other in shown_attempts(correct, length, group)]


def _showing(run: Prepared, row: int, shown: Grade) -> list[int] | None:
    """The teacher's prompt of a problem with a completion in the solution's place; None where it is too long."""
    problem = run.problems.problems[row]
    text = shown.text.strip() or problem.answer
    prompt = encode_teacher(run.tokenizer, run.config.prompt.templates(), replace(problem, solution=text))
    longest = longest_with_completion(run.config, len(run.problems.teacher_prompts[row]))
    return prompt if len(prompt) <= longest else None
