r"""What the probes look for in a completion's text: phrases, stretches of the reference, where the answer is first
stated, and tokens of style."""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

_BOX = re.compile(r"\\boxed\s*\{")
_STATED = re.compile(r"\banswer(?:\s+(?:is|must\s+be|should\s+be|will\s+be)|\s*[:=])", re.IGNORECASE)
_DRESSING = re.compile(r"[\s$*({\[:]*(?:\\[(\[])?\s*")  # what may be between such words and the value itself
_CONTINUES = re.compile(r"\w|[.,]\d|\s*[-+*/^=]\s*\w")  # after the value: it is another, longer one
_WORD = re.compile(r"\\?\w+|[^\w\s]")  # words, numbers, LaTeX commands, single signs
_EDGES = re.compile(r"^\W+|\W+$")


def count_phrases(text: str, phrases: Sequence[str]) -> int:
    """How often any of the phrases is in the text as whole words, in any case; overlapping ones count once.

    Of two phrases that begin at the same place the longer one counts. Blanks in a phrase match any blanks.
    """
    return sum(1 for _ in _pattern(tuple(phrases)).finditer(text))


def shared_stretches(completion: str, reference: str, problem: str, n: int) -> tuple[int, int]:
    """(shared, all): the completion's stretches of n words that the reference has too, and all of them.

    Stretches that the problem has are left out of both: to quote the problem is no leak. Case and blanks do not count.
    """
    quoted, shown = set(_stretches(problem, n)), set(_stretches(reference, n))
    own = [stretch for stretch in _stretches(completion, n) if stretch not in quoted]
    return sum(stretch in shown for stretch in own), len(own)


def first_stated(text: str, answer: str) -> float | None:
    r"""The share of the text, 0 to 1, before its answer is first stated as an answer: in `\boxed{}`, or after words
    such as "the answer is". None where it never is.

    `answer` is the one that the completion ends with, correct or wrong.
    """
    starts = [match.start() for match in _BOX.finditer(text) if _begins_with(text[match.end() :], answer)]
    for match in _STATED.finditer(text):
        dressed = _DRESSING.match(text, match.end())
        start = dressed.end() if dressed else match.end()
        boxed = _BOX.match(text, start)
        if _begins_with(text[boxed.end() if boxed else start :], answer):
            starts.append(match.start())
    return min(starts) / len(text) if starts else None


class StyleTokens:
    """Marks tokens whose own text, without blanks and signs around it, is one of the words; each id is decoded once."""

    def __init__(self, words: Sequence[str], decode: Callable[[list[int]], object]):
        self._words = {word.lower() for word in words}
        self._decode, self._is_style = decode, dict[int, bool]()

    def mask(self, tokens: Sequence[int]) -> np.ndarray:
        """Bool [T]: True on words of style."""
        for token in set(tokens) - self._is_style.keys():
            text = str(self._decode([token])).lower()
            self._is_style[token] = _EDGES.sub("", text) in self._words
        return np.array([self._is_style[token] for token in tokens], bool)


@lru_cache(maxsize=16)
def _pattern(phrases: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted(phrases, key=len, reverse=True)
    words = (r"\s+".join(map(re.escape, phrase.split())) for phrase in longest_first)
    return re.compile(rf"(?<!\w)(?:{'|'.join(words)})(?!\w)", re.IGNORECASE)


def _stretches(text: str, n: int) -> list[tuple[str, ...]]:
    words = _WORD.findall(text.lower())
    return list(zip(*(words[start:] for start in range(n)), strict=False))  # the shortest of these ends it


def _begins_with(text: str, answer: str) -> bool:
    """Whether the text begins with this very value."""
    text, answer = text.lstrip(), answer.strip()
    return bool(answer) and text.startswith(answer) and not _CONTINUES.match(text, len(answer))
