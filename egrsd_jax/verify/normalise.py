r"""Answers as text: one canonical spelling for the many ways in which LaTeX and plain text write the same thing.

Station of grading: extract -> **normalise** -> grade. Nothing is computed here: `\tfrac12` becomes `\frac{1}{2}`, not 0.5.
The result is for comparison and for the parser of math-verify; it is no longer meant to be typeset.
"""

import re
from collections.abc import Callable
from functools import lru_cache

_Rule = tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]


def _rules(*pairs: tuple[str, str | Callable[[re.Match[str]], str]]) -> list[_Rule]:
    return [(re.compile(pattern), replacement) for pattern, replacement in pairs]


_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ", "0123456789-+n")

_CHARACTERS = {
    **dict.fromkeys("−–—‐‑", "-"),
    **dict.fromkeys("\u00a0\u2002\u2003\u2007\u2009\u200a\u202f\u3000", " "),
    **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff", ""),
    **dict.fromkeys("’′‘", "'"),
    **dict.fromkeys("€£¥₹", ""),
    "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "∗": "*", "÷": "/", "∕": "/", "⁄": "/",
    "√": r"\sqrt ", "∞": r"\infty ", "±": r"\pm ", "∓": r"\mp ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx ",
    "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "°": r"^\circ ",
    "，": ",", "％": "%", "（": "(", "）": ")",
    "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ", "δ": r"\delta ", "ε": r"\epsilon ", "θ": r"\theta ", "λ": r"\lambda ",
    "μ": r"\mu ", "π": r"\pi ", "ρ": r"\rho ", "σ": r"\sigma ", "τ": r"\tau ", "φ": r"\phi ", "ω": r"\omega ", "Ω": r"\Omega ",
}  # fmt: skip
_PLAIN_CHARACTERS = str.maketrans(_CHARACTERS)

# What only concerns the look: delimiters of mathematics, sizes of brackets, spacing.
_LOOK = _rules(
    (r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ]+", lambda match: f"^{{{match[0].translate(_SUPERSCRIPTS)}}}"),
    (r"\\[dtc]frac(?![A-Za-z])|\\(?:sfrac|nicefrac)(?![A-Za-z])", r"\\frac"),
    (r"\\(?:left|right)\s*\.", ""),
    (r"\\(?:left|right|middle|[bB]igg?[lrm]?)(?![A-Za-z])", ""),
    (r"\\(?:lbrace|\{)(?![A-Za-z])", r"\\{"),
    (r"\\(?:rbrace|\})(?![A-Za-z])", r"\\}"),
    (r"\\langle(?![A-Za-z])", "("),
    (r"\\rangle(?![A-Za-z])", ")"),
    (r"\\[lr]?vert(?![A-Za-z])", "|"),
    (r"\{\s*,\s*\}|,\s*\\[!,]\s*(?=\d{3})", "\u2063"),  # a comma that is surely a thousands separator
    (r"\\(?:displaystyle|textstyle|limits|nolimits|boldmath|rm|bf|it)(?![A-Za-z])", " "),
    (r"\\[!]", ""),
    (r"(?<=\d)\s*\\[,;: ]\s*(?=\d{3}(?!\d))", "\u2063"),
    (r"\\[,;:> ]|~|\\q?quad(?![A-Za-z])|\\h(?:space|skip)\*?\{[^{}]*\}|\\phantom\{[^{}]*\}", " "),
    (r"(?<!\\)\\[()\[\]]", " "),  # \( \) \[ \], but not the \\[2pt] of a matrix
    (r"\\\$|\$|\\(?:pounds|euro|yen)(?![A-Za-z])|\*\*(?=\s*$)|^\s*\*\*", ""),
    (r"\s+", " "),
)

_TEXT_COMMAND = r"\\(?:text(?:bf|it|rm|sf|tt|up|normal)?|math(?:rm|bf|it|sf|tt|normal)|boldsymbol|bm|[mh]box|underline)"
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_SCALE = "|".join(_SCALES)
_OPERAND_BEFORE = r"(?<=[\w)}\]!|'%])"  # a unit stands behind a quantity
_POWER = r"(?:\s*\^\s*(?:\{\s*-?\d+\s*\}|-?\d))?"
_UNIT_LETTERS = "mgsNJWKVACLhF"  # lone letters that are units when set upright; e, i, d, R, T are mathematics
_NOT_UNITS = rf"(?:and|or|if|for|where|when|mod|a\.?m\.?|p\.?m\.?|{_SCALE}|percent|pct)(?![A-Za-z])"
_UNIT_TEXT = (
    rf"{_TEXT_COMMAND}\s*\{{\s*(?!{_NOT_UNITS})(?:[{_UNIT_LETTERS}]|[A-Za-z/.²³°]{{2,}}[A-Za-z/.^0-9²³\- ]*?|[A-Za-z]\s*/[A-Za-z^0-9\- ]+)"
    rf"\s*\}}{_POWER}"
)
_MATHS_WORDS = (
    r"(?:and|or|if|for|where|when|mod|sin|cos|tan|cot|sec|csc|log|ln|exp|sqrt|pi|times|cdot|infty|infinity|inf|divides"
    rf"|a\.?m\.?|p\.?m\.?|{_SCALE}|percent|pct|choose|over)(?![A-Za-z])"
)

