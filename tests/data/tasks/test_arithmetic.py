"""The built-in task: correct references, a split that never meets, and a tokenizer that loses nothing."""

import random

import pytest
from transformers import AutoTokenizer

from egrsd_jax.data.prompts import PromptTemplates, encode_student, encode_teacher
from egrsd_jax.data.tasks.arithmetic import arithmetic_problems, worked_completion, write_tokenizer
from egrsd_jax.model.hf.hub import BUILT_IN
from egrsd_jax.verify.extract import extract_answer

PROBLEMS = arithmetic_problems(300, seed=5, held_out=False)


def by_hand(expression: str) -> int:
    """From left to right, modulo 10."""
    words = expression.split()
    value = int(words[0])
    for operator, operand in zip(words[1::2], map(int, words[2::2]), strict=True):
        value = (value + operand if operator == "+" else value - operand if operator == "-" else value * operand) % 10
    return value


def test_answers_and_references_are_right():
    for problem in PROBLEMS:
        assert problem.answer == str(by_hand(problem.problem)) == extract_answer(problem.solution)
        for equation in problem.solution.split(" ; ")[:-1]:
            left, right = equation.split(" = ")
            assert by_hand(left) == int(right)


def test_held_out_problems_are_never_trained_on():
    held_out = {problem.problem for problem in arithmetic_problems(500, seed=9, held_out=True)}
    assert len(held_out) == 500
    for seed in range(3):
        assert held_out.isdisjoint(problem.problem for problem in arithmetic_problems(3000, seed=seed, held_out=False))


def test_problems_depend_on_the_seed_alone():
    assert arithmetic_problems(300, seed=5, held_out=False) == PROBLEMS
    assert arithmetic_problems(300, seed=6, held_out=False) != PROBLEMS


@pytest.mark.parametrize(("recheck", "share"), [(0.0, 0.0), (1.0, 1.0)])
def test_worked_completions_recheck_as_often_as_asked(recheck, share):
    for problem in PROBLEMS[:50]:
        text = worked_completion(problem, random.Random(0), recheck=recheck)
        steps = problem.solution.count("=")
        assert text.count("wait check") == share * steps
        assert extract_answer(text) == problem.answer


def test_the_kept_tokenizer_is_the_one_that_the_code_writes(tmp_path):
    write_tokenizer(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / name).read_text() == (BUILT_IN["arithmetic"] / name).read_text()


def test_the_tokenizer_loses_nothing_and_knows_thinking():
    tokenizer = AutoTokenizer.from_pretrained(BUILT_IN["arithmetic"])
    templates = {
        thinking: PromptTemplates("{problem}", "{problem} reference {solution}", thinking, thinking)
        for thinking in (True, False)
    }
    for problem in PROBLEMS[:50]:
        text = worked_completion(problem, random.Random(1), recheck=0.5)
        tokens = tokenizer.encode(text)
        assert tokenizer.unk_token_id not in tokens
        assert tokens[-1] == tokenizer.eos_token_id
        said = tokenizer.decode(tokens, skip_special_tokens=True)
        assert said.replace(" ", "") == text.replace(" ", "").removesuffix("<|im_end|>")
        assert extract_answer(said) == problem.answer
        plain = tokenizer.decode(encode_student(tokenizer, templates[True], problem))
        assert plain == f"<|im_start|> user {problem.problem} <|im_end|> <|im_start|> assistant"
        assert tokenizer.decode(encode_student(tokenizer, templates[False], problem)) == f"{plain} <think> </think>"
        privileged = tokenizer.decode(encode_teacher(tokenizer, templates[True], problem))
        assert problem.solution.partition(" ;")[0] in privileged
