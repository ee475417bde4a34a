"""From texts to grades: what has no answer, why, and tolerances of references."""

import pytest

from egrsd_jax.rollout.grading import grade_texts, unanswered
from egrsd_jax.verify.pool import GradingPool


@pytest.fixture(scope="module")
def pool():
    with GradingPool(1) as pool:
        yield pool


def test_each_text_has_its_answer_or_why_there_is_none(pool):
    texts = [r"\boxed{7}", r"\boxed{7}", "7", "<think>7", "", r"\boxed{}", r"\boxed{8}"]
    grades = grade_texts(pool, texts, [True, False, *[True] * 5], ["7"] * 7)
    assert [grade.correct for grade in grades] == [True, *[False] * 6]
    assert [grade.missing for grade in grades] == [
        None,
        "cut off",
        "no box",
        "unfinished thought",
        "empty",
        "empty",
        None,
    ]
    assert [grade.reason for grade in grades][1:3] == ["no answer: cut off", "no answer: no box"]
    counts = unanswered(grade.missing for grade in grades)
    assert counts == {"empty": 2, "cut off": 1, "no box": 1, "unfinished thought": 1}
    assert next(iter(counts)) == "empty"


def test_a_number_within_the_tolerance_of_its_reference_is_correct(pool):
    texts = [r"\boxed{0.3}", r"\boxed{0.31}", r"\boxed{0.3}", "0.3", r"\boxed{0.29}"]
    grades = grade_texts(pool, texts, [True] * 5, ["0.29"] * 5, [0.01, 0.01, None, 0.01, 0.01])
    assert [grade.correct for grade in grades] == [True, False, False, False, True]
    assert grades[0].reason == "within the tolerance of 0.01"
