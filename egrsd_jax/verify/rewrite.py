"""Ordered rewriting rules on text, and the LaTeX patterns that several of them share."""

import re
from collections.abc import Callable

Replacement = str | Callable[[re.Match[str]], str]
Rules = tuple[tuple[re.Pattern[str], Replacement], ...]

# Commands that set their argument upright, bold or in words, and mean nothing by it.
STYLE = r"\\(?:text(?:bf|it|rm|sf|tt|up|normal)?|math(?:rm|bf|it|sf|tt|normal)|boldsymbol|bm|[mh]box|underline)\s*"

TEXT = r"\\(?:text(?:bf|it|rm|sf|tt|up|normal)?|[mh]box)\s*"


def rules(*pairs: tuple[str, Replacement]) -> Rules:
    """Compile (pattern, replacement) pairs into rules."""
    return tuple((re.compile(pattern), replacement) for pattern, replacement in pairs)


def rewrite(text: str, ordered: Rules) -> str:
    """Apply every rule once, in order."""
    for pattern, replacement in ordered:
        text = pattern.sub(replacement, text)
    return text
