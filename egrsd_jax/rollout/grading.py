"""From completions to grades: decode, extract the answer, grade it in the pool, each host its part."""

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from egrsd_jax.model.hosts import over_hosts
from egrsd_jax.verify.extract import AnswerFormat, Missing, extract_in, why_missing
from egrsd_jax.verify.grade import within
from egrsd_jax.verify.pool import GradingPool, Outcome, Verdict

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from egrsd_jax.rollout.requests import Completion

OUTCOMES = tuple(Outcome)


class Grade(NamedTuple):
    """A graded completion: its text, the answer extracted from it, the outcome and how it came about, why there is no
    answer where there is none, and the seconds that this host spent on it."""

    text: str
    answer: str | None
    outcome: Outcome
    reason: str
    missing: Missing | None = None
    seconds: float = 0.0

    @property
    def correct(self) -> bool:
        """Whether the answer is correct."""
        return self.outcome is Outcome.CORRECT

    @property
    def ungradable(self) -> str | None:
        """Why the answer could not be graded; None where it could."""
        return self.reason if self.outcome is Outcome.UNGRADABLE else None


def grade_texts(
    pool: GradingPool,
    texts: Sequence[str],
    stopped: Sequence[bool],
    answers: Sequence[str],
    tolerances: Sequence[float | None] | None = None,
    *,
    answer_format: AnswerFormat = "boxed",
) -> list[Grade]:
    """One grade per text, against its reference answer; every host grades a part of them.

    A text that was cut off, not `stopped`, has given no answer, whatever boxes it holds. A plain number is also correct
    within the tolerance of its reference, where that has one.
    """
    missing: list[Missing | None] = []
    extracted: list[str | None] = []
    seconds: list[float] = []
    for text, whole in zip(texts, stopped, strict=True):
        start = time.perf_counter()
        extracted.append(extract_in(answer_format, text) if whole else None)
        missing.append(why_missing(text, extracted[-1], stopped=whole))
        seconds.append(time.perf_counter() - start)
    verdicts = _verdicts(pool, list(zip(extracted, answers, strict=True)))
    if tolerances is not None:
        rows = zip(verdicts, extracted, answers, tolerances, strict=True)
        verdicts = [_with_tolerance(*row) for row in rows]
    return [
        Grade(
            text,
            answer,
            verdict.outcome,
            f"no answer: {why}" if why else verdict.reason,
            why,
            extraction + verdict.seconds,
        )
        for text, answer, why, verdict, extraction in zip(texts, extracted, missing, verdicts, seconds, strict=True)
    ]


def _with_tolerance(verdict: Verdict, prediction: str | None, answer: str, tolerance: float | None) -> Verdict:
    if tolerance is None or prediction is None or verdict.correct or not within(prediction, answer, tolerance):
        return verdict
    return replace(verdict, outcome=Outcome.CORRECT, reason=f"within the tolerance of {tolerance:g}")


def unanswered(missing: Iterable[Missing | None]) -> dict[str, int]:
    """How many completions have no answer, by why; most first."""
    return dict(Counter(str(why) for why in missing if why is not None).most_common())


class Grader:
    """Grades completions against reference answers with a tokenizer and a pool of worker processes. `answer_format`
    says where a completion has its answer."""

    def __init__(
        self, tokenizer: "PreTrainedTokenizerBase", pool: GradingPool, *, answer_format: AnswerFormat = "boxed"
    ):
        self._tokenizer, self._pool = tokenizer, pool
        self._format: AnswerFormat = answer_format

    def grade(self, completions: "Sequence[Completion]", answers: Sequence[str]) -> list[Grade]:
        """One grade per completion, of its text without special tokens; see `grade_texts`."""
        texts = [str(self._tokenizer.decode(completion.tokens, skip_special_tokens=True)) for completion in completions]
        stopped = [completion.stopped for completion in completions]
        return grade_texts(self._pool, texts, stopped, answers, answer_format=self._format)

    def in_first_words(self, groups: Sequence[Sequence[str | None]]) -> list[list[str | None]]:
        """The answers of each group, each in the words of the first answer of its group that it equals.

        An answer equals an earlier one if it is correct with that as the reference: 0.5 and 1/2 become one text, which
        can be counted. None stays None, and what cannot be graded equals its own text alone.
        """
        different = [list(dict.fromkeys(answer for answer in group if answer is not None)) for group in groups]
        pairs = [(later, first) for texts in different for first, later in combinations(texts, 2)]
        graded = zip(pairs, _verdicts(self._pool, pairs), strict=True)
        equal = {pair for pair, verdict in graded if verdict.correct}
        worded = []
        for texts, group in zip(different, groups, strict=True):
            first = {text: next(other for other in texts if other == text or (text, other) in equal) for text in texts}
            worded.append([None if answer is None else first[answer] for answer in group])
        return worded


def _verdicts(pool: GradingPool, pairs: Sequence[tuple[str | None, str]]) -> list[Verdict]:
    """How each (answer, reference) was graded; every host grades a part, and knows the reasons of that part alone."""
    verdicts: dict[int, Verdict] = {}

    def outcomes(rows: slice) -> np.ndarray:
        verdicts.update(enumerate(pool.grade_many(pairs[rows]), start=rows.start))
        return np.array([OUTCOMES.index(verdicts[row].outcome) for row in range(rows.start, rows.stop)], np.int32)

    codes = over_hosts(len(pairs), outcomes)
    return [
        verdicts.get(row) or Verdict(OUTCOMES[code], "it was graded on another host") for row, code in enumerate(codes)
    ]
