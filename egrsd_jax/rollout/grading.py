"""From sampled tokens to grades: decode, extract the answer, grade it in the pool, each host its part."""

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from egrsd_jax.model.hosts import over_hosts
from egrsd_jax.verify.extract import extract_answer
from egrsd_jax.verify.pool import GradingPool, Outcome

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from egrsd_jax.rollout.requests import Completion

OUTCOMES = tuple(Outcome)


class Grade(NamedTuple):
    """A graded completion: its text, the answer found in it, and why it could not be graded, where it could not."""

    text: str
    answer: str | None
    correct: bool
    ungradable: str | None


class Grader:
    """Grades completions against reference answers with a tokenizer and a pool of worker processes."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", pool: GradingPool):
        self._tokenizer, self._pool = tokenizer, pool

    def grade(self, completions: "Sequence[Completion]", answers: Sequence[str]) -> list[Grade]:
        """One grade a completion. A completion that was cut off has given no answer, whatever boxes it holds."""
        texts = [str(self._tokenizer.decode(each.tokens, skip_special_tokens=True)) for each in completions]
        found = [
            extract_answer(text) if completion.stopped else None
            for text, completion in zip(texts, completions, strict=True)
        ]
        graded = self._outcomes(list(zip(found, answers, strict=True)))
        return [
            Grade(text, answer, outcome is Outcome.CORRECT, reason if outcome is Outcome.UNGRADABLE else None)
            for text, answer, (outcome, reason) in zip(texts, found, graded, strict=True)
        ]

    def in_first_words(self, groups: Sequence[Sequence[str | None]]) -> list[list[str | None]]:
        """The answers of each group, each in the words of the first answer of its group that it equals.

        An answer equals an earlier one if it is right with that as the reference: 0.5 and 1/2 become one text, which
        can be counted. None stays None, and what cannot be graded equals its own text alone.
        """
        different = [list(dict.fromkeys(answer for answer in group if answer is not None)) for group in groups]
        pairs = [(later, first) for texts in different for first, later in combinations(texts, 2)]
        graded = zip(pairs, self._outcomes(pairs), strict=True)
        equal = {pair for pair, (outcome, _) in graded if outcome is Outcome.CORRECT}
        worded = []
        for texts, group in zip(different, groups, strict=True):
            first = {text: next(each for each in texts if each == text or (text, each) in equal) for text in texts}
            worded.append([None if answer is None else first[answer] for answer in group])
        return worded

    def _outcomes(self, pairs: Sequence[tuple[str | None, str]]) -> list[tuple[Outcome, str]]:
        """How each (answer, reference) was graded, and why; every host grades a part."""
        reasons = ["it was graded on another host"] * len(pairs)

        def outcomes(rows: slice) -> np.ndarray:
            verdicts = self._pool.grade_many(pairs[rows])
            reasons[rows] = [verdict.reason for verdict in verdicts]
            return np.array([OUTCOMES.index(verdict.outcome) for verdict in verdicts], np.int32)

        return [
            (OUTCOMES[code], reason) for code, reason in zip(over_hosts(len(pairs), outcomes), reasons, strict=True)
        ]
