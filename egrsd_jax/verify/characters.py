"""Characters that keyboards, other scripts and programs write for LaTeX commands, as these commands.

First step of `normalise`. Full-width and mathematical letters become plain ones; fractions, indices and exponents of
one character become commands.
"""

import re
import unicodedata
from typing import Any

from egrsd_jax.verify.rewrite import rewrite, rules

_SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿˣ"
_SUBSCRIPTS = "₀₁₂₃₄₅₆₇₈₉₋₊ₙₘₖₐₑₓ"
_RAISED = str.maketrans(_SUPERSCRIPTS, "0123456789-+nx")
_LOWERED = str.maketrans(_SUBSCRIPTS, "0123456789-+nmkaex")

_COMMANDS = {
    "×": r"\times", "·": r"\cdot", "⋅": r"\cdot", "•": r"\cdot", "√": r"\sqrt", "∞": r"\infty", "±": r"\pm",
    "∓": r"\mp", "≤": r"\le", "≥": r"\ge", "⩽": r"\le", "⩾": r"\ge", "≦": r"\le", "≧": r"\ge", "≠": r"\ne",
    "≈": r"\approx", "≃": r"\approx", "≅": r"\approx", "≒": r"\approx", "∪": r"\cup", "∩": r"\cap", "∈": r"\in",
    "∉": r"\notin", "∅": r"\emptyset", "∖": r"\setminus", "∧": r"\land", "∨": r"\lor", "∀": r"\forall",
    "⌊": r"\lfloor", "⌋": r"\rfloor", "⌈": r"\lceil", "⌉": r"\rceil", "…": r"\ldots", "⋯": r"\ldots",
    "∂": r"\partial", "∑": r"\sum", "∏": r"\prod", "∫": r"\int", "ħ": r"\hbar", "ℏ": r"\hbar", "ℓ": r"\ell",
    "°": r"^\circ", "º": r"^\circ", "℃": r"^\circ C", "∠": r"\angle", "△": r"\triangle", "∛": r"\sqrt[3]",
    "∜": r"\sqrt[4]", "→": r"\to", "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}",
    "ℂ": r"\mathbb{C}", "ϕ": r"\phi", "ϵ": r"\epsilon", "ϑ": r"\vartheta", "ς": r"\varsigma", "☉": r"\odot",
    "⊙": r"\odot",
}  # fmt: skip
_GREEK_NAMES = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon phi chi psi "
    "omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega"
)
_GREEK = dict(
    zip(
        "αβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΣΦΨΩ",
        _GREEK_NAMES.split(),
        strict=True,
    )
)
_PLAIN = {
    **dict.fromkeys("−–—‐‑﹣", "-"),
    **dict.fromkeys("\u00a0\u2002\u2003\u2007\u2009\u200a\u202f\u3000", " "),
    **dict.fromkeys("\u200b\u200c\u200d\u2060\u2063\ufeff", ""),
    **dict.fromkeys("’′‘", "'"),
    **dict.fromkeys("”″", "''"),
    **dict.fromkeys("∗⁎", "*"), **dict.fromkeys("÷∕⁄", "/"), **dict.fromkeys("⟨〈", "("), **dict.fromkeys("⟩〉", ")"),
    "∣": "|", "∥": r"\|", "、": ",", "。": ".", "或": " or ", "和": " and ", "与": " and ", "及": " and ",
    "且": r"\land ",
    "\u212b": "Å", "µ": r"\mu ", "∶": ":", "，": ",",
}  # fmt: skip


def _plain(code: int) -> str:
    """The plain letter, digit or mark of a full-width or a mathematical one."""
    plain = unicodedata.normalize("NFKC", chr(code))
    return _GREEK[plain].join(("\\", " ")) if plain in _GREEK else plain


def _fraction(character: str) -> str:
    above, below = unicodedata.normalize("NFKC", character).split("⁄")
    return rf"\frac{{{above}}}{{{below}}}"


_TABLE: dict[int, Any] = {
    **{code: _plain(code) for code in (*range(0xFF01, 0xFF5F), *range(0x1D400, 0x1D800))},
    **{ord(character): _fraction(character) for character in "¼½¾⅐⅑⅒⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"},
    **{ord(character): f"{command} " for character, command in _COMMANDS.items()},
    **{ord(character): rf"\{name} " for character, name in _GREEK.items()},
    **{ord(character): text for character, text in _PLAIN.items()},
}
_SCRIPTS = rules(
    (rf"[{_SUPERSCRIPTS}]+", lambda match: f"^{{{match[0].translate(_RAISED)}}}"),
    (rf"[{_SUBSCRIPTS}]+", lambda match: f"_{{{match[0].translate(_LOWERED)}}}"),
    (r"(?:\d\u0305)+", lambda match: rf"\overline{{{match[0].replace(chr(0x305), '')}}}"),  # 0.3 with a bar above
    (r"(?<=\.)(?:\d\u0307)+", lambda match: rf"\overline{{{match[0].replace(chr(0x307), '')}}}"),
)
_ASCII = re.compile(r"[ -~]*")


def in_commands(text: str) -> str:
    """The text with LaTeX commands for other characters, without surrounding blanks."""
    if _ASCII.fullmatch(text):
        return text.strip()
    return rewrite(text.translate(_TABLE), _SCRIPTS).strip()
