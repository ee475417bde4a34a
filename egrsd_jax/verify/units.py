r"""What surrounds a quantity without being part of its value: currency, degrees, units; and words that scale it.

Part of normalisation, which drops units: the problem names the unit, the golds rarely do. So `5 \text{ cm}` and `5`
are one answer. Where both answers write a unit, `written_unit` finds it, and `grade` compares the two (`measures`).
Minutes and seconds of a degree belong to its value.
"""

import re
from fractions import Fraction

from egrsd_jax.verify.measures import measure
from egrsd_jax.verify.rewrite import STYLE, rewrite, rules

_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_SCALE = "|".join(_SCALES)
_KEPT = rf"and|or|if|for|where|when|mod|base|[ap]\.?m\.?|percent|pct|percentage|{_SCALE}"  # these change what is said
_MATHS = rf"{_KEPT}|sin|cos|tan|cot|sec|csc|log|ln|exp|sqrt|pi|infinity|inf|choose|over|in"

_POWER = r"(?:\s*\^\s*(?:\{\s*-?\d+\s*\}|-?\d))?"
# Lone letters that are units when they are set upright behind a quantity. Upright e, i, d, R and T are mathematics.
_LETTER = r"(?:[mgsNJWKVACLhFMHGÅ]|\\AA|\\Omega)"
_WORDS = r"(?:[A-Za-z]{2}|[A-Za-z] ?(?:[/.^]|\\cdot)|[A-Za-z] (?=[A-Za-z]))(?:[A-Za-z/.,()^0-9\- ]|\{-?\d+\}|\\cdot)*"
_UPRIGHT = rf"(?:\\mu ?)?{STYLE}\{{ ?\(?(?!(?:{_KEPT})(?![A-Za-z]))(?:\\mu ?)?(?:{_LETTER}|{_WORDS}) ?\}}{_POWER}"
_UPRIGHT_UNIT = rf"(?:\\frac ?\{{ ?{_UPRIGHT} ?\}} ?\{{ ?{_UPRIGHT} ?\}}|{_UPRIGHT})"
_MORE_WORDS = rf"(?:[ /](?!(?:{_MATHS})(?![A-Za-z]))[A-Za-z]+)*"
_NUMBER = r"(\d+(?:\.\d+)?)"
_MINUTES, _SECONDS = r"(?:'|\^ ?\{? ?\\prime ?\}?)", r"(?:''|\"|\^ ?\{? ?\\prime ?\\prime ?\}?)"
_STAR = r"(?:\\odot|\\oplus|\\bigodot|\\text ?\{ ?sun ?\}|sun)"
_END = r"(?= ?(?:$|[,;)\]]|\\\}))"

# Units at the end of a quantity, and whether they are set upright: `5 \text{ cm}^2`, `3\pi \mathrm{m}/\mathrm{s}`,
# but not the `\text{max}` of `x_{\text{max}}`; masses of stars; words at the end of a number: `18 dollars per day`.
_UNITS = (
    (rf"(?<=[\w)}}\]!|'%]) ?{_UPRIGHT_UNIT}(?: ?(?:/|\\cdot|\\times)? ?{_UPRIGHT_UNIT})*", True),
    (rf"(?<=[\d}}]) ?(?:{STYLE}\{{ ?)?[MLR]\}}? ?_ ?\{{? ?{_STAR} ?\}}? ?{_END}", True),
    (rf"(?<=\d) ?(?:{STYLE}\{{ ?[kMm] ?\}} ?|k|M|m)?(?:\\(?:Omega|AA)(?![A-Za-z])|Å) ?{_END}", False),
    (rf"(?<=[\d}})%]) (?!(?:{_MATHS})(?![A-Za-z]))[A-Za-z]{{2,}}{_MORE_WORDS}{_POWER}\.?{_END}", False),
    (rf"(?<=\d)(?:[cmkn]m|[km]g|m[lL]|km/h|m/s|mph|ft|lbs?|hrs?|mins?|secs?){_POWER}\.?{_END}", False),
)
_UNIT_AT_THE_END = tuple(re.compile(rf"{pattern} ?\.?$") for pattern, _ in _UNITS)

_RULES = rules(
    (rf"{STYLE}\{{ ?(\^ ?\\circ) ?\}}", r"\1"),
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
    *((pattern, " " if is_upright else lambda match: _without_words(match)) for pattern, is_upright in _UNITS),
)  # fmt: skip
_TRIGONOMETRIC = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])(?! ?\^ ?\{ ?-1)")
_RADIANS = rules((rf"({_NUMBER}|[A-Za-z]|\\[A-Za-z]+) ?\^ ?\{{? ?\\circ ?\}}?", r"(\\frac{\1\\pi}{180})"))


_PRODUCTS = {"abc", "bcd", "xyz", "yzx", "zxy", "pqr", "qrs", "rst", "uvw", "mnp", "ijk", "abcd", "rsin", "rcos"}


def _in_degrees(match: re.Match[str]) -> str:
    degrees = sum(Fraction(part or 0) / 60**place for place, part in enumerate(match.groups()))
    return rf"\frac{{{degrees.numerator}}}{{{degrees.denominator}}}"


def _without_words(match: re.Match[str]) -> str:
    """Nothing, where plain letters behind a number are a unit or a word; as they are where they may be a product."""
    first = re.match(r" ?([A-Za-z]+)", match[0])
    is_product = first is not None and (len(first[1]) == 2 or first[1].lower() in _PRODUCTS) and not measure(match[0])
    return match[0] if is_product else ""


def _power_of_ten(match: re.Match[str]) -> str:
    return rf"\times 10^{{{_SCALES[match[1]]}}}"


def without_units(text: str) -> str:
    r"""Drop currency, degrees and units; write percent as `%` and `5 million` as `5\times 10^{6}`.

    Degrees are dropped where they measure the answer, and are \pi/180 where a trigonometric function is taken.
    """
    return rewrite(rewrite(text, _RADIANS) if _TRIGONOMETRIC.search(text) else text, _RULES)


def written_unit(text: str) -> str | None:
    r"""The unit at the end of an answer without layout: ` \text{ cm}^2` of `15 \text{ cm}^2`; None without one."""
    if re.match(r"\\?\$ ?[\d.]", text):
        return "$"
    for pattern in _UNIT_AT_THE_END:
        if match := pattern.search(text):
            return match[0]
    return None
