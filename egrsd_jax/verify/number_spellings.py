r"""Numbers as models write them: thousands separators, mixed numbers, repeating decimals, e-notation, bases.

Rules of `normalise`, in which `_THOUSANDS` stands for a separator that can only be inside a number.
"""

import re

from egrsd_jax.verify.rewrite import STYLE, rewrite, rules

THOUSANDS = "\u2063"  # the invisible separator: stands for a comma or gap that can only be inside a number

_BASES = {
    "two": 2, "binary": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "octal": 8, "nine": 9,
    "ten": 10, "eleven": 11, "twelve": 12, "sixteen": 16, "hex": 16,
}  # fmt: skip
_BASE = rf"(\d{{1,2}}|{'|'.join(_BASES)})"
_DIGITS = r"(?<![\w.\\])([0-9A-F]*\d[0-9A-F]*)"

LOOK = rules(
    (r"(?<=\d) ?(?:\{ ?, ?\}|, ?\\[!,]|\\[,;:]) ?(?=\d{3}(?!\d))", THOUSANDS),
    # Bases, before `base` is taken for a unit: (52)_8, 52_{\text{eight}}, 52 base 8, 52 (base eight).
    (rf"(?:\(|\\overline ?\{{){_DIGITS}[)}}] ?(?=_)", r"\1"),
    (rf"{_DIGITS} ?_ ?\{{ ?{STYLE}\{{ ?\(?(?:base[ -]?)?{_BASE}\)? ?\}} ?\}}", lambda match: _in_base(match)),
    (rf"{_DIGITS} ?_ ?\{{ ?{STYLE}\{{ ?base ?\}} ?{_BASE} ?\}}", lambda match: _in_base(match)),
    (rf"{_DIGITS} ?_ ?\{{ ?\(?(?:base[ -]?)?{_BASE}\)? ?\}}", lambda match: _in_base(match)),
    (rf"{_DIGITS} ?_ ?{STYLE}\{{ ?(?:base[ -]?)?{_BASE} ?\}}", lambda match: _in_base(match)),
    (rf"{_DIGITS}[ ,~]*{STYLE}\{{,? ?\(?(?:in )?base[ -]?\}} ?\(?{_BASE}(?!\w)\)?", lambda match: _in_base(match)),
    (rf"{_DIGITS}[ ,~]*{STYLE}\{{,? ?\(?(?:in )?base[ -]?{_BASE}\)? ?\}}", lambda match: _in_base(match)),
    (rf"{_DIGITS},? \(?(?:in )?base[ -]?{_BASE}(?!\w)\)?", lambda match: _in_base(match)),
    # Repeating decimals: 0.\bar{6}, 0.\dot{1}4\dot{2}, 0.(3), 0.333...
    (r"(\d*\.\d*) ?\\(?:bar|overline|dot|widebar) ?(?:\{ ?(\d+) ?\}|(\d))(?![^.]*\\dot)", r"\1\\overline{\2\3}"),
    (r"(\d*\.\d*) ?\\dot ?\{?(\d)\}?(\d*) ?\\dot ?\{?(\d)\}?", r"\1\\overline{\2\3\4}"),
    (r"(?<!\d)(\d*\.)\((\d+)\)", r"\1\\overline{\2}"),
    (r"^(\d*\.\d+)\((\d+)\)$", r"\1\\overline{\2}"),
    (r"(\d*\.\d*?)(\d{1,6}?)\2\2+(?:\\ldots|\.\.\.)", r"\1\\overline{\2}"),
    # Mixed numbers in plain text: 2 3/8.
    (r"(?<![\d./\w}]) ?(\d+)(?: |~|\\[ ,;:])+(?:and )?(\d+)/(\d+)(?![\d.])", lambda match: _mixed(match)),
)  # fmt: skip
NUMBERS = rules(
    (THOUSANDS, ""),
    (r"(?<![\d.,])\d{1,3}(?: \d{3})+(?!\d)", lambda match: match[0].replace(" ", "")),
    # 4.5e33 is a number, though a parser of mathematics reads 4.5 times e times 33; 2e+1 is no number, as 2e+01 is.
    (r"(?<![\w.\\])(?!\d+e\+\d(?!\d))(\d+\.?\d*|\.\d+)[eE]\+?(-?\d+)(?![\w\\({]|\.\d)", r"\1\\times 10^{\2}"),
    (r"(?<=\d)\.(?!\d| ?\\overline)", ""),
    (r"(?<!\d)\.(?=\d|\\overline)", "0."),
)
_SEPARATED = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?![\d,])")
_SEPARATED_IN_A_LIST = re.compile(r"(?<![\d.])[1-9]\d{0,2}(?:,\d{3})+(?!\d)")


def _in_base(match: re.Match[str]) -> str:
    return f"{match[1]}_{{{_BASES.get(match[2], match[2])}}}"


def _mixed(match: re.Match[str]) -> str:
    """A whole number and a proper fraction; 1 234/5 may be anything."""
    whole, above, below = match.groups()
    return rf"{whole}\frac{{{above}}}{{{below}}}" if int(above) < int(below) else match[0]


def join_thousands(text: str, *, everywhere: bool) -> str:
    """Write 1,234,567 as 1234567, within brackets, where commas separate coordinates, only if `everywhere` is set."""
    if everywhere:
        return _SEPARATED_IN_A_LIST.sub(lambda match: match[0].replace(",", ""), text)
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


def spelled(text: str) -> str:
    """Numbers in one spelling, thousands separators excepted that may also separate two numbers."""
    return rewrite(text, NUMBERS)