_UNITS = _rules(
    (r"\^\s*\{?\s*\\circ\s*\}?(?:\s*(?:\\(?:text|mathrm)\s*\{\s*[CFK]\s*\}|[CF](?![A-Za-z])))?", ""),
    (r"\\degree(?![A-Za-z])|\\(?:text|mathrm)\s*\{\s*\^?\s*(?:\\circ|o)\s*\}", ""),
    (rf"{_TEXT_COMMAND}\s*\{{\s*(?:percent|pct)[a-z]*\s*\}}|(?<=[\d}} ])(?:percent|pct)(?:age)?(?![A-Za-z])|\\%", "%"),
    (rf"(?<=\d) ?{_TEXT_COMMAND}\s*\{{\s*({_SCALE})\b", lambda match: _scaled(match) + r"\text{"),
    (rf"(?<=\d) ({_SCALE})\b", lambda match: _scaled(match)),
    (rf",?\s*{_TEXT_COMMAND}\s*\{{\s*,?\s*(?:and|or)\s*\}}\s*|,? (?:and|or) ", ", "),
    (rf"{_TEXT_COMMAND}\s*\{{\s*\}}", ""),
    (rf"{_OPERAND_BEFORE} ?{_UNIT_TEXT}(?:\s*(?:/|\\cdot|\\times)?\s*{_UNIT_TEXT})*", ""),
    (rf"(?<=[\d}})%]) (?!{_MATHS_WORDS})[A-Za-z]{{2,}}(?:[ /](?!{_MATHS_WORDS})[A-Za-z]+)*\.?{_POWER}$", ""),
    (rf"(?<=\d)(?:[cmk]m|[km]g|m[lL]|km/h|m/s|mph|ft|lbs?|hrs?|mins?|secs?){_POWER}$", ""),
    (r"^(?:US|USD|EUR|GBP|INR|Rs\.?) ?(?=\d)", ""),
)


def _scaled(match: re.Match[str]) -> str:
    return rf"\times 10^{{{_SCALES[match[1]]}}} "


_NUMBERS = _rules(
    (r"(?<=\d)\u2063\s*(?=\d{3})", ""),
    (r"\u2063", ","),
    # 4.5e33 is a number, though a parser of mathematics reads 4.5 times e times 33.
    (r"(?<![\w.\\])(\d+\.?\d*|\.\d+)[eE]([+-]?)0*(\d+)(?![\w.\\({])", lambda match: _scientific(match)),
    (r"(?<![\d.,])(\d{1,3})((?: \d{3})+)(?![\d])", lambda match: match[0].replace(" ", "")),
    (r"(?<=\d)\.(?!\d)", ""),
    (r"(?<!\d)\.(?=\d)", "0."),
)


def _scientific(match: re.Match[str]) -> str:
    return rf"{match[1]}\times 10^{{{match[2].replace('+', '')}{match[3]}}}"


_COMMANDS = _rules(
    (r"(?<![A-Za-z\\])(?:np|math|numpy)\.(?=[a-z])", r"\\"),  # Minerva has a gold np.arcsin(10/13)
    (r"(?<![A-Za-z\\])(sqrt|pi|infty)(?![A-Za-z])", r"\\\1"),
    (r"(?<![A-Za-z\\])(?:infinity|inf)(?![A-Za-z])", r"\\infty"),
    (rf"{_TEXT_COMMAND}\s*\{{\s*([^{{}}]*?)\s*\}}", r"\1"),
    (r"\*\*", "^"),
    (r"\*", r"\\cdot "),
    (r"<=|\\leq(?:slant)?(?![A-Za-z])", r"\\le "),
    (r">=|\\geq(?:slant)?(?![A-Za-z])", r"\\ge "),
    (r"!=|\\neq(?![A-Za-z])", r"\\ne "),
    (r"\\lt(?![A-Za-z])", "<"),
    (r"\\gt(?![A-Za-z])", ">"),
    (r"\\varnothing(?![A-Za-z])", r"\\emptyset"),
    (r"\\begin\s*\{[bBvp]?matrix\}", lambda match: match[0].replace(" ", "")),
    (r"\\prime(?![A-Za-z])", "'"),
    (r"\^\s*\{\s*('[' ]*)\}|\^\s*'", lambda match: (match[1] or "'").replace(" ", "")),
    (r"\+\s*(?=\\infty)", ""),
    (r"(?:\\(?:sim|approx)|=|:)\s*(?=\\?[\w(-])", lambda match: match[0]),
)


@lru_cache(maxsize=4096)
def normalise(answer: str) -> str:
    r"""Return the canonical spelling of a bare answer (what a box held, or a gold answer)."""
    return answer
