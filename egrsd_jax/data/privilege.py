"""What the teacher's prompt contains besides the problem: the reference solution, the answer alone, or a control arm's
substitute."""

import random
from collections.abc import Sequence
from dataclasses import replace

from egrsd_jax.data.problems import Problem
from egrsd_jax.data.prompts import PromptTemplates


def teacher_templates(templates: PromptTemplates, privilege: str, concise: str) -> PromptTemplates:
    """The templates, with the teacher's changed to suit the `privilege`.

    `none` gives the teacher the student's prompt, token for token; `concise` the template of that name, in the
    student's thinking mode; the others, which differ in whose solution is shown, leave the templates as they are.
    """
    unprivileged = {"none": templates.student, "concise": concise}
    if privilege not in unprivileged:
        return templates
    return replace(
        templates,
        teacher=unprivileged[privilege],
        teacher_thinking=templates.student_thinking,
        privileged=False,
    )


def teacher_problems(problems: Sequence[Problem], privilege: str, *, seed: int) -> list[Problem]:
    """The problems with the solutions that the teacher's prompts contain, in the same order.

    `wrong` replaces every digit of a solution by another, random by `seed` and the problem's id; `other` gives each
    problem the next one's solution, and the last problem the first one's; `answer` has the final answer in its place.
    Raises ValueError for `other` with a single problem, for `wrong` where a solution has no digit, and for `attempt`
    and `own`, which are completions of a step.
    """
    if privilege == "answer":
        return [replace(problem, solution=problem.answer) for problem in problems]
    if privilege in ("attempt", "own"):
        raise ValueError(
            f"method.privilege {privilege} shows the teacher another completion of the same step, and here are no "
            "steps; it is for training"
        )
    if privilege == "other":
        if len(problems) < 2:
            raise ValueError("method.privilege other needs another problem's solution, and there is only one problem")
        following = [*problems[1:], problems[0]]
        return [replace(problem, solution=other.solution) for problem, other in zip(problems, following, strict=True)]
    if privilege == "wrong":
        return [replace(problem, solution=_with_wrong_digits(problem, seed)) for problem in problems]
    return list(problems)


def _with_wrong_digits(problem: Problem, seed: int) -> str:
    generator = random.Random(f"{seed} {problem.id}")
    if not any(character in "0123456789" for character in problem.solution):
        raise ValueError(f"method.privilege wrong changes digits, and the solution of problem {problem.id} has none")
    return "".join(
        str((int(character) + generator.randint(1, 9)) % 10) if character in "0123456789" else character
        for character in problem.solution
    )
