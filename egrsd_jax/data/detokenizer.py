"""From tokens to text piece by piece, never half a character. Imports no jax."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_INCOMPLETE = "\ufffd"  # the decoder's text for bytes that are not a whole character


class Detokenizer:
    """The text of tokens that come a few at a time; the pieces together are the text of all of them.

    Only the tokens of the last whole piece are decoded again with new ones: they decide whether a space comes between.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", *, skip_special_tokens: bool):
        self._tokenizer, self._skip_special_tokens = tokenizer, skip_special_tokens
        self._context: list[int] = []  # the last whole piece
        self._pending: list[int] = []  # tokens after it
        self._given = 0  # characters of the text of both that were returned

    def add(self, tokens: Sequence[int]) -> str:
        """The text that has become certain. A character of which bytes are still to come is held back."""
        self._pending += tokens
        text = self._text()
        certain = text.rstrip(_INCOMPLETE)
        new = certain[self._given :]
        if new and len(certain) == len(text):
            self._context, self._pending = self._pending, []
            self._given = len(self._text())
        else:
            self._given = max(self._given, len(certain))
        return new

    def end(self) -> str:
        """The text that was held back, now that nothing more comes."""
        return self._text()[self._given :]

    def copy(self) -> "Detokenizer":
        """An independent copy, which continues from here."""
        other = Detokenizer(self._tokenizer, skip_special_tokens=self._skip_special_tokens)
        other._context, other._pending, other._given = list(self._context), list(self._pending), self._given
        return other

    def _text(self) -> str:
        tokens = [*self._context, *self._pending]
        return str(
            self._tokenizer.decode(
                tokens,
                skip_special_tokens=self._skip_special_tokens,
                clean_up_tokenization_spaces=False,  # it would change text that was returned before
            )
        )


def token_texts(tokenizer: "PreTrainedTokenizerBase", tokens: Sequence[int]) -> list[str]:
    """A text per token, special ones included, so that joined they are the whole text.

    Each is what the token adds to the text before it, so that spaces between tokens stay. Where a character is spread
    over several tokens, the last of them has it and the others are empty.
    """
    detokenizer = Detokenizer(tokenizer, skip_special_tokens=False)
    texts = [detokenizer.add([token]) for token in tokens]
    if texts:
        texts[-1] += detokenizer.end()
    return texts
