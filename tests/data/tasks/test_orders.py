"""The built-in task with forks: correct references of both kinds, any order is right, and every mistake is found."""

import random

import pytest
from transformers import AutoTokenizer

from egrsd_jax.data.problems import Problem
from egrsd_jax.data.prompts import PromptTemplates, encode_teacher
from egrsd_jax.data.tasks.arithmetic import write_tokenizer
from egrsd_jax.data.tasks.orders import (
    RECHECKS,
    TERMS,
    Derivation,
    derivation,
    orders_problems,
    planned_completion,
    token_kinds,
)
from egrsd_jax.data.tasks.registry import BUILT_IN_TASKS
from egrsd_jax.model.hf.hub import BUILT_IN
from egrsd_jax.verify.extract import extract_answer

PROBLEMS = orders_problems(300, seed=5, held_out=False)
SMALL = Problem("", "5 d 7 a 8 c 3 b 2 g", r"\boxed{5}", "5")
RIGHT = (
    r"<think> plan g a d c b ; g 2 = 2 hmm still 2 a 7 = 9 d 5 = 4 c 8 = 2 b 3 = 5 wait still 5 </think> \boxed{ 5 }"
)


def completion(problem: Problem, seed: int = 0, *, recheck: float = 0.5, privileged: bool = False) -> str:
    text = planned_completion(problem, random.Random(seed), recheck=recheck, privileged=privileged)
    return text.removesuffix("<|im_end|>")


def test_answers_are_sums_and_half_of_the_references_are_derivations():
    whole = [problem for problem in PROBLEMS if problem.solution.startswith("plan")]
    assert 0.4 < len(whole) / len(PROBLEMS) < 0.6
    for problem in PROBLEMS:
        assert problem.answer == str(sum(map(int, problem.problem.split()[::2])) % 10)
        assert problem.answer == extract_answer(problem.solution)
        assert len(problem.problem.split()) == 2 * TERMS
    for problem in whole:
        body, _, boxed = problem.solution.partition(r" \boxed")
        assert derivation(problem, rf"<think> {body} </think> \boxed{boxed}") is not None
    assert {problem.solution for problem in PROBLEMS if problem not in whole} <= {rf"\boxed{{{d}}}" for d in range(10)}


def test_held_out_problems_are_never_trained_on_and_problems_depend_on_the_seed_alone():
    held_out = {problem.problem for problem in orders_problems(500, seed=9, held_out=True)}
    assert len(held_out) == 500
    assert held_out.isdisjoint(problem.problem for problem in orders_problems(3000, seed=9, held_out=False))
    assert orders_problems(300, seed=5, held_out=False) == PROBLEMS != orders_problems(300, seed=6, held_out=False)


def test_completions_are_right_in_every_order():
    orders = set()
    for seed in range(300):
        found = derivation(SMALL, completion(SMALL, seed))
        assert found is not None
        orders.add(found.order)
    assert len(orders) > 100  # of 120, evenly drawn
    assert {order[0] for order in orders} == set("dacbg")


def test_a_privileged_completion_keeps_the_order_of_a_whole_reference():
    for problem in PROBLEMS[:60]:
        orders = {derivation(problem, completion(problem, seed, privileged=True)).order for seed in range(8)}
        if problem.solution.startswith("plan"):
            assert orders == {"".join(problem.solution.split(" ;")[0].split()[1:])}
        else:
            assert len(orders) > 1


@pytest.mark.parametrize(("recheck", "share"), [(0.0, 0.0), (1.0, 1.0)])
def test_completions_recheck_as_often_as_asked(recheck, share):
    for problem in PROBLEMS[:50]:
        text = completion(problem, recheck=recheck)
        assert sum(word in RECHECKS for word in text.split()) == share * TERMS
        assert derivation(problem, text).rechecks == share * TERMS


def test_a_derivation_is_read_with_and_without_blanks():
    assert derivation(SMALL, RIGHT) == Derivation("gadcb", 2)
    assert derivation(SMALL, RIGHT.replace(" }", "}").replace("{ ", "{")) == Derivation("gadcb", 2)


@pytest.mark.parametrize(
    ("was", "wrong"),
    [
        ("plan g a d c b", "plan g a d c"),  # a label is missing
        ("plan g a d c b", "plan g a d c c"),  # another is there twice
        ("plan g a d c b", "plan a g d c b"),  # the steps follow another order
        ("g 2 = 2", "g 3 = 2"),  # not the problem's number
        ("a 7 = 9", "a 7 = 8"),  # not the sum
        ("hmm still 2", "hmm still 3"),  # not what was found
        ("hmm still 2", "hmm hmm still 2"),
        ("</think>", ""),
        (r"\boxed{ 5 }", r"\boxed{ 6 }"),
        (r"\boxed{ 5 }", r"\boxed{ 5 } b"),
    ],
)
def test_every_mistake_is_found(was, wrong):
    assert was in RIGHT
    assert derivation(SMALL, RIGHT.replace(was, wrong)) is None


def test_kinds_of_tokens():
    words = RIGHT.split()
    kinds = dict.fromkeys(("fork", "pivot", "lock"), "")
    for word, kind in zip(words, token_kinds(words), strict=True):
        kinds[kind] += f"{word} "
    assert kinds["fork"] == "g a d c "  # the last label is the only one left
    assert kinds["pivot"] == "hmm d c b wait "
    assert token_kinds(["<think>", "g", "2"]) == ["lock"] * 3


def test_the_kept_tokenizer_is_the_one_that_the_code_writes_and_loses_nothing(tmp_path):
    write_tokenizer(tmp_path, BUILT_IN_TASKS["orders"].words)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / name).read_text() == (BUILT_IN["orders"] / name).read_text()
    tokenizer = AutoTokenizer.from_pretrained(BUILT_IN["orders"])
    templates = PromptTemplates("{problem}", "{problem} reference {solution}", True, True)
    for problem in PROBLEMS[:50]:
        tokens = tokenizer.encode(completion(problem) + "<|im_end|>")
        assert len(tokens) <= BUILT_IN_TASKS["orders"].max_new_tokens
        assert tokenizer.unk_token_id not in [*tokens, *encode_teacher(tokenizer, templates, problem)]
        assert derivation(problem, tokenizer.decode(tokens, skip_special_tokens=True)) is not None
