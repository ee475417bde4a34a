r"""What LaTeX says about looks alone: size, colour, spaces, environments, siunitx; taken away or written plainly.

Second step of `normalise`, after the characters.
"""

import re

from egrsd_jax.verify.functions import FUNCTIONS, SYNONYMS
from egrsd_jax.verify.rewrite import STYLE, Rules, rewrite, rules

_LOGARITHMS = ("log", "ln", "lg", "exp")
_KNOWN = {command[1:] for command in FUNCTIONS} | set(_LOGARITHMS)
_NAMES = "|".join(sorted(_KNOWN | set(SYNONYMS), key=len, reverse=True))
# Words that are functions only before brackets: min may be minutes, Re a name.
_ONLY_BEFORE_BRACKETS = "max|min|gcd|lcm|GCD|LCM|hcf|sh|ch|th|cth|tg|ctg|sign|arg|Re|Im|floor|ceil|ceiling|abs|sgn|erf"
_PLAIN_NAMES = "|".join(sorted((_KNOWN | set(SYNONYMS)) - set(_ONLY_BEFORE_BRACKETS.split("|")), key=len, reverse=True))
_SIZES = (
    "displaystyle|textstyle|scriptstyle|scriptscriptstyle|limits|nolimits|rm|bf|it|sf|tt|boldmath|tiny|scriptsize|"
    "footnotesize|small|normalsize|large|Large|LARGE|huge|Huge|mathstrut|strut|null|nobreak|allowbreak|hfill|centering"
)
_LINES = r"aligned|align\*?|split|gathered|gather\*?|equation\*?|multline\*?|cases"
_BOLD = "mathbf|boldsymbol|bm|vec|hat|widehat|mathbf|vb"
_NEARLY = r"[Aa]bout|[Aa]pprox(?:imately|\.)?|[Rr]oughly|[Aa]round|[Nn]early"
_PARAMETERS = r"(?: ?\[[^\[\]]*\])?"
_SI_UNITS = {
    "meter": "m", "metre": "m", "second": "s", "gram": "g", "kilogram": "kg", "newton": "N", "joule": "J",
    "watt": "W", "volt": "V", "ampere": "A", "kelvin": "K", "hertz": "Hz", "pascal": "Pa", "ohm": "ohm",
    "coulomb": "C", "tesla": "T", "mole": "mol", "electronvolt": "eV", "angstrom": "angstrom", "degree": "degrees",
    "celsius": "C", "centimeter": "cm", "centi": "c", "milli": "m", "micro": "u", "nano": "n", "kilo": "k", "mega": "M",
    "giga": "G", "per": "/", "squared": "^2", "cubed": "^3", "minute": "min", "hour": "hours", "liter": "L",
}  # fmt: skip

