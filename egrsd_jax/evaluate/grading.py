"""From sampled tokens to grades: decode, extract the answer, grade it in the pool, each host its part."""

from collections.abc import Sequence
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
        pairs = list(zip(found, answers, strict=True))
        reasons = ["it was graded on another host"] * len(pairs)

        def outcomes(rows: slice) -> np.ndarray:
            verdicts = self._pool.grade_many(pairs[rows])
            reasons[rows] = [verdict.reason for verdict in verdicts]
            return np.array([OUTCOMES.index(verdict.outcome) for verdict in verdicts], np.int32)

        codes = over_hosts(len(pairs), outcomes)
        return [
            Grade(
                text, answer, OUTCOMES[code] is Outcome.RIGHT, reason if OUTCOMES[code] is Outcome.UNGRADABLE else None
            )
            for text, answer, reason, code in zip(texts, found, reasons, codes, strict=True)
        ]
