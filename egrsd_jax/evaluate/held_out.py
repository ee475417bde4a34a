"""Accuracy and length of a policy on problems it is not trained on, with standard errors over problems."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import jax
import numpy as np

from egrsd_jax.policy import Policy
from egrsd_jax.rollout.engine import sample_keys
from egrsd_jax.rollout.grading import Grader
from egrsd_jax.rollout.requests import Completion, Request, Sampler, Sampling, complete


@dataclass(frozen=True)
class Evaluation:
    """`correct` and `length` [problems][samples]: 1 where the answer is right, and tokens of the completion."""

    correct: list[list[int]]
    length: list[list[int]]
    cut_off: float  # share of completions that reached the cap
    ungradable: int  # completions whose answer could not be graded; they count as wrong and are named here

    @property
    def accuracy(self) -> float:
        """avg@K: mean over problems of the share of right completions."""
        return float(np.mean(self.correct))

    @property
    def mean_length(self) -> float:
        """Tokens of a completion, mean over all."""
        return float(np.mean(self.length))

    @property
    def accuracy_error(self) -> float:
        """Standard error of the accuracy over problems."""
        return standard_error(np.mean(self.correct, axis=1))

    @property
    def length_error(self) -> float:
        """Standard error of the mean length over problems."""
        return standard_error(np.mean(self.length, axis=1))

    def summary(self) -> dict[str, float]:
        """The figures for a log line."""
        return {
            "accuracy": self.accuracy,
            "accuracy_error": self.accuracy_error,
            "length": self.mean_length,
            "length_error": self.length_error,
            "cut_off": self.cut_off,
            "ungradable": self.ungradable,
        }

    def to_json(self) -> dict[str, Any]:
        """Figures first, then every sample."""
        return {"summary": self.summary(), **asdict(self)}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Evaluation":
        """What `to_json` gave."""
        return cls(**{name: content[name] for name in ("correct", "length", "cut_off", "ungradable")})


@dataclass(frozen=True)
class HeldOut:
    """Held-out problems, ready to be sampled: prompts, answers, and how to draw and grade."""

    prompts: Sequence[Sequence[int]]
    answers: Sequence[str]
    samples: int
    sampling: Sampling
    key: jax.Array

    def evaluate(self, policy: Policy, engine: Sampler, grader: Grader) -> Evaluation:
        """Draws `samples` completions a problem and grades them. Always with the same random keys: two policies are
        compared on the same problems and the same dice."""
        count = range(len(self.prompts))
        numbers = [number for number in count for _ in range(self.samples)]
        answers = [self.answers[number] for number in numbers]
        keys = sample_keys(self.key, numbers, np.tile(range(self.samples), len(count)))
        requests = [
            Request(self.prompts[number], self.sampling, key) for number, key in zip(numbers, keys, strict=True)
        ]
        engine.update_params(*policy)
        completions = complete(engine, requests)
        return self._graded(completions, grader, answers)

    def _graded(self, completions: list[Completion], grader: Grader, answers: Sequence[str]) -> Evaluation:
        graded = grader.grade(completions, answers)
        shape = len(self.prompts), self.samples
        return Evaluation(
            correct=np.reshape([grade.correct for grade in graded], shape).astype(int).tolist(),
            length=np.reshape([len(completion.tokens) for completion in completions], shape).tolist(),
            cut_off=float(np.mean([not completion.stopped for completion in completions])),
            ungradable=sum(grade.ungradable is not None for grade in graded),
        )


def standard_error(values: np.ndarray) -> float:
    """Standard error of the mean of independent values; infinite for fewer than two."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("inf")


def paired_difference(before: Evaluation, after: Evaluation) -> dict[str, float]:
    """Change of accuracy and length on the same problems, each with the standard error of the paired difference."""
    accuracy = np.mean(after.correct, axis=1) - np.mean(before.correct, axis=1)
    length = np.mean(after.length, axis=1) - np.mean(before.length, axis=1)
    return {
        "accuracy": float(accuracy.mean()),
        "accuracy_error": standard_error(accuracy),
        "length": float(length.mean()),
        "length_error": standard_error(length),
    }
