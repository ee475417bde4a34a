r"""Answers as text: one canonical spelling for the many ways in which LaTeX and plain text write the same thing.

Station of grading: extract -> **normalise** -> grade. Nothing is computed here: `\tfrac12` becomes `\frac{1}{2}`, not
0.5. What comes out is for comparison and for a parser, no longer for typesetting. Time grows with the square of the
length in the worst case, so `grade` turns away very long answers first.
"""

import re
from functools import lru_cache

from egrsd_jax.verify.rewrite import STYLE, rewrite, rules
from egrsd_jax.verify.units import without_units

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ", "0123456789-+n")
_CHARACTERS = str.maketrans({
    **dict.fromkeys("−–—‐‑", "-"),
    **dict.fromkeys("\u00a0\u2002\u2003\u2007\u2009\u200a\u202f\u3000", " "),
    **dict.fromkeys("\u200b\u200c\u200d\u2060\u2063\ufeff", ""),
    **dict.fromkeys("’′‘", "'"),
    **dict.fromkeys("”″", "''"),
    "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "∗": "*", "÷": "/", "∕": "/", "⁄": "/", "√": r"\sqrt ",
    "∞": r"\infty ", "±": r"\pm ", "∓": r"\mp ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx ",
    "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}",
    "°": r"^\circ ", "，": ",", "％": "%", "（": "(", "）": ")", "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ",
    "δ": r"\delta ", "ε": r"\epsilon ", "θ": r"\theta ", "λ": r"\lambda ", "μ": r"\mu ", "π": r"\pi ", "ρ": r"\rho ",
    "σ": r"\sigma ", "τ": r"\tau ", "φ": r"\phi ", "ω": r"\omega ", "Ω": r"\Omega ",
})  # fmt: skip

_THOUSANDS = "\u2063"  # the invisible separator: stands for a comma or gap that can only be inside a number

_LOOK = rules(
    (r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ]+", lambda match: f"^{{{match[0].translate(_SUPERSCRIPTS)}}}"),
    (r"\s+", " "),
    (r"\\[dtc]frac(?![A-Za-z])|\\(?:sfrac|nicefrac)(?![A-Za-z])", r"\\frac"),
    (r"\\[dt]binom(?![A-Za-z])", r"\\binom"),
    (r"\\(?:left|right) ?\.", ""),
    (r"\\(?:left|right|middle|[bB]igg?[lrm]?)(?![A-Za-z]) ?", ""),
    (r"\\lbrace(?![A-Za-z])", r"\\{"),
    (r"\\rbrace(?![A-Za-z])", r"\\}"),
    (r"\\(?:langle|lparen)(?![A-Za-z])", "("),
    (r"\\(?:rangle|rparen)(?![A-Za-z])", ")"),
    (r"\\[lr]?vert(?![A-Za-z])", "|"),
    (r"(?<=\d) ?(?:\{ ?, ?\}|, ?\\[!,]|\\[,;:]) ?(?=\d{3}(?!\d))", _THOUSANDS),
    (r"\{ ?, ?\}", ","),
    (r"(?<!\\)\\!", ""),
    (r"\\(?:displaystyle|textstyle|limits|nolimits|rm|bf|it)(?![A-Za-z])|\\h(?:space|skip)\*? ?\{[^{}]*\}", " "),
    (r"(?<!\\)\\[,;:> ]|~|\\q?quad(?![A-Za-z])|(?<!\\)\\[()\[\]]", " "),  # \[ opens mathematics; \\[2pt] does not
    (r"^ ?\*\*|\*\* ?$", ""),
    (r" +", " "),
    (rf"^ ?{STYLE}\{{([^{{}}]*\d[^{{}}]*)\}} ?$", r"\1"),
)  # fmt: skip

_NUMBERS = rules(
    (_THOUSANDS, ""),
    (r"(?<![\d.,])\d{1,3}(?: \d{3})+(?!\d)", lambda match: match[0].replace(" ", "")),
    # 4.5e33 is a number, though a parser of mathematics reads 4.5 times e times 33; 2e+1 is no number, as 2e+01 is.
    (r"(?<![\w.\\])(?!\d+e\+\d(?!\d))(\d+\.?\d*|\.\d+)[eE]\+?(-?\d+)(?![\w\\({]|\.\d)", r"\1\\times 10^{\2}"),
    (r"(?<=\d)\.(?!\d| ?\\overline)", ""),
    (r"(?<!\d)\.(?=\d|\\overline)", "0."),
)
_SEPARATED = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?![\d,])")

