"""The built-in task `orders`, which has forks: labelled numbers, summed modulo 10 in the order the completion plans.

A problem is `5 d 7 a 8 c 3 b 2 g`. A completion names an order first (`plan a g d b c`: each label but the last
has several correct continuations), then adds in that order (`a 7 = 7`, the number and the running sum: one correct
continuation), and after a step may re-check it in one of several words (`hmm still 7`), which costs three tokens and
changes nothing. Half of the references are whole derivations, the others the answer alone.
Imports no jax.
"""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from egrsd_jax.data.problems import Problem
from egrsd_jax.data.tasks.arithmetic import first_problems

TERMS = 5  # numbers in a problem
LABELS = "abcdefgh"
RECHECKS = ("wait", "hmm", "check", "verify", "again", "recall", "look", "really")
WHOLE_REFERENCES = 0.5  # share of references that are derivations
WORDS = (
    *"0123456789",
    *LABELS,
    "plan",
    ";",
    "=",
    *RECHECKS,
    "still",
    "\\boxed{",
    "}",
    "user",
    "assistant",
    "reference",
)

Kind = Literal["fork", "pivot", "lock"]

_STEP = re.compile(rf"([{LABELS}]) (\d) = (\d)((?: (?:{'|'.join(RECHECKS)}) still \d)*)")
_DERIVATION = re.compile(rf"<think> plan ((?:[{LABELS}] )+); ((?:{_STEP.pattern} ?)+)</think> \\boxed{{ ?(\d) ?}}")


@dataclass(frozen=True)
class Derivation:
    """A derivation that is correct from plan to answer: the order of its labels, and the number of its re-checks."""

    order: str
    rechecks: int


def orders_problems(count: int, *, seed: int, held_out: bool) -> list[Problem]:
    """`count` distinct problems from `seed`; held-out and training problems are disjoint, whatever the seed."""
    return first_problems(_stream(random.Random(seed)), count, held_out=held_out)


def planned_completion(problem: Problem, source: random.Random, *, recheck: float, privileged: bool) -> str:
    """A correct completion in a random order, or in the reference's where it is `privileged` and the reference has one,
    that re-checks each step with probability `recheck`: what the warm-up teaches."""
    whole = privileged and problem.solution.startswith("plan")
    order = problem.solution.split(" ; ")[0].split()[1:] if whole else _shuffled(list(_numbers(problem)), source)
    steps = []
    for step in _steps(order, _numbers(problem)):
        rechecked = f" {source.choice(RECHECKS)} still {step[-1]}" if source.random() < recheck else ""
        steps.append(step + rechecked)
    return f"<think> plan {' '.join(order)} ; {' '.join(steps)} </think> \\boxed{{{problem.answer}}}<|im_end|>"


def derivation(problem: Problem, text: str) -> Derivation | None:
    """A completion's derivation, or None where anything in it is wrong: the plan no permutation of the labels, the
    steps in another order, a number, a running sum, a re-check's digit, or the answer."""
    spaced = " ".join(re.findall(r"\\boxed\{|<think>|</think>|\d|[a-z]+|[^\s\w]", text))
    if (match := _DERIVATION.fullmatch(spaced)) is None:
        return None
    numbers, order = _numbers(problem), match[1].split()
    if sorted(order) != sorted(numbers) or match[match.re.groups] != problem.answer:
        return None
    steps = list(_STEP.finditer(match[2]))
    if [" ".join(step.group(0).split()[:4]) for step in steps] != _steps(order, numbers):
        return None
    rechecks = [(step[3], digit) for step in steps for digit in re.findall(r"\d", step[4])]
    return Derivation("".join(order), len(rechecks)) if all(total == digit for total, digit in rechecks) else None


def token_kinds(words: Sequence[str]) -> list[Kind]:
    """The kind of each token, from the tokens before it: a label of the plan is a `fork` unless it is the last one; the
    token after a running sum, where the completion continues or re-checks, is a `pivot`; all others are `lock`."""
    kinds: list[Kind] = []
    for position in range(len(words)):
        planned = position - 2  # after <think> and `plan`
        if words[1:2] == ["plan"] and 0 <= planned < TERMS - 1:
            kinds.append("fork")
        else:
            kinds.append("pivot" if position >= 2 and words[position - 2] == "=" else "lock")
    return kinds


def _numbers(problem: Problem) -> dict[str, int]:
    words = problem.problem.split()
    return dict(zip(words[1::2], map(int, words[::2]), strict=True))


def _steps(order: list[str], numbers: dict[str, int]) -> list[str]:
    steps, total = [], 0
    for label in order:
        total = (total + numbers[label]) % 10
        steps.append(f"{label} {numbers[label]} = {total}")
    return steps


def _shuffled(labels: list[str], source: random.Random) -> list[str]:
    return source.sample(labels, len(labels))


def _stream(source: random.Random) -> Iterator[Problem]:
    while True:
        numbers = {label: source.randint(1, 9) for label in source.sample(LABELS, TERMS)}
        answer = str(sum(numbers.values()) % 10)
        order = _shuffled(list(numbers), source)
        derivation = f"plan {' '.join(order)} ; {' '.join(_steps(order, numbers))} "
        solution = (derivation if source.random() < WHOLE_REFERENCES else "") + rf"\boxed{{{answer}}}"
        text = " ".join(f"{number} {label}" for label, number in numbers.items())
        yield Problem(id=text.replace(" ", ""), problem=text, solution=solution, answer=answer)
