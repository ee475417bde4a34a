r"""The built-in task `words`: word problems of one to three steps in plain English, for a pretrained language model.

A problem is a scene (`word_scenes.py`) in one of its wordings, and its reference solution one of several styles of
derivation, chosen apart from the problem: a teacher that copies its reference's words is of no use on a completion in
other words. A reference may check its steps backwards, which costs tokens and changes nothing. Held-out problems have
scenes of their own and chains of numbers of their own. There is no built-in model for it. Imports no jax.
"""

import random
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from egrsd_jax.data.problems import Problem
from egrsd_jax.data.tasks.word_scenes import NAMES, SCENES, Scene

HELD_OUT_SHARE = 8  # one chain of numbers in this many is only ever in held-out problems
RECHECK = 0.5  # probability that a re-checked reference checks a step


@dataclass(frozen=True)
class Difficulty:
    """How hard a problem is.

    Attributes:
        steps: numbers of steps, equally likely; a number may be there more than once.
        largest: no number of a problem, and no sum on the way, is over it.
        factor: largest number of a product.
        products: share of problems that begin with a product.
    """

    steps: tuple[int, ...]
    largest: int
    factor: int
    products: float


DIFFICULTIES = {
    "easy": Difficulty(steps=(1, 1, 2), largest=20, factor=5, products=0.1),
    "medium": Difficulty(steps=(1, 1, 2, 2, 3), largest=40, factor=6, products=0.2),
    "hard": Difficulty(steps=(2, 3, 3), largest=100, factor=12, products=0.4),
}


@dataclass(frozen=True)
class Step:
    """`left operator right = result`, all of them at least 2."""

    left: int
    operator: str
    right: int
    result: int

    def __str__(self) -> str:
        return f"{self.left} {self.operator} {self.right} = {self.result}"


def word_problems(
    count: int, *, seed: int, held_out: bool, difficulty: str = "medium", rechecked: bool = False
) -> list[Problem]:
    """`count` distinct problems from `seed`; held-out and training problems share no scene and no chain of numbers,
    whatever the seed. `rechecked` references check about half of their steps; the problems are the same without."""
    problems: dict[str, Problem] = {}
    for problem in _stream(random.Random(seed), DIFFICULTIES[difficulty], held_out=held_out, rechecked=rechecked):
        problems.setdefault(problem.id, problem)
        if len(problems) == count:
            break
    return list(problems.values())


def _stream(source: random.Random, difficulty: Difficulty, *, held_out: bool, rechecked: bool) -> Iterator[Problem]:
    scenes = [scene for scene in SCENES if scene.held_out == held_out]
    while True:
        steps = _steps(source, difficulty)
        scene, names, seed = source.choice(scenes), source.sample(NAMES, 2), source.getrandbits(32)
        chain = str(steps[0].left) + "".join(f"{step.operator}{step.right}" for step in steps)
        if (zlib.crc32(chain.encode()) % HELD_OUT_SHARE == 0) != held_out:
            continue
        own = random.Random(seed)  # so that a problem's words are the same with checks and without
        words = {"name": names[0], "other": names[1], "things": own.choice(scene.things)}
        text = _text(own, scene, words, steps)
        solution = _solution(own, words, steps, RECHECK if rechecked else 0.0)
        yield Problem(
            id=f"{chain}/{zlib.crc32(text.encode()):08x}",
            problem=text,
            solution=solution,
            answer=str(steps[-1].result),
        )


def _steps(source: random.Random, difficulty: Difficulty) -> list[Step]:
    count = source.choice(difficulty.steps)
    steps: list[Step] = []
    if source.random() < difficulty.products:
        left, right = source.randint(2, difficulty.factor), source.randint(2, difficulty.factor)
        steps.append(Step(left, "*", right, left * right))
        value = left * right
    else:
        value = source.randint(2, difficulty.largest - 2)
    while len(steps) < count:
        smaller = value < 4 or (value <= difficulty.largest - 2 and source.random() < 0.5)
        if smaller:  # only a sum is possible, or it was chosen
            right = source.randint(2, max(2, difficulty.largest - value))
            step = Step(value, "+", right, value + right)
        else:
            right = source.randint(2, value - 2)
            step = Step(value, "-", right, value - right)
        steps.append(step)
        value = step.result
    return steps


def _text(source: random.Random, scene: Scene, words: dict[str, str], steps: list[Step]) -> str:
    """The problem: an opening, one sentence per step, a question."""
    product = steps[0].operator == "*"
    opening = source.choice(scene.groups if product else scene.start)
    sentences = [opening.format(a=steps[0].left, b=steps[0].right, **words)]
    unused = {"+": source.sample(scene.more, len(scene.more)), "-": source.sample(scene.fewer, len(scene.fewer))}
    for step in steps[1:] if product else steps:
        sentences.append(unused[step.operator].pop().format(b=step.right, **words))
    return " ".join([*sentences, source.choice(scene.ask).format(**words)])


