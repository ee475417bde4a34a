"""The built-in task `arithmetic`: chains of small operations, worked from left to right modulo 10, and its tokenizer.

A problem is `7 + 5 * 3 - 8 + 6`. Its reference solution is the short derivation, one equation per step. A natural
completion works the same steps inside `<think>`, and re-checks some of them (`wait check 7 + 5 = 2 ok`), which costs
tokens and changes nothing. Imports no jax.
"""

import random
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from egrsd_jax.data.problems import Problem

STEPS = (4, 5)  # operations in a problem
HELD_OUT_SHARE = 8  # one problem in this many is never seen in warm-up or training

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|unknown|>")
THINKING = ("<think>", "</think>")
WORDS = (
    *"0123456789",
    "+",
    "-",
    "*",
    "=",
    ";",
    "wait",
    "check",
    "ok",
    "\\boxed{",
    "}",
    "user",
    "assistant",
    "reference",
)
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "<|im_start|>{{ message.role }} {{ message.content }}<|im_end|>"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|im_start|>assistant"
    "{%- if enable_thinking is defined and not enable_thinking %}<think></think>{% endif -%}"
    "{%- endif -%}"
)


def arithmetic_problems(count: int, *, seed: int, held_out: bool) -> list[Problem]:
    """`count` distinct problems from `seed`; held-out and training problems are disjoint, whatever the seed."""
    return first_problems(_stream(random.Random(seed)), count, held_out=held_out)


def first_problems(stream: Iterator[Problem], count: int, *, held_out: bool) -> list[Problem]:
    """The first `count` distinct problems of a stream that are held out, or are not: a hash of the text decides."""
    problems: dict[str, Problem] = {}
    for problem in stream:
        if (zlib.crc32(problem.problem.encode()) % HELD_OUT_SHARE == 0) == held_out:
            problems.setdefault(problem.id, problem)
        if len(problems) == count:
            break
    return list(problems.values())


def worked_completion(problem: Problem, random_source: random.Random, *, recheck: float) -> str:
    """A correct completion that re-checks each step with probability `recheck`: what the warm-up teaches."""
    derivation, _, boxed = problem.solution.rpartition(" ; ")
    steps = []
    for equation in derivation.split(" ; "):
        is_rechecked = random_source.random() < recheck
        steps.append(f"{equation} ; wait check {equation} ok" if is_rechecked else equation)
    return f"<think> {' ; '.join(steps)} </think> {boxed}<|im_end|>"


def write_tokenizer(folder: Path, words: Sequence[str] = WORDS) -> None:
    """Writes the tokenizer's files: one token per word, and a chat template that takes enable_thinking."""
    from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: index for index, word in enumerate((*SPECIAL, *THINKING, *words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<|unknown|>"))
    split = Regex(r"\\boxed\{|\d|[a-z]+|[^\s\w]")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(split, behavior="removed", invert=True)
    tokenizer.add_special_tokens([AddedToken(word, special=True) for word in SPECIAL])
    tokenizer.add_tokens([AddedToken(word, special=False) for word in THINKING])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<|unknown|>",
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    ).save_pretrained(folder, save_jinja_files=False)


def _stream(random_source: random.Random) -> Iterator[Problem]:
    while True:
        value = random_source.randrange(10)
        expression, equations = str(value), []
        for _ in range(random_source.choice(STEPS)):
            operator, operand = random_source.choice("+-*"), random_source.randrange(1, 10)
            result = {"+": value + operand, "-": value - operand, "*": value * operand}[operator] % 10
            expression += f" {operator} {operand}"
            equations.append(f"{value} {operator} {operand} = {result}")
            value = result
        solution = " ; ".join([*equations, rf"\boxed{{{value}}}"])
        yield Problem(id=expression.replace(" ", ""), problem=expression, solution=solution, answer=str(value))
