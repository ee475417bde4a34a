"""From sampled tokens to grades: decode, extract the answer, grade it in the pool."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from egrsd_jax.verify.extract import extract_answer
from egrsd_jax.verify.pool import GradingPool

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from egrsd_jax.rollout.engine import Completion


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
        verdicts = self._pool.grade_many(list(zip(found, answers, strict=True)))
        return [
            Grade(text, answer, verdict.correct, verdict.reason if verdict.ungradable else None)
            for text, answer, verdict in zip(texts, found, verdicts, strict=True)
        ]
