"""EGRSD in one loop, on the public functions of `egrsd_jax` alone.

    pip install . && python examples/loop.py

The built-in model answers chains of small operations modulo 10. It writes completions, and learns from a reward (is the
answer correct, and how short is the completion) and, for every token, from the log-probability and the entropy that the
same model has with the reference solution in its prompt. In about a minute on two cores it comes to answer four of five
problems instead of three, in two thirds of the tokens. `egrsd train` does the same with a cache for decoding,
checkpoints, evaluation, meshes, and other methods.
"""

import random
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from egrsd_jax import (
    egrsd_loss,
    extract_answer,
    forward,
    grade,
    init_moments,
    load_pretrained,
    output_head,
    shaped_reward,
    token_scores,
    update_moments,
    whiten,
)

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|unknown|>", "<think>", "</think>"]
WORDS = [*SPECIAL, *"0123456789+-*=;", "wait", "check", "ok", r"\boxed{", "}", "user", "assistant", "reference"]
PAD, END = WORDS.index("<|endoftext|>"), WORDS.index("<|im_end|>")
STEPS, BATCH, MAX_TOKENS, LEARNING_RATE = 30, 64, 64, 5e-4


class Problem(NamedTuple):
    """What the student is asked, what the teacher is shown as well, and the answer."""

    question: str
    solution: str
    answer: str


def make_problem(source: random.Random) -> Problem:
    """`7 + 5 * 3 - 8 + 6`, worked from left to right modulo 10."""
    value = source.randrange(10)
    question, equations = str(value), []
    for _ in range(source.choice((4, 5))):
        operator, operand = source.choice("+-*"), source.randrange(1, 10)
        result = {"+": value + operand, "-": value - operand, "*": value * operand}[operator] % 10
        question += f" {operator} {operand}"
        equations.append(f"{value} {operator} {operand} = {result}")
        value = result
    return Problem(question, " ; ".join([*equations, rf"\boxed{{ {value} }}"]), str(value))


def encode(turns: list[str]) -> tuple[jax.Array, jax.Array]:
    """Token ids [B, S] of some user turns, padded on the left, and the mask of real tokens."""
    rows = [
        [WORDS.index(word) for word in f"<|im_start|> user {turn} <|im_end|> <|im_start|> assistant".split()]
        for turn in turns
    ]
    longest = max(map(len, rows))
    tokens_BS = jnp.array([[PAD] * (longest - len(row)) + row for row in rows])
    return tokens_BS, jnp.array([[False] * (longest - len(row)) + [True] * len(row) for row in rows])


def decode(tokens: list[int]) -> str:
    """A completion's text, up to its end of turn."""
    words = [WORDS[token] for token in tokens]
    return " ".join(words[: words.index("<|im_end|>")] if "<|im_end|>" in words else words)


@partial(jax.jit, static_argnames="config")
def sample(params, config, prompt_BS, prompt_mask_BS, key):
    """Completions [B, T] at temperature 1, and their mask: every token up to the end of turn, that one included."""
    size, prompt = prompt_BS.shape
    tokens_BS = jnp.concatenate([prompt_BS, jnp.full((size, MAX_TOKENS), PAD)], axis=1)
    mask_BS = jnp.concatenate([prompt_mask_BS, jnp.zeros((size, MAX_TOKENS), bool)], axis=1)

    def unfinished(state):
        t, _, _, ended_B = state
        return (t < tokens_BS.shape[1]) & ~jnp.all(ended_B)

    def write_one(state):
        t, tokens_BS, mask_BS, ended_B = state
        hidden_BSD = forward(params, config, tokens_BS, mask=mask_BS)  # all tokens again: without a cache it is short
        logits_BV = hidden_BSD[:, t - 1] @ output_head(params, config)
        token_B = jnp.where(ended_B, PAD, jax.random.categorical(jax.random.fold_in(key, t), logits_BV))
        return t + 1, tokens_BS.at[:, t].set(token_B), mask_BS.at[:, t].set(~ended_B), ended_B | (token_B == END)

    start = (prompt, tokens_BS, mask_BS, jnp.zeros(size, bool))
    _, tokens_BS, mask_BS, _ = jax.lax.while_loop(unfinished, write_one, start)
    return tokens_BS[:, prompt:], mask_BS[:, prompt:]


def score(params, config, prompt, completion_BT, mask_BT):
    """log p and entropy of every completion token after a prompt: nats, [B, T]."""
    tokens_BS, mask_BS = (jnp.concatenate(pair, axis=1) for pair in zip(prompt, (completion_BT, mask_BT), strict=True))
    start = prompt[0].shape[1]
    hidden_BTD = forward(params, config, tokens_BS, mask=mask_BS)[:, start - 1 : -1]  # what predicts each token
    return token_scores(hidden_BTD, output_head(params, config), completion_BT)


@partial(jax.jit, static_argnames=("config", "optimizer"))
def update(params, state, base, config, optimizer, student_prompt, teacher_prompt, completion_BT, mask_BT, advantage_B):
    """One step. The teacher is the model as it was before training, with the reference in its prompt."""
    teacher = score(base, config, teacher_prompt, completion_BT, mask_BT)

    def loss(params):
        student = score(params, config, student_prompt, completion_BT, mask_BT)
        return egrsd_loss(student.logp_BT, teacher.logp_BT, teacher.entropy_BT, advantage_B, mask_BT, gamma=0.3)

    (_, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(params)
    change, state = optimizer.update(gradient, state, params)
    return optax.apply_updates(params, change), state, metrics


def graded(problems: list[Problem], completion_BT, mask_BT) -> tuple[jax.Array, jax.Array]:
    """Whether each completion ends with the correct answer, and its length in tokens."""
    answers = [extract_answer(decode(row)) for row in completion_BT.tolist()]
    correct = [
        answer is not None and grade(answer, problem.answer) for answer, problem in zip(answers, problems, strict=True)
    ]
    return jnp.array(correct), mask_BT.sum(axis=1)


def main(steps: int = STEPS, batch: int = BATCH) -> list[tuple[float, float]]:
    """Trains, and returns accuracy and mean length of every step's completions, which are graded before the update."""
    source, key = random.Random(0), jax.random.key(0)
    config, base = load_pretrained("arithmetic", dtype="float32")
    config = config.replace(dtype="float32", rematerialise="none")
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(LEARNING_RATE, weight_decay=0.0))
    params, state, moments, measured = base, optimizer.init(base), init_moments(), []
    for step in range(steps):
        problems = [make_problem(source) for _ in range(batch)]
        student_prompt = encode([problem.question for problem in problems])
        teacher_prompt = encode([f"{problem.question} reference {problem.solution}" for problem in problems])
        completion_BT, mask_BT = sample(params, config, *student_prompt, jax.random.fold_in(key, step))
        correct_B, length_B = graded(problems, completion_BT, mask_BT)
        reward_B = shaped_reward(correct_B, length_B, max_length=MAX_TOKENS)
        advantage_B, moments = whiten(reward_B, moments, step), update_moments(moments, reward_B)
        params, state, metrics = update(
            params, state, base, config, optimizer, student_prompt, teacher_prompt, completion_BT, mask_BT, advantage_B
        )
        measured.append((float(correct_B.mean()), float(length_B.mean())))
        print(
            f"step {step:2}: {100 * measured[-1][0]:5.1f}% correct in {measured[-1][1]:4.1f} tokens, "
            f"reward {reward_B.mean():.2f}, mean gate {metrics['gate_mean']:.2f}"
        )
    return measured


if __name__ == "__main__":
    main()
