r"""What a computer algebra system must not be given: inputs that are known to run for ever or to fill the memory.

Cheap checks of the spelling alone, on normalised text. They catch what is known; what is not is for the deadline of
the pool.
"""

import math
import re
from functools import lru_cache

MAX_RAW_LENGTH = 2_000  # characters of an answer as it was written; the longest gold of six benchmarks has 191
MAX_LENGTH = 1_000  # characters after normalisation
_MAX_NESTING = 25  # brackets; the parser needs a second for 20
_MAX_ITEMS = 40
_MAX_EXPONENT = 20_000
_MAX_FACTORIAL = 2_000

_BRACKET = re.compile(r"[({\[]|[)}\]]")
_INTEGER_POWER = re.compile(r"(\d+(?:\.\d+)?|\\pi|(?<![\\A-Za-z])e)\^\{?-?(\d+)\}?")
_GROUP_POWER = re.compile(r"[)}\]]\^\{-?(\d+)\}")


@lru_cache(maxsize=4096)
def hazard(text: str) -> str | None:
    """Say why this normalised text should not be evaluated; None where nothing speaks against it."""
    if len(text) > MAX_LENGTH:
        return f"it is longer than {MAX_LENGTH:,} characters"
    if _nesting(text) > _MAX_NESTING:
        return f"its brackets are nested deeper than {_MAX_NESTING}"
    if text.count("|") > _MAX_NESTING:
        return f"it has more than {_MAX_NESTING} bars"  # each may open or close
    if text.count(",") + text.count(";") + text.count("&") >= _MAX_ITEMS:
        return f"it has more than {_MAX_ITEMS} items"
    if any(int(digits) > _MAX_FACTORIAL for digits in re.findall(r"(\d{1,300})!", text)) or re.search(
        r"!!!|![)}\]]+!",
        text,  # 5!! is 5 times 3
    ):
        return "it holds a huge factorial"
    if re.search(r"\\binom\{\d{5,}\}", text):
        return "it holds a huge binomial coefficient"
    if re.search(r"\dE[+-]?\d{4}", text) or _exponent_is_huge(text):  # the parser takes 2E99999 for a number
        return f"it holds a power tower or an exponent over {_MAX_EXPONENT:,}"
    return None


def _nesting(text: str) -> int:
    depth = deepest = 0
    for bracket in _BRACKET.finditer(text):
        depth += 1 if bracket[0] in "({[" else -1
        deepest = max(deepest, depth)
    return deepest


def _exponent_is_huge(text: str) -> bool:
    """Whether some exponent, or the product of the exponents of ((a^b)^c)^d, is too large to be multiplied out."""
    product, end = 1, -1
    for power in _GROUP_POWER.finditer(text):
        product = max(1, int(power[1][:9])) * (product if power.start() == end else 1)
        end = power.end()
        if product > _MAX_EXPONENT:
            return True
    return any(_is_huge(exponent, depth=1) for exponent in _exponents(text))


def _is_huge(exponent: str, depth: int) -> bool:
    if depth > 2 or any(int(digits[:9]) > _MAX_EXPONENT for digits in re.findall(r"(?<![\d.])\d+", exponent)):
        return True
    for base, power in _INTEGER_POWER.findall(exponent):
        value = float(base) if base[0].isdigit() else 4.0
        if min(int(power[:9]), _MAX_EXPONENT) * math.log10(max(value, 1.0)) > math.log10(_MAX_EXPONENT):
            return True
    return any(_is_huge(inner, depth + 1) for inner in _exponents(exponent))


def _exponents(text: str) -> list[str]:
    """The content of every outermost `^{...}`."""
    contents, position = [], 0
    while (start := text.find("^{", position)) >= 0:
        depth, end = 1, start + 2
        while end < len(text) and depth:
            depth += (text[end] == "{") - (text[end] == "}")
            end += 1
        contents.append(text[start + 2 : end - 1 if depth == 0 else end])
        position = end
    return contents
