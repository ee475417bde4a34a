r"""What surrounds a quantity without being part of its value: currency, degrees, units; and words that scale it.

Part of normalisation. Units are dropped, never converted: the problem names the unit, the golds rarely do, and no
grader that results are compared with looks at it. So `5 \text{ cm}` and `5` are one answer, and so is `5 \text{ m}`;
only powers that both answers write, cm^2 and cm^3, are compared. Minutes and seconds of a degree belong to its value.
"""

import re
from fractions import Fraction

from egrsd_jax.verify.rewrite import STYLE, rewrite, rules

_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_SCALE = "|".join(_SCALES)
_KEPT = rf"and|or|if|for|where|when|mod|[ap]\.?m\.?|percent|pct|percentage|{_SCALE}"  # these change what is said
_MATHS = rf"{_KEPT}|sin|cos|tan|cot|sec|csc|log|ln|exp|sqrt|pi|infinity|inf|choose|over|in"

_POWER = r"(?:\s*\^\s*(?:\{\s*-?\d+\s*\}|-?\d))?"
# Lone letters that are units when they are set upright behind a quantity. Upright e, i, d, R and T are mathematics.
_LETTER = r"[mgsNJWKVACLhFMHGÅ]"
_WORDS = r"(?:[A-Za-z]{2}|[A-Za-z] ?(?:[/.]|\\cdot))(?:[A-Za-z/.,()^0-9\- ]|\{-?\d+\}|\\cdot)*"
_UPRIGHT = rf"(?:\\mu ?)?{STYLE}\{{ ?\(?(?!(?:{_KEPT})(?![A-Za-z]))(?:\\mu ?)?(?:{_LETTER}|{_WORDS}) ?\}}{_POWER}"
_UPRIGHT_UNIT = rf"(?:\\frac ?\{{ ?{_UPRIGHT} ?\}} ?\{{ ?{_UPRIGHT} ?\}}|{_UPRIGHT})"
_MORE_WORDS = rf"(?:[ /](?!(?:{_MATHS})(?![A-Za-z]))[A-Za-z]+)*"
_NUMBER = r"(\d+(?:\.\d+)?)"
_MINUTES, _SECONDS = r"(?:'|\^ ?\{? ?\\prime ?\}?)", r"(?:''|\"|\^ ?\{? ?\\prime ?\\prime ?\}?)"
_END = r"(?= ?(?:$|[,;)\]]|\\\}))"

_RULES = rules(
    (r"\\\$|\$|[€£¥₹¢]|\\(?:pounds|euro|yen|cents?)(?![A-Za-z])", ""),
    (r"^\s*(?:US|USD|EUR|GBP|INR|Rs\.?) ?(?=\d)", ""),
    (
        rf"{_NUMBER} ?\^ ?\{{? ?\\circ ?\}}? ?{_NUMBER} ?{_MINUTES}(?: ?{_NUMBER} ?{_SECONDS})?",
        lambda match: _in_degrees(match),
    ),
    (r"\^\s*\{?\s*\\circ\s*\}?(?: ?(?:\\(?:text|mathrm)\s*\{\s*[CFK]\s*\}|[CF](?![A-Za-z])))?", " "),
    (r"\\degrees?(?![A-Za-z])", ""),
    (rf"{STYLE}\{{\s*(?:percent(?:age)?|pct)\s*\}}|(?<![A-Za-z\\])(?:percent(?:age)?|pct)(?![A-Za-z])|\\%", "%"),
    (rf"(?<=\d) ?{STYLE}\{{ ?({_SCALE})(?![A-Za-z])", lambda match: rf"{_power_of_ten(match)}\text{{"),
    (rf"(?<=\d) ({_SCALE})(?![A-Za-z])", lambda match: _power_of_ten(match)),
    (rf"{STYLE}\{{ ?\}}", ""),
    # Behind a quantity: `5 \text{ cm}^2`, `3\pi \mathrm{m}/\mathrm{s}`, but not the `\text{max}` of `x_{\text{max}}`.
    (rf"(?<=[\w)}}\]!|'%]) ?{_UPRIGHT_UNIT}(?: ?(?:/|\\cdot|\\times)? ?{_UPRIGHT_UNIT})*", " "),
    (rf"(?<=\d) ?(?:k|M|m)?\\(?:Omega|AA)(?![A-Za-z]) ?{_END}", ""),
    # Plain words at the end of a number: `18 dollars per day`, `5cm`.
    (rf"(?<=[\d}})%]) (?!(?:{_MATHS})(?![A-Za-z]))[A-Za-z]{{2,}}{_MORE_WORDS}{_POWER}\.?{_END}", ""),
    (rf"(?<=\d)(?:[cmk]m|[km]g|m[lL]|km/h|m/s|mph|ft|lbs?|hrs?|mins?|secs?){_POWER}\.?{_END}", ""),
)  # fmt: skip
_TRIGONOMETRIC = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
_RADIANS = rules((rf"({_NUMBER}|[A-Za-z]|\\[A-Za-z]+) ?\^ ?\{{? ?\\circ ?\}}?", r"(\\frac{\1\\pi}{180})"))
_WRITTEN_POWER = re.compile(rf"(?<=[\w)}}\]\\~]) ?{STYLE}\{{[^{{}}\d]*\}}\s*\^\s*\{{?\s*(-?\d+)")


def _in_degrees(match: re.Match[str]) -> str:
    degrees = sum(Fraction(part or 0) / 60**place for place, part in enumerate(match.groups()))
    return rf"\frac{{{degrees.numerator}}}{{{degrees.denominator}}}"


def _power_of_ten(match: re.Match[str]) -> str:
    return rf"\times 10^{{{_SCALES[match[1]]}}}"


def without_units(text: str) -> str:
    r"""Drop currency, degrees and units; write percent as `%` and `5 million` as `5\times 10^{6}`.

    Degrees are dropped where they measure the answer, and are \pi/180 where a trigonometric function is taken.
    """
    return rewrite(rewrite(text, _RADIANS) if _TRIGONOMETRIC.search(text) else text, _RULES)


def unit_power(text: str) -> str | None:
    r"""The power of the last upright unit of an answer as it was written: 2 of `15 \text{ cm}^2`; None without one."""
    powers = _WRITTEN_POWER.findall(text)
    return powers[-1] if powers else None
