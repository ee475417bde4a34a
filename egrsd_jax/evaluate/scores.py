"""The held-out record: what was sampled and graded, as arrays that metrics, comparisons and reports are made from."""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np

from egrsd_jax.evaluate.intervals import error_over_problems

EARLIER_NAMES = {"right": "correct", "length": "tokens"}  # of fields in files that earlier versions wrote


@dataclass(frozen=True)
class Scores:
    """N problems with K samples each, in the order of `problems`, their ids.

    `correct` and `tokens` are [N][K]: 1 where the answer is correct, and the tokens of the completion. `majority` is
    the chance that the problem's most frequent answer is correct, ties broken at random; None where answers are not
    known. `missing` counts the samples without an answer by why (`verify.extract.Missing`), what was cut off among
    them; None in files of earlier versions. `identity` says which problems these are: two Scores of one identity and
    with the same ids can be paired.
    Raises ValueError for fewer than two problems.
    """

    benchmark: str
    identity: str
    problems: list[str]
    correct: list[list[int]]
    tokens: list[list[int]]
    cut_off: float  # share of samples that reached max_new_tokens
    ungradable: int  # samples whose answer could not be graded; they count as wrong and are named here
    max_new_tokens: int
    majority: list[float] | None = None
    missing: dict[str, int] | None = None

    def __post_init__(self):
        if len(self.correct) < 2:
            raise ValueError(f"{self.benchmark}: {len(self.correct)} problem has no standard error; give at least 2")

    @property
    def correct_NK(self) -> np.ndarray:
        """`correct` as an array of bools."""
        return np.array(self.correct, bool)

    @property
    def tokens_NK(self) -> np.ndarray:
        """`tokens` as an array of whole numbers."""
        return np.array(self.tokens, np.int64)

    @property
    def samples(self) -> int:
        """K."""
        return len(self.correct[0])

    @property
    def channels_NKC(self) -> np.ndarray:
        """Correct or wrong, and tokens, of every sample: what a bootstrap resamples together."""
        return np.stack([self.correct_NK, self.tokens_NK], axis=2).astype(np.float64)

    @property
    def accuracy(self) -> float:
        """avg@K: mean over problems of the share of correct samples."""
        return float(np.mean(self.correct))

    @property
    def accuracy_error(self) -> float:
        """Standard error of the accuracy over problems."""
        return error_over_problems(self.correct_NK)

    @property
    def no_answer(self) -> float | None:
        """Share of samples without an answer; None where it is not known."""
        return None if self.missing is None else sum(self.missing.values()) / np.size(self.correct)

    @property
    def ungradable_share(self) -> float:
        """Share of samples whose answer could not be graded."""
        return self.ungradable / np.size(self.correct)

    @property
    def mean_length(self) -> float:
        """Tokens of a sample, mean over all."""
        return float(np.mean(self.tokens))

    @property
    def length_error(self) -> float:
        """Standard error of the mean length over problems."""
        return error_over_problems(self.tokens_NK)

    def only(self, problems: Sequence[str]) -> "Scores":
        """The scores of some of its problems, in the order given. `cut_off`, `ungradable` and
        `missing` stay those of all."""
        row_of = {problem: index for index, problem in enumerate(self.problems)}
        rows = [row_of[problem] for problem in problems]
        return replace(
            self,
            problems=list(problems),
            correct=[self.correct[row] for row in rows],
            tokens=[self.tokens[row] for row in rows],
            majority=None if self.majority is None else [self.majority[row] for row in rows],
        )

    def summary(self) -> dict[str, float]:
        """The metrics for a log line."""
        return {
            "accuracy": self.accuracy,
            "accuracy_error": self.accuracy_error,
            "length": self.mean_length,
            "length_error": self.length_error,
            "cut_off": self.cut_off,
            "ungradable": self.ungradable,
            **({} if self.no_answer is None else {"no_answer": self.no_answer}),
        }

    def to_json(self) -> dict[str, Any]:
        """Metrics first, then every sample."""
        return {"summary": self.summary(), **asdict(self)}

    @classmethod
    def from_json(cls, content: dict[str, Any], **unnamed: Any) -> "Scores":
        """What `to_json` gave, or an earlier version's; `unnamed` fields are for files that do not have them.

        Raises ValueError, one line, for content that lacks a field.
        """
        content = unnamed | {EARLIER_NAMES.get(name, name): value for name, value in content.items()}
        known = {field.name: content[field.name] for field in fields(cls) if field.name in content}
        try:
            return cls(**known)
        except TypeError as error:
            raise ValueError(f"these are no scores of held-out problems: {error}") from None


def paired_difference(before: Scores, after: Scores) -> dict[str, float]:
    """Change of accuracy and length on the same problems, each with the standard error of the paired difference."""
    accuracy_N1 = (after.correct_NK.mean(axis=1) - before.correct_NK.mean(axis=1))[:, None]
    length_N1 = (after.tokens_NK.mean(axis=1) - before.tokens_NK.mean(axis=1))[:, None]
    return {
        "accuracy": float(accuracy_N1.mean()),
        "accuracy_error": error_over_problems(accuracy_N1),
        "length": float(length_N1.mean()),
        "length_error": error_over_problems(length_N1),
    }


def majority_credit(votes: Sequence[Hashable | None], correct: Sequence[bool]) -> float:
    """The chance that the most frequent of some answers is correct, where a tie is broken at random.

    `votes` are the answers' groups (`verify.votes`); None, no answer, does not vote. Without any vote it is 0. All
    answers of a group have one grade, so the result does not depend on the order of samples.
    """
    counts = Counter(vote for vote in votes if vote is not None)
    if not counts:
        return 0.0
    grade = dict(zip(votes, correct, strict=True))
    most = max(counts.values())
    first = [vote for vote, count in counts.items() if count == most]
    return sum(bool(grade[vote]) for vote in first) / len(first)
