"""Which samples of one problem vote for the same answer: those that grade alike, in whatever order they come."""

from collections.abc import Sequence
from itertools import combinations

from egrsd_jax.verify.grade import bare, settle
from egrsd_jax.verify.normalise import measure_of, normalise

CORRECT = 0  # the group of every correct answer: all of them equal the reference


def votes(answers: Sequence[str | None], correct: Sequence[bool]) -> list[int | None]:
    """The group that each answer votes for; None where there is no answer.

    Correct answers are one group, `CORRECT`. Wrong ones are together where grading at once, without algebra, finds
    them equal in either direction: 0.5 and 1/2, but not 10 cm and 10 m. Groups are the connected parts of that relation
    and so do not depend on the order of samples; an answer is never in a group with one of another grade.
    """
    graded = list(zip(answers, correct, strict=True))
    wrong = sorted({answer for answer, good in graded if answer is not None and not good and _says(answer)})
    leader = {answer: answer for answer in wrong}

    def find(answer: str) -> str:
        while leader[answer] != answer:
            answer = leader[answer]
        return answer

    for one, other in combinations(wrong, 2):
        if find(one) != find(other) and _alike(one, other):
            leader[find(other)] = find(one)
    number = {answer: 1 + index for index, answer in enumerate(answer for answer in wrong if find(answer) == answer)}
    return [
        None if answer is None or not _says(answer) else CORRECT if good else number[find(answer)]
        for answer, good in graded
    ]


def _says(answer: str) -> bool:
    """Whether there is anything in an answer: one that normalises to nothing is none."""
    return normalise(answer) != ""


def _alike(one: str, other: str) -> bool:
    if normalise(bare(one)) == normalise(bare(other)) and measure_of(one) == measure_of(other):
        return True
    return settle(one, other) is True or settle(other, one) is True