_SPELLING = rules(
    (rf",? ?{STYLE}\{{ ?,? ?(?:and|or) ?\}} ?|,? (?:and|or) ", ","),
    (rf"([_^]) ?{STYLE}(\{{[^{{}}]*\}})", r"\1\2"),
    (rf"{STYLE}\{{ ?([^{{}}]*?) ?\}}", r"\1"),
    (r"(?<![A-Za-z\\])(?:np|numpy|math)\.(?=[a-z])", r"\\"),  # a gold of Minerva is np.arcsin(10/13)
    (r"(?<![A-Za-z\\])(sqrt|pi|infty)(?![A-Za-z])", r"\\\1 "),
    (r"(?<![A-Za-z\\])inf(?:inity)?(?![A-Za-z])", r"\\infty "),
    (r"\*\*", "^"),
    (r"\*|(?<=\d) [xX] (?=\d)", r"\\cdot "),
    (r"<=|\\leq(?:slant)?(?![A-Za-z])", r"\\le "),
    (r">=|\\geq(?:slant)?(?![A-Za-z])", r"\\ge "),
    (r"!=|\\neq(?![A-Za-z])", r"\\ne "),
    (r"\\lt(?![A-Za-z])", "<"),
    (r"\\gt(?![A-Za-z])", ">"),
    (r"\\varnothing(?![A-Za-z])|\\\{ ?\\\}", r"\\emptyset "),
    (r"(\\(?:begin|end)) ?\{ ?[bBp]matrix ?\}", r"\1{matrix}"),
    (r"\\prime(?![A-Za-z])", "'"),
    (r"\^ ?(?:\{ ?((?:' ?)+)\}|('+))", lambda match: (match[1] or match[2]).replace(" ", "")),
    (r"\+ ?(?=\\infty)", ""),
    (r"^[A-Za-z] ?\\in(?![A-Za-z])", ""),
)


_SPACES = rules(
    (r" +", " "),
    (r"(\\[A-Za-z]+) (?=[A-Za-z])", rf"\1{_THOUSANDS}"),  # kept: \cos x
    (r"(?<!\d) | (?!\d)", ""),  # kept: a gap between two digits, 3 4 is not 34
    (_THOUSANDS, " "),
)

_SCRIPTS = rules(
    (r"([_^])([+-]?\d+|[A-Za-z]|\\[A-Za-z]+)", r"\1{\2}"),
    (r"\^\(([^()]*)\)", r"^{\1}"),
)

_EDGES = rules(
    (r"^(?:[=:]|\\(?:approx|sim)(?![A-Za-z]))+", ""),
    (r"(?:[.,;:]|\\\\)+$", ""),
    (r"^\+(?=[\d\\.])", ""),
    (r"^(?:\(([A-Z])\)|([A-Z])\))$", r"\1\2"),  # the choice (B) or B)
)

_WORDS = re.compile(rf"\s*{STYLE}\{{\s*([A-Za-z][A-Za-z'. -]*[A-Za-z])\.?\s*\}}\s*\.?\s*")
# \\{t \\mid t>2\\}, and what must and must not stand in its condition.
_DESCRIBED = re.compile(r"^\\\{([A-Za-z])(?:\\in\\mathbb\{R\})?(?:\\mid ?|:|\|)(.*)\\\}$")
_NAME = re.compile(r"(?<![\\A-Za-z])[A-Za-z](?![A-Za-z])")
_ORDER = re.compile(r"[<>]|\\(?:le|ge|ne)(?![A-Za-z])")
_NO_INEQUALITY = re.compile(r"[,;:=]|\\(?:in|mid|mathbb|c[au]p|land)(?![A-Za-z])|(?<![\\A-Za-z])[A-Za-z]{2}")
_TOKEN = re.compile(r"\\[A-Za-z]+|\d+|\S")


