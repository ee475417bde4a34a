r"""Every token of a gold answer changed: other digits, letters, signs, functions, brackets, indices; or left out.

Used by `test_mutations` and `benchmarks/grading.py`. A mutant mostly differs from its gold as mathematics; those that
do not (7.0 for 07, `\dfrac` for `\frac`) are what a test of grading has to argue.
"""

import re
from collections.abc import Iterator

_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|\d|[A-Za-z]|\S")
_SWAPS = {
    "+": ["-"], "-": ["+"], "*": ["+"], "/": ["*"], "=": ["<"], "<": [">", r"\le "], ">": ["<", r"\ge "],
    "(": ["["], ")": ["]"], "[": ["("], "]": [")"], "^": ["_"], "_": ["^"], "!": ["!!"], ",": ["+"], "'": ["''"],
    r"\sin": [r"\cos ", r"\sinh "], r"\cos": [r"\sin ", r"\cosh "], r"\tan": [r"\cot "], r"\cot": [r"\tan ", r"\coth "],
    r"\ln": [r"\exp "], r"\exp": [r"\ln "], r"\arcsin": [r"\arccos "], r"\sqrt": [r"\sin ", ""], r"\frac": [r"\binom"],
    r"\pi": ["e", r"\tau "], r"\pm": ["+", "-"], r"\cup": [r"\cap "], r"\cdot": ["+"], r"\times": ["+"],
    r"\infty": ["9"], r"\in": [r"\notin "], r"\dot": [r"\ddot"], r"\ddot": [r"\dot"], r"\prime": [""],
    r"\gamma": [r"\beta "], r"\omega": ["w"], r"\theta": [r"\phi "], r"\lambda": [r"\mu "], r"\hbar": ["h"],
}  # fmt: skip
_MEANINGLESS = {r"\left", r"\right", r"\text", r"\mathrm", r"\mbox", r"\begin", r"\end", "{", "}", "&", "$", "~"}


def mutants(gold: str) -> Iterator[str]:
    """Each text that comes of changing one token, each once."""
    made = {gold}
    for token in _TOKEN.finditer(gold):
        if token[0] in _MEANINGLESS or _is_in_word(gold, token.start()):
            continue
        for other in _others(token[0]):
            mutant = gold[: token.start()] + other + gold[token.end() :]
            if mutant not in made:
                made.add(mutant)
                yield mutant


def _others(token: str) -> list[str]:
    if token.isdigit():
        return [str((int(token) + 1) % 10), str((int(token) + 5) % 10), token + "0", ""]
    if len(token) == 1 and token.isalpha():
        return [chr(ord(token) + 1) if token not in "zZ" else "a", token.swapcase(), token + "_{9}", ""]
    return [*_SWAPS.get(token, []), ""]


def _is_in_word(gold: str, start: int) -> bool:
    r"""Whether the place is within a name of an environment or the words of a \text."""
    return any(
        word.start() < start < word.end() for word in re.finditer(r"\\(?:text|mbox|begin|end) ?\{[^{}]*\}", gold)
    )
