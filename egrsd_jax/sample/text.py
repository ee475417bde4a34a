"""Text as it comes, in pieces: thinking and the rest. Imports no jax."""

from typing import NamedTuple

OPEN, CLOSE = "<think>", "</think>"


class Piece(NamedTuple):
    """Some text, and whether it is thinking; the marks themselves are."""

    text: str
    thinking: bool


class ThinkingText:
    """Separates thinking, <think> to </think>, from the rest, also where a mark comes in parts.

    Args:
        thinking: whether the prompt has already begun it.
    """

    def __init__(self, *, thinking: bool = False):
        self._thinking = thinking
        self._held = ""  # what may be the beginning of a mark

    def add(self, text: str) -> list[Piece]:
        """The text in pieces, but for an end that may be the beginning of a mark."""
        text, pieces = self._held + text, []
        while (mark := CLOSE if self._thinking else OPEN) in text:
            before, _, text = text.partition(mark)
            pieces += [Piece(before, self._thinking), Piece(mark, True)]
            self._thinking = not self._thinking
        held = next((size for size in range(len(mark) - 1, 0, -1) if text.endswith(mark[:size])), 0)
        text, self._held = text[: len(text) - held], text[len(text) - held :]
        return [piece for piece in (*pieces, Piece(text, self._thinking)) if piece.text]

    def end(self) -> list[Piece]:
        """What was held back, now that nothing more comes."""
        return [Piece(self._held, self._thinking)] if self._held else []