@lru_cache(maxsize=4096)
def normalise(answer: str, *, thousands: bool = True) -> str:
    r"""Return the canonical spelling of a bare answer: what a box held, or a gold answer.

    An answer that is nothing but words set as text comes back as `\text{...}` in lower case. With `thousands` false a
    comma always separates: `1,234` is then two numbers.
    """
    text = answer.translate(_CHARACTERS).strip()
    if words := _WORDS.fullmatch(text):
        return rf"\text{{{' '.join(words[1].lower().split())}}}"
    text = rewrite(without_units(rewrite(text, _LOOK)), _NUMBERS)
    if thousands:
        text = _join_thousands(text)
    text = rewrite(rewrite(text, _SPELLING), _SPACES)
    text = _with_braces(text, r"\frac", 2)
    text = _with_braces(text, r"\binom", 2)
    text = _with_braces(text, r"\sqrt", 1)
    text = _without_outer_braces(rewrite(rewrite(text, _SCRIPTS), _EDGES))
    return _DESCRIBED.sub(_inequality, text)


def _inequality(described: re.Match[str]) -> str:
    """The inequality in x that describes a set of real numbers; the set as it is where something else does."""
    name, condition = described.groups()
    if set(_NAME.findall(condition)) != {name} or not _ORDER.search(condition) or _NO_INEQUALITY.search(condition):
        return described[0]
    return _NAME.sub("x", condition)


def _join_thousands(text: str) -> str:
    """Write 1,234,567 as 1234567, but not within brackets, where commas separate coordinates."""
    depth = _bracket_depths(text)
    return _SEPARATED.sub(lambda match: match[0] if depth[match.start()] else match[0].replace(",", ""), text)


def _bracket_depths(text: str) -> list[int]:
    depths, depth = [], 0
    for position, character in enumerate(text):
        depths.append(depth)
        escaped = position > 0 and text[position - 1] == "\\"
        if character in "([" or (escaped and character == "{"):
            depth += 1
        elif character in ")]" or (escaped and character == "}"):
            depth = max(depth - 1, 0)
    return depths


def _with_braces(text: str, command: str, arguments: int) -> str:
    r"""Put the arguments of every `command` into braces: `\frac12`, `\frac{1}2` and `\frac 1 2` become `\frac{1}{2}`.

    From the last to the first, so that arguments are in order before the command that they belong to.
    """
    for match in reversed(list(re.finditer(re.escape(command) + r"(?![A-Za-z])(?:\[[^\[\]]*\])?", text))):
        position = match.end()
        for _ in range(arguments):
            if (argument := _argument(text, position, whole_number=arguments == 1)) is None:
                break
            end, content = argument
            text = f"{text[:position]}{{{content}}}{text[end:]}"
            position += len(content) + 2
    return text


def _argument(text: str, start: int, *, whole_number: bool) -> tuple[int, str] | None:
    r"""Where the argument at `start` ends, and what it holds; None where nothing or something broken stands there.

    Without braces an argument is one token. `\frac12` has the digits as two arguments; `\sqrt13` means the root of 13.
    """
    while text[start : start + 1] == " ":
        start += 1
    if (token := _TOKEN.match(text, start)) is None or token[0] in "})],":
        return None
    if token[0] in "{(":
        end = _closing(text, start)
        return None if end is None else (end + 1, text[start + 1 : end])
    end = start + 1 if token[0].isdigit() and not whole_number else token.end()
    while token[0].startswith("\\") and text[end : end + 1] == "{" and (closing := _closing(text, end)) is not None:
        end = closing + 1  # \sqrt\frac{1}{2}: the token brings its own arguments
    return end, text[start:end]


def _closing(text: str, start: int) -> int | None:
    """The position of the bracket that closes the one at `start`."""
    opening, closing = ("{", "}") if text[start] == "{" else ("(", ")")
    depth = 0
    for position in range(start, len(text)):
        if text[position] == opening:
            depth += 1
        elif text[position] == closing:
            depth -= 1
            if depth == 0:
                return position
    return None


def _without_outer_braces(text: str) -> str:
    while text.startswith("{") and _closing(text, 0) == len(text) - 1:
        text = text[1:-1]
    return text
