"""Which tokens of a completion are words of style: judged one by one, by the text of the token alone."""

import re
from collections.abc import Callable, Sequence

import numpy as np

_EDGES = re.compile(r"^\W+|\W+$")


class StyleTokens:
    """Marks tokens whose own text, without blanks and signs around it, is one of the words; each id is decoded once."""

    def __init__(self, words: Sequence[str], decode: Callable[[list[int]], object]):
        self._words = {word.lower() for word in words}
        self._decode, self._known = decode, dict[int, bool]()

    def mask(self, tokens: Sequence[int]) -> np.ndarray:
        """Bool [T]: True on words of style."""
        for token in set(tokens) - self._known.keys():
            text = str(self._decode([token])).lower()
            self._known[token] = _EDGES.sub("", text) in self._words
        return np.array([self._known[token] for token in tokens], bool)
