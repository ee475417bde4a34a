"""What the teacher is shown in each control arm."""

import dataclasses

import pytest

from egrsd_jax.data.privilege import teacher_problems, teacher_templates
from egrsd_jax.data.problems import Problem
from egrsd_jax.data.prompts import CONCISE_TEMPLATE, PromptTemplates

PROBLEMS = [Problem(str(n), f"problem {n}", f"solution {n}: 1{n}0", "0") for n in range(5)]


def test_a_wrong_reference_has_every_digit_changed_and_nothing_else():
    for problem, shown in zip(PROBLEMS, teacher_problems(PROBLEMS, "wrong", seed=0), strict=True):
        for before, after in zip(problem.solution, shown.solution, strict=True):
            assert (before != after) == before.isdigit()
        assert dataclasses.replace(shown, solution=problem.solution) == problem
    assert teacher_problems(PROBLEMS, "wrong", seed=0) == teacher_problems(PROBLEMS, "wrong", seed=0)
    assert teacher_problems(PROBLEMS, "wrong", seed=0) != teacher_problems(PROBLEMS, "wrong", seed=1)


def test_an_other_reference_is_never_the_problems_own():
    shown = teacher_problems(PROBLEMS, "other", seed=0)
    assert sorted(each.solution for each in shown) == sorted(each.solution for each in PROBLEMS)
    assert all(mine.solution != own.solution for mine, own in zip(shown, PROBLEMS, strict=True))
    assert [each.problem for each in shown] == [each.problem for each in PROBLEMS]


@pytest.mark.parametrize("privilege", ["reference", "none", "concise"])
def test_other_privileges_leave_the_solutions(privilege):
    assert teacher_problems(PROBLEMS, privilege, seed=0) == PROBLEMS


def test_the_answer_alone_takes_the_solutions_place():
    shown = teacher_problems(PROBLEMS, "answer", seed=0)
    assert [problem.solution for problem in shown] == [problem.answer for problem in PROBLEMS]
    assert [problem.problem for problem in shown] == [problem.problem for problem in PROBLEMS]


def test_templates_of_each_privilege():
    templates = PromptTemplates(student_thinking=False, teacher_thinking=True)
    assert teacher_templates(templates, "reference", CONCISE_TEMPLATE) is templates
    none = teacher_templates(templates, "none", CONCISE_TEMPLATE)
    assert (none.teacher, none.teacher_thinking) == (templates.student, False)
    concise = teacher_templates(templates, "concise", CONCISE_TEMPLATE)
    assert (concise.teacher, concise.student) == (CONCISE_TEMPLATE, templates.student)


def test_what_cannot_be_shown_is_an_error():
    with pytest.raises(ValueError, match="there is only one problem"):
        teacher_problems(PROBLEMS[:1], "other", seed=0)
    with pytest.raises(ValueError, match="the solution of problem x has none"):
        teacher_problems([Problem("x", "p", "no number", "0")], "wrong", seed=0)
    with pytest.raises(ValueError, match=r"placeholder \{solution\}"):
        PromptTemplates(teacher="{problem} {solution}", privileged=False)