def _solution(source: random.Random, words: dict[str, str], steps: list[Step], recheck: float) -> str:
    style, ending = source.choice(_STYLES), source.choice(_ENDINGS)
    checks = [source.choice(_CHECKS).format(back=_back(step)) for step in steps]
    checked = [check if source.random() < recheck else "" for check in checks]
    return style(source, words, steps, checked) + ending.format(answer=steps[-1].result)


def _back(step: Step) -> str:
    """A step worked backwards, or for a product the other way round."""
    if step.operator == "*":
        return f"{step.right} * {step.left} = {step.result}"
    undone = "-" if step.operator == "+" else "+"
    return f"{step.result} {undone} {step.right} = {step.left}"


_CHECKS = (
    "Check: {back}, good.",
    "Let me check that: {back}. Yes.",
    "Wait, is that right? {back}, so it is.",
    "To be sure, {back}.",
    "Going back, {back}, which fits.",
)
_ENDINGS = (
    " The answer is \\boxed{{{answer}}}.",
    " So the answer is \\boxed{{{answer}}}.",
    " That makes \\boxed{{{answer}}}.",
    "\n\\boxed{{{answer}}}",
    "\nAnswer: \\boxed{{{answer}}}",
)
_Style = Callable[[random.Random, dict[str, str], list[Step], list[str]], str]


def _joined(parts: list[str], checked: list[str], between: str = " ") -> str:
    """The steps' texts, each followed by its check where it has one."""
    pairs = zip(parts, checked, strict=True)
    return between.join(f"{part} {check}" if check else part for part, check in pairs)


def _ordered(source: random.Random, words: dict[str, str], steps: list[Step], checked: list[str]) -> str:
    del words
    first, later = source.choice(["First", "To begin", "We have"]), source.choice(["Then", "Next", "After that"])
    begin = [f"{first}, {steps[0]}." if first != "We have" else f"We have {steps[0]}."]
    return _joined([*begin, *(f"{later}, {step}." for step in steps[1:])], checked)


def _lines(source: random.Random, words: dict[str, str], steps: list[Step], checked: list[str]) -> str:
    del source, words
    return _joined([str(step) for step in steps], [check and f"({check})" for check in checked], "\n")


def _numbered(source: random.Random, words: dict[str, str], steps: list[Step], checked: list[str]) -> str:
    mark = source.choice(["{}) ", "{}. ", "Step {}: "])
    del words
    parts = [f"{mark.format(number)}{step}." for number, step in enumerate(steps, start=1)]
    return _joined(parts, checked, "\n")


def _counted(source: random.Random, words: dict[str, str], steps: list[Step], checked: list[str]) -> str:
    """Running totals, with the operations in words."""
    del source, words
    verbs = {"+": "Add", "-": "Take away", "*": "Times"}
    parts = [f"{verbs[step.operator]} {step.right} to get {step.result}." for step in steps]
    return f"Start with {steps[0].left}. {_joined(parts, checked)}"


def _narrated(source: random.Random, words: dict[str, str], steps: list[Step], checked: list[str]) -> str:
    """The scene's things at every step."""
    things = words["things"]
    wordings = {
        "+": ("{right} more make {result} {things}.", "With the {right} there are {result} {things}."),
        "-": ("Without {right} there are {result} {things}.", "{right} fewer leave {result} {things}."),
        "*": ("{left} times {right} are {result} {things}.", "That is {left} * {right} = {result} {things}."),
    }
    parts = [
        source.choice(wordings[step.operator]).format(
            left=step.left, right=step.right, result=step.result, things=things
        )
        for step in steps
    ]
    begin = "" if steps[0].operator == "*" else f"There are {steps[0].left} {things} at first. "
    return begin + _joined(parts, checked)


def _in_words(source: random.Random, words: dict[str, str], steps: list[Step], checked: list[str]) -> str:
    del words
    verbs = {"+": source.choice(["plus", "and"]), "-": source.choice(["minus", "less"]), "*": "times"}
    equals = source.choice(["is", "gives", "makes"])
    return _joined([f"{s.left} {verbs[s.operator]} {s.right} {equals} {s.result}." for s in steps], checked)


def _at_once(source: random.Random, words: dict[str, str], steps: list[Step], checked: list[str]) -> str:
    """The whole expression, then its value step by step."""
    del words
    whole = str(steps[0].left) + "".join(f" {step.operator} {step.right}" for step in steps)
    begin = source.choice(["We need {}.", "It is {}.", "What is asked is {}."]).format(whole)
    return f"{begin} {_joined([f'{step}.' for step in steps], checked)}"


_STYLES: tuple[_Style, ...] = (_ordered, _lines, _numbered, _counted, _narrated, _in_words, _at_once)
