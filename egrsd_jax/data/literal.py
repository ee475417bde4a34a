"""Text of a problem as tokens that are text: `<|im_end|>` in it is characters, and never the end of a turn.

The chat template's own marks stay control tokens. Imports no jax.
"""

import json
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MARKS = ("\ue000", "\ue001")  # private use: around the number of an occurrence that is to stay text


def encode_rendered(
    tokenizer: "PreTrainedTokenizerBase", render: Callable[[Sequence[str]], str], texts: Sequence[str]
) -> list[int]:
    """The token ids of what `render` makes of some texts; what looks like a control token within a text is text.

    Where no text holds such a thing, these are the ids that the tokenizer itself gives.
    """
    pattern = _control_tokens(tokenizer)
    if pattern is None or not any(pattern.search(text) for text in texts):
        return list(tokenizer.encode(render(texts), add_special_tokens=False))  # the chat template has written them
    kept: list[str] = []

    def mark(match: re.Match[str]) -> str:
        kept.append(match[0])
        return f"{_MARKS[0]}{len(kept) - 1}{_MARKS[1]}"

    rendered = render([pattern.sub(mark, text) for text in texts])
    ids: list[int] = []
    vocabulary = added_tokens(tokenizer)
    for piece in re.split(f"({pattern.pattern})", rendered):
        if piece in vocabulary:
            ids.append(vocabulary[piece])
        elif piece:
            numbered = re.compile(f"{_MARKS[0]}([0-9]+){_MARKS[1]}")
            ids += text_ids(tokenizer, numbered.sub(lambda match: kept[int(match[1])], piece))
    return ids


def text_ids(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    """The token ids of a text in which nothing is a control token."""
    pattern = _control_tokens(tokenizer)
    if pattern is None or not pattern.search(text):
        return list(tokenizer.encode(text, add_special_tokens=False))
    plain = _without_added_tokens(tokenizer)
    if plain is None:  # a tokenizer in Python, which only knows special tokens from others
        return list(tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))
    return list(plain.encode(text, add_special_tokens=False).ids)


def added_tokens(tokenizer: "PreTrainedTokenizerBase") -> dict[str, int]:
    """The tokens that are cut out of a text before it is read, marks of turns among them, and their ids."""
    return cast("dict[str, int]", tokenizer.added_tokens_encoder)


@lru_cache(maxsize=4)
def _control_tokens(tokenizer: "PreTrainedTokenizerBase") -> re.Pattern[str] | None:
    """Any added token, the longest first; None where there are none."""
    added = sorted(filter(None, added_tokens(tokenizer)), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, added))) if added else None


@lru_cache(maxsize=4)
def _without_added_tokens(tokenizer: "PreTrainedTokenizerBase"):
    """The same vocabulary and pre-tokenizer with no token that is cut out of a text first."""
    from tokenizers import Tokenizer  # imported late: it comes with transformers, which takes seconds

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    return Tokenizer.from_str(json.dumps(json.loads(backend.to_str()) | {"added_tokens": [], "post_processor": None}))
