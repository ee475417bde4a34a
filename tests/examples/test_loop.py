"""The example: its prompts are the trainer's, its completions end where they should, and a few steps shorten them."""

import random
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egrsd_jax import load_pretrained
from egrsd_jax.data.problems import Problem
from egrsd_jax.data.prompts import PromptTemplates, encode_student, encode_teacher
from egrsd_jax.data.tasks.arithmetic import arithmetic_problems
from egrsd_jax.data.tokenizer import load_tokenizer
from egrsd_jax.model.hf.hub import resolve_folder
from examples import loop

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = PromptTemplates("{problem}", "{problem} reference {solution}", student_thinking=True, teacher_thinking=True)


def test_prompts_and_texts_are_those_of_the_models_tokenizer():
    tokenizer, stop_ids = load_tokenizer(resolve_folder("arithmetic"))
    assert tokenizer.get_vocab() == {word: index for index, word in enumerate(loop.WORDS)}
    assert loop.END in stop_ids
    problems = [loop.make_problem(random.Random(seed)) for seed in range(8)]
    students = loop.encode([problem.question for problem in problems])
    teachers = loop.encode([f"{problem.question} reference {problem.solution}" for problem in problems])
    for row, problem in enumerate(problems):
        given = Problem(id="", problem=problem.question, solution=problem.solution, answer=problem.answer)
        for (tokens, mask), encode in ((students, encode_student), (teachers, encode_teacher)):
            assert tokens[row][mask[row]].tolist() == encode(tokenizer, TEMPLATES, given)
            assert np.all(np.diff(np.asarray(mask[row]).astype(int)) >= 0), "padding is on the left"


def test_problems_are_those_of_the_task():
    known = {
        problem.problem: problem
        for held_out in (True, False)
        for problem in arithmetic_problems(50, seed=3, held_out=held_out)
    }
    source = random.Random(3)
    for problem in [loop.make_problem(source) for _ in range(20)]:
        ours = known[problem.question]
        assert (problem.answer, problem.solution.replace(" ", "")) == (ours.answer, ours.solution.replace(" ", ""))


def test_a_completion_ends_with_its_end_of_turn_and_is_padding_after_it(monkeypatch):
    monkeypatch.setattr(loop, "MAX_TOKENS", 8)
    config, params = load_pretrained("arithmetic", dtype="float32")
    config = config.replace(dtype="float32", rematerialise="none", num_layers=2)
    prompt = loop.encode(["7 + 5 * 3 - 8", "1 - 2 * 3 + 4 + 4"])
    completion_BT, mask_BT = jax.tree.map(np.asarray, loop.sample(params, config, *prompt, jax.random.key(0)))
    assert completion_BT.shape == mask_BT.shape == (2, 8)
    assert mask_BT.all()  # a derivation is longer than eight tokens
    assert [loop.WORDS[token] for token in completion_BT[:, 0]] == ["<think>", "<think>"]
    assert loop.decode([*map(loop.WORDS.index, ("ok", "<|im_end|>", "wait"))]) == "ok"


def test_grading_reads_the_box():
    problem = loop.Problem("1 + 1", "1 + 1 = 2", "2")
    texts = [
        r"<think> 1 + 1 = 2 </think> \boxed{ 2 } <|im_end|>",
        r"<think> 1 </think> \boxed{ 3 } <|im_end|> wait wait",
        "ok " * 11,
    ]
    tokens_BT = np.zeros((3, 12), int)
    for row, text in enumerate(texts):
        words = [loop.WORDS.index(word) for word in text.split()]
        tokens_BT[row, : len(words)] = words
    correct_B, length_B = loop.graded([problem] * 3, jnp.asarray(tokens_BT), jnp.asarray(tokens_BT != loop.PAD))
    assert correct_B.tolist() == [True, False, False]
    assert length_B.tolist() == [11, 9, 11]


@pytest.mark.slow
def test_a_few_steps_shorten_completions():
    """In a process of its own, as a reader runs it."""
    code = "from examples import loop; measured = loop.main(steps=5, batch=32); print(measured[0][1], measured[-1][1])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    *lines, last = done.stdout.splitlines()
    assert all(
        re.fullmatch(r"step +\d: +[\d.]+% correct in [\d.]+ tokens, reward [\d.]+, mean gate 0\.\d\d", line)
        for line in lines
    )
    before, after = map(float, last.split())
    assert after < before - 5
