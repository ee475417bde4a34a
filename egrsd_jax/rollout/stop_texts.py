"""Where a stop text first stands in what is being written. Imports no jax."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def end_of_text(
    tokenizer: "PreTrainedTokenizerBase", before: Sequence[int], new: Sequence[int], stops: Sequence[str]
) -> int | None:
    """How many of the `new` tokens it takes until one of the texts stands there, or None where none does yet.

    A text may have begun in the tokens `before`, which hold none. Special tokens count as they are written.
    """
    longest = max(map(len, stops))
    window = list(before[-4 * longest :])  # a character may take several byte tokens: four in UTF-8

    def holds(count: int) -> bool:
        text = tokenizer.decode([*window, *new[:count]], skip_special_tokens=False)
        return any(stop in text for stop in stops)

    if not holds(len(new)):
        return None
    return next(count for count in range(len(new) + 1) if holds(count))
