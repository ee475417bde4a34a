"""What was drawn and graded on one benchmark, as arrays that figures and comparisons are made from."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Scores:
    """N problems with K samples each, in the order of `problems`, their ids.

    `right` and `tokens` are [N][K]: 1 where the answer is right, and the tokens of the completion. `majority` is the
    chance that the problem's most frequent answer is right, ties broken at random; None where answers are not known.
    `identity` says which problems these are: two Scores of one identity and with the same ids can be paired.
    """

    benchmark: str
    identity: str
    problems: list[str]
    right: list[list[int]]
    tokens: list[list[int]]
    cut_off: float  # share of samples that reached max_new_tokens
    ungradable: int
    max_new_tokens: int
    majority: list[float] | None = None

    def __post_init__(self):
        if len(self.right) < 2:
            raise ValueError(f"{self.benchmark}: {len(self.right)} problem has no standard error; give at least 2")

    @property
    def right_NK(self) -> np.ndarray:
        """`right` as an array of bools."""
        return np.array(self.right, bool)

    @property
    def tokens_NK(self) -> np.ndarray:
        """`tokens` as an array of whole numbers."""
        return np.array(self.tokens, np.int64)

    @property
    def samples(self) -> int:
        """K."""
        return len(self.right[0])

    @property
    def channels_NKC(self) -> np.ndarray:
        """Right or wrong, and tokens, of every sample: what a bootstrap draws together."""
        return np.stack([self.right_NK, self.tokens_NK], axis=2).astype(np.float64)

    def only(self, problems: Sequence[str]) -> "Scores":
        """The scores of some of its problems, in the order given. `cut_off` and `ungradable` stay those of all."""
        place = {problem: index for index, problem in enumerate(self.problems)}
        rows = [place[problem] for problem in problems]
        return replace(
            self,
            problems=list(problems),
            right=[self.right[row] for row in rows],
            tokens=[self.tokens[row] for row in rows],
            majority=None if self.majority is None else [self.majority[row] for row in rows],
        )

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Scores":
        """What `to_json` gave."""
        return cls(**content)


def majority_credit(answers: Sequence[str | None], right: Sequence[bool]) -> float:
    """The chance that the most frequent of some answers is right, where a tie is broken at random.

    Answers are equal where their texts are; None, no answer, does not vote. Without any answer it is 0. A right and a
    wrong grade of one text cannot both be (grading is a function of it), so each text has the grade of its first.
    """
    votes: dict[str, int] = {}
    grade: dict[str, bool] = {}
    for answer, is_right in zip(answers, right, strict=True):
        if answer is not None:
            votes[answer] = votes.get(answer, 0) + 1
            grade.setdefault(answer, bool(is_right))
    if not votes:
        return 0.0
    most = max(votes.values())
    first = [answer for answer, count in votes.items() if count == most]
    return sum(grade[answer] for answer in first) / len(first)
