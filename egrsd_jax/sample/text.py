"""Text of tokens as they come: never half a character, and thinking separated from the answer. Imports no jax."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

OPEN, CLOSE = "<think>", "</think>"
_INCOMPLETE = "\ufffd"  # what bytes that are no whole character are decoded to


class TokenText:
    """The text of a completion, piece by piece; the pieces together are the text of all its tokens.

    Only the tokens of the last whole piece are decoded again with new ones: they say whether a space comes between.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase"):
        self._tokenizer = tokenizer
        self._tokens: list[int] = []
        self._given = 0  # characters of these tokens' text

    def add(self, tokens: Sequence[int]) -> str:
        """What has become certain with these tokens. A character of which bytes are still to come is held back."""
        self._tokens += tokens
        text = self._text()
        certain = text.rstrip(_INCOMPLETE)
        new = certain[self._given :]
        if new and len(certain) == len(text):
            self._tokens = list(tokens)
            self._given = len(self._text())
        else:
            self._given = max(self._given, len(certain))
        return new

    def end(self) -> str:
        """What was held back, now that nothing more comes."""
        return self._text()[self._given :]

    def _text(self) -> str:
        return str(self._tokenizer.decode(self._tokens, skip_special_tokens=True))


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
