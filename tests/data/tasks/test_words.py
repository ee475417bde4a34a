r"""Word problems: right by the numbers in their text, held out by scene and by numbers, in varied words.

What a text says is worked out anew from the sentences of its scene, and what a reference says from its own equations.
"""

import re
from collections import Counter

import pytest

from egrsd_jax.data.tasks.registry import BUILT_IN_TASKS, WORD_TASKS
from egrsd_jax.data.tasks.word_scenes import NAMES, SCENES, Scene
from egrsd_jax.data.tasks.words import DIFFICULTIES, word_problems
from egrsd_jax.evaluate.benchmarks import BENCHMARKS, load_benchmark
from egrsd_jax.verify.extract import extract_answer

PROBLEMS = {
    (name, held_out): word_problems(400, seed=3, held_out=held_out, difficulty=name)
    for name in DIFFICULTIES
    for held_out in (False, True)
}
EQUATION = re.compile(r"(\d+) ([-+*]) (\d+) = (\d+)")


def pattern(wording: str) -> str:
    text = re.escape(wording).replace(r"\{a\}", r"(?P<a>\d+)").replace(r"\{b\}", r"(?P<b>\d+)")
    people = "|".join(NAMES)
    text = text.replace(r"\{name\}", f"(?:{people})").replace(r"\{other\}", f"(?:{people})")
    return text.replace(r"\{things\}", r"[a-z ]+")


def worked_out(text: str, scene: Scene) -> int | None:
    """The answer of a problem in the words of a scene, or None where the text is not in them."""
    value = None
    for wording in (*scene.start, *scene.groups):
        if match := re.match(pattern(wording) + " ", text):
            numbers = {name: int(number) for name, number in match.groupdict().items()}
            value, rest = numbers["a"] * numbers.get("b", 1), text[match.end() :]
            break
    if value is None:
        return None
    signs = [*((1, wording) for wording in scene.more), *((-1, wording) for wording in scene.fewer)]
    while not any(re.fullmatch(pattern(wording), rest) for wording in scene.ask):
        for sign, wording in signs:
            if match := re.match(pattern(wording) + " ", rest):
                value, rest = value + sign * int(match["b"]), rest[match.end() :]
                break
        else:
            return None
    return value


@pytest.mark.parametrize(("name", "held_out"), PROBLEMS)
def test_answers_are_what_the_sentences_say_and_scenes_are_held_out_as_a_whole(name, held_out):
    for problem in PROBLEMS[name, held_out]:
        answers = {worked_out(problem.problem, scene) for scene in SCENES if scene.held_out == held_out} - {None}
        assert answers == {int(problem.answer)}, problem.problem
        others = {worked_out(problem.problem, scene) for scene in SCENES if scene.held_out != held_out}
        assert others == {None}, problem.problem


@pytest.mark.parametrize("name", DIFFICULTIES)
@pytest.mark.parametrize("rechecked", [False, True])
def test_references_are_right_at_every_step(name, rechecked):
    for problem in word_problems(400, seed=3, held_out=False, difficulty=name, rechecked=rechecked):
        assert extract_answer(problem.solution) == problem.answer
        for left, operator, right, result in EQUATION.findall(problem.solution):
            a, b = int(left), int(right)
            assert {"+": a + b, "-": a - b, "*": a * b}[operator] == int(result), problem.solution


@pytest.mark.parametrize(("name", "held_out"), PROBLEMS)
def test_the_dial_bounds_steps_and_numbers(name, held_out):
    difficulty = DIFFICULTIES[name]
    counts = Counter()
    for problem in PROBLEMS[name, held_out]:
        numbers = [int(number) for number in re.findall(r"\d+", problem.problem)]
        counts[len(numbers) - 1] += 1
        assert all(2 <= number <= max(difficulty.largest, difficulty.factor**2) for number in numbers)
        assert int(problem.answer) >= 2
    assert set(counts) == set(difficulty.steps)


def test_what_is_held_out_shares_neither_sentences_nor_chains_of_numbers():
    for name in DIFFICULTIES:
        train, held_out = ({problem.id.partition("/")[0] for problem in PROBLEMS[name, side]} for side in (False, True))
        assert train.isdisjoint(held_out)
    sentences = {
        side: {
            sentence
            for scene in SCENES
            if scene.held_out == side
            for sentence in (*scene.start, *scene.groups, *scene.more, *scene.fewer, *scene.ask)
        }
        for side in (False, True)
    }
    assert sentences[False].isdisjoint(sentences[True])
    things = {side: {thing for scene in SCENES if scene.held_out == side for thing in scene.things} for side in (0, 1)}
    assert things[0].isdisjoint(things[1])


def test_problems_depend_on_the_seed_alone_and_are_the_same_with_checked_references():
    plain = PROBLEMS["medium", False]
    assert word_problems(400, seed=3, held_out=False) == plain != word_problems(400, seed=4, held_out=False)
    checked = word_problems(400, seed=3, held_out=False, rechecked=True)
    assert [(p.id, p.problem, p.answer) for p in checked] == [(p.id, p.problem, p.answer) for p in plain]
    longer = [len(c.solution) > len(p.solution) for c, p in zip(checked, plain, strict=True)]
    assert 0.5 < sum(longer) / len(longer) < 0.8  # at least one of one to three steps, each with probability 1/2
    assert all(c.solution == p.solution for c, p, more in zip(checked, plain, longer, strict=True) if not more)


def test_a_reference_is_worded_apart_from_its_problem():
    """The same numbers get many derivations, and no two of a problem's words say which."""
    forms = Counter(
        re.sub(r"\d+|[a-z]+ of [a-z]+", "0", p.solution) for p in word_problems(3000, seed=1, held_out=False)
    )
    assert len(forms) > 200
    assert forms.most_common(1)[0][1] < 150
    begins = Counter(re.sub(r"\d+", "0", problem.solution).split()[0] for problem in PROBLEMS["easy", False])
    assert max(begins.values()) < 150
    assert {"First,", "0", "0)", "Step", "Start", "There", "We", "It", "What"} <= set(begins)


@pytest.mark.parametrize("task", WORD_TASKS)
def test_every_name_is_a_task_with_enough_problems(task):
    train = BUILT_IN_TASKS[task].problems(2000, seed=0, held_out=False)
    held_out = BUILT_IN_TASKS[task].problems(512, seed=0, held_out=True)
    assert (len({p.problem for p in train}), len({p.problem for p in held_out})) == (2000, 512)


def test_the_benchmarks_are_the_held_out_problems_and_graded_correct_themselves():
    for name in ("words", "words-easy", "words-hard"):
        loaded = load_benchmark(BENCHMARKS[name])
        assert loaded.problems == BUILT_IN_TASKS[name].problems(512, seed=0, held_out=True)