LOOK: Rules = rules(
    (r"\s+", " "),
    (rf"\\(?:SI|qty){_PARAMETERS} ?\{{([^{{}}]*)\}} ?\{{([^{{}}]*)\}}", lambda match: _quantity(match)),
    (rf"\\(?:num|ang){_PARAMETERS} ?\{{([^{{}}]*)\}}", r"\1"),
    (rf"\\(?:si|unit){_PARAMETERS} ?\{{([^{{}}]*)\}}", lambda match: rf"\text{{{_unit(match[1])}}}"),
    # Words for a rounded value, and arrows before a conclusion.
    (rf"^ ?(?:{STYLE}\{{ ?)?(?:{_NEARLY}) ?\}}?(?= ?[\d\\.$-])", ""),
    (r"^ ?(?:\\(?:therefore|Rightarrow|Longrightarrow|implies|because)(?![A-Za-z]) ?)+", ""),
    (r"\\(?:fbox|framebox|mathord|mathop|mathrel|ensuremath|underbrace|overbrace|smash)(?![A-Za-z])", ""),
    (r"\\equiv(?![A-Za-z])", "="),
    (r"\\(?:mathring|overset ?\{ ?\\circ ?\}) ?\{ ?A ?\}", "Å"),
    (r"\\(?:mathring|overset ?\{ ?\\circ ?\}) ?\{ ?\\(?:mathrm|text) ?\{ ?A ?\} ?\}", "Å"),
    (r"\\mathbb ?\{ ?R ?\} ?\^ ?\{? ?\+ ?\}?|\\mathbb ?\{ ?R ?\} ?_ ?\{ ?> ?0 ?\}", r"(0,\\infty)"),
    (rf"^ ?(?:{STYLE}\{{ ?)?(?:[Aa]ll )?(?:real numbers|reals) ?\}}? ?$", r"\\mathbb{R}"),
    # Unit vectors, while they are still bold.
    (rf"\\(?:{_BOLD}) ?\{{ ?\\?(i|j|k|imath|jmath) ?\}}", lambda match: rf"\hat{{{match[1][0]}}}"),
    (rf"\\(?:{_BOLD}) ?\{{ ?(\\hat\{{[ijk]\}}) ?\}}", r"\1"),
    # Binomial coefficients of calculators: C(n,3), _{10}C_{3}.
    (r"(?:\{ ?\})? ?[_^] ?\{?(\w+)\}? ?(?:\\mathrm ?\{ ?)?C ?\}? ?_ ?\{?(\w+)\}?", r"\\binom{\1}{\2}"),
    (r"(?<![\w\\])C ?_ ?\{?(\d+)\}? ?\^ ?\{?(\d+)\}?", r"\\binom{\1}{\2}"),
    (r"(?<![\w\\])C ?\( ?(\w+) ?, ?(\w+) ?\)", r"\\binom{\1}{\2}"),
    (r"\\(?:textcolor|mathcolor|color|colorbox) ?(?:\[[^\[\]]*\])? ?\{[^{}]*\}", " "),
    (rf"\\(?:{_SIZES})(?![A-Za-z])|\\[hv](?:space|skip)\*? ?\{{[^{{}}]*\}}|\\[hv]?phantom ?\{{[^{{}}]*\}}", " "),
    (r"\\[dtc]frac(?![A-Za-z])|\\(?:sfrac|nicefrac|flatfrac)(?![A-Za-z])", r"\\frac"),
    (r"\\[dt]binom(?![A-Za-z])", r"\\binom"),
    (r"\{([^{}]*)\\choose(?![A-Za-z])([^{}]*)\}", r"\\binom{\1}{\2}"),
    (r"^([^{}\\]*)\\choose(?![A-Za-z])([^{}\\]*)$", r"\\binom{\1}{\2}"),
    (r"\\(?:left|right) ?\.", ""),
    (r"\\(?:left|right|middle|[bB]igg?[lrm]?)(?![A-Za-z]) ?", ""),
    (r"\\lbrace(?![A-Za-z])", r"\\{"),
    (r"\\rbrace(?![A-Za-z])", r"\\}"),
    (r"\\(?:langle|lparen)(?![A-Za-z])", "("),
    (r"\\(?:rangle|rparen)(?![A-Za-z])", ")"),
    (r"\\lbrack(?![A-Za-z])", "["),
    (r"\\rbrack(?![A-Za-z])", "]"),
    (r"\\[lr]?vert(?![A-Za-z])", "|"),
    # Environments: matrices of every size are matrices, lines of equations are a list.
    (r"\\\\ ?\[ ?-?[\d.]+ ?(?:pt|em|ex|mm|cm|in|\\[a-z]+) ?\]", r"\\\\"),
    (r"\\(?:hline|cline ?\{[^{}]*\})", ""),
    (r"(\\(?:begin|end)) ?\{ ?(?:[bBp]|small|psmall|bsmall)matrix\*? ?\}(?: ?\[[clr]\])?", r"\1{matrix}"),
    (r"\\begin ?\{ ?array ?\} ?\{[^{}]*\}(.*?)\\end ?\{ ?array ?\}", r"\\begin{matrix}\1\\end{matrix}"),
    (r"[(\[] ?(\\begin\{matrix\}(?:(?!\\begin).)*?\\end\{matrix\}) ?[)\]]", r"\1"),
    (
        rf"\\begin ?\{{ ?({_LINES}) ?\}}(.*?)\\end ?\{{ ?\1 ?\}}",
        lambda match: _lines(match),
    ),
    (r"(?<![A-Za-z\\])(?:np|numpy|math)\.(?=[a-z])", ""),  # a gold of Minerva is np.arcsin(10/13)
    # Functions in their own spelling, before upright words are taken for units.
    (rf"\\operatorname\*? ?\{{ ?\\?({_NAMES}) ?\}}", lambda match: _function(match)),
    (rf"{STYLE}\{{ ?\\?({_NAMES}) ?\}}", lambda match: _function(match)),
    (rf"\\({_NAMES})(?![A-Za-z])", lambda match: _function(match)),
    (rf"(?<![A-Za-z\\_{{])({_ONLY_BEFORE_BRACKETS}) ?(?=\(|\\\{{)", lambda match: _function(match)),
    (rf"(?<![A-Za-z\\])({_PLAIN_NAMES})(?=[ (^_\d\\|{{]|[a-z](?![A-Za-z]))", lambda match: _function(match)),
    (r"\\(?:dots[cbmio]?|cdots|hdots)(?![A-Za-z])|\.\.\.+", r"\\ldots "),
    (r"\\(?:simeq|cong|approxeq|doteq|thickapprox)(?![A-Za-z])", r"\\approx "),
)  # fmt: skip
SPACES: Rules = rules(
    (r"(?<!\\)\\!", ""),
    (r"(?<!\\)\\[,;:> ]|~|\\q?quad(?![A-Za-z])|(?<!\\)\\[()\[\]]", " "),  # \[ opens mathematics; \\[2pt] does not
    (r"^ ?\*\*|\*\* ?$", ""),
    (r" +", " "),
    (rf"({STYLE}\{{) +(?=[^ }}])", r"\1 "),
)


def _function(match: re.Match[str]) -> str:
    return rf"\{SYNONYMS.get(match[1], match[1])} "


def _quantity(match: re.Match[str]) -> str:
    return rf"{match[1]} \text{{ {_unit(match[2])}}}"


def _unit(text: str) -> str:
    """A unit of siunitx in letters: \\kilo\\meter\\per\\second is km/s."""
    return re.sub(r"\\([A-Za-z]+) ?", lambda match: _SI_UNITS.get(match[1], match[1]), text).replace(".", " ")


def _lines(match: re.Match[str]) -> str:
    r"""Lines of an environment as a list; cases with conditions stay, as they are no list."""
    name, inside = match.groups()
    if name == "cases" and re.search(r"&|\\text|\\mbox|if|,", inside):
        return match[0]
    lines = [line.replace("&", "").strip(" ,;") for line in inside.split(r"\\")]
    return ", ".join(line for line in lines if line)


def without_layout(text: str, numbers: Rules) -> str:
    """The text without looks; `numbers` are applied while gaps inside numbers can still be seen."""
    return rewrite(rewrite(rewrite(text, LOOK), numbers), SPACES)
