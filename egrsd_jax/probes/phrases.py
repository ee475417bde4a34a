"""Words and phrases in a completion's text: hesitations, and mentions of a reference that the student never saw."""

import re
from collections.abc import Sequence
from functools import lru_cache


def count_phrases(text: str, phrases: Sequence[str]) -> int:
    """How often any of the phrases occurs in the text as whole words, in any case; overlapping ones count once.

    Of two phrases that begin at the same place the longer one counts. Blanks in a phrase stand for any blanks.
    """
    return sum(1 for _ in _pattern(tuple(phrases)).finditer(text))


@lru_cache(maxsize=16)
def _pattern(phrases: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted(phrases, key=len, reverse=True)
    words = (r"\s+".join(map(re.escape, phrase.split())) for phrase in longest_first)
    return re.compile(rf"(?<!\w)(?:{'|'.join(words)})(?!\w)", re.IGNORECASE)
