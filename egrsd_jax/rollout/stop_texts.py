"""Stop texts: which token of a completion completes one. Imports no jax."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from egrsd_jax.data.detokenizer import Detokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class StopTexts:
    """Reads one completion, a few tokens at a time. Special tokens count as they are written."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", stops: Sequence[str]):
        self._stops, self._longest = tuple(stops), max(map(len, stops))
        self._detokenizer = Detokenizer(tokenizer, skip_special_tokens=False)
        self._tail = ""  # the end of the text so far, in which a stop text may have begun

    def end(self, new: Sequence[int]) -> int | None:
        """How many of the new tokens it takes to complete a stop text; None where they complete none."""
        before, text = self._detokenizer.copy(), self._tail
        whole = text + self._detokenizer.add(new)
        self._tail = whole[len(whole) - self._longest + 1 :] if len(whole) >= self._longest else whole
        if not self._in(whole):
            return None
        for count in range(1, len(new)):
            text += before.add([new[count - 1]])
            if self._in(text):
                return count
        return len(new)

    def _in(self, text: str) -> bool:
        return any(stop in text for stop in self._stops)
