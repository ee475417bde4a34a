"""The built-in tasks by name: their problems, and of those with a built-in model what it is warmed up on."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from egrsd_jax.data.problems import Problem
from egrsd_jax.data.tasks.arithmetic import WORDS as ARITHMETIC_WORDS
from egrsd_jax.data.tasks.arithmetic import arithmetic_problems, worked_completion
from egrsd_jax.data.tasks.orders import WORDS as ORDERS_WORDS
from egrsd_jax.data.tasks.orders import orders_problems, planned_completion
from egrsd_jax.data.tasks.words import word_problems

BUILT_IN_SEED = 0  # a built-in task's problems are the same in every run; a run's seed orders them


class Problems(Protocol):
    """A source of problems."""

    def __call__(self, count: int, *, seed: int, held_out: bool) -> list[Problem]:
        """`count` problems from `seed`, of those that are held out or of the others."""
        ...


@dataclass(frozen=True)
class BuiltInTask:
    """A task that needs no files.

    Attributes:
        problems: as `Problems`.
        max_new_tokens: at least the length of its longest completion, or of its references in SmolLM2's tokens.
    """

    problems: Problems
    max_new_tokens: int


@dataclass(frozen=True)
class ModelledTask(BuiltInTask):
    """A task with a built-in model.

    Attributes:
        completion: the text of a correct completion, from (problem, random source, probability of re-checking a step,
            whether the reference solution is in the prompt).
        words: the tokenizer's vocabulary, its special tokens apart.
        rechecks: probability that a completion of the warm-up re-checks a step: plain prompt, privileged prompt.
    """

    completion: Callable[[Problem, random.Random, float, bool], str]
    words: tuple[str, ...]
    rechecks: tuple[float, float]


def _worked(problem: Problem, source: random.Random, recheck: float, privileged: bool) -> str:
    del privileged  # its derivation has one order, with a reference or without
    return worked_completion(problem, source, recheck=recheck)


def _planned(problem: Problem, source: random.Random, recheck: float, privileged: bool) -> str:
    return planned_completion(problem, source, recheck=recheck, privileged=privileged)


MODELLED_TASKS = {
    "arithmetic": ModelledTask(arithmetic_problems, 112, _worked, ARITHMETIC_WORDS, (0.6, 0.15)),
    # As often with the reference as without, so that the teacher itself does not prefer shorter completions.
    "orders": ModelledTask(orders_problems, 48, _planned, ORDERS_WORDS, (0.5, 0.5)),
}
# For a pretrained model. Those that end in `-rechecked` are the same problems, and their references check some steps.
WORD_TASKS = {
    f"{name}{suffix}": BuiltInTask(partial(word_problems, difficulty=difficulty, rechecked=bool(suffix)), length)
    for suffix in ("", "-rechecked")
    for name, difficulty, length in (("words", "medium", 144), ("words-easy", "easy", 96), ("words-hard", "hard", 144))
}
BUILT_IN_TASKS: dict[str, BuiltInTask] = {**MODELLED_TASKS, **WORD_TASKS}
