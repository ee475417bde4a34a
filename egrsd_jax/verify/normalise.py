r"""Answers as text: one canonical spelling for the many ways in which LaTeX and plain text write the same thing.

Station of grading: extract -> **normalise** -> grade. Nothing is computed here: `\tfrac12` becomes `\frac{1}{2}`, not
0.5. What comes out is for comparison and for a parser, no longer for typesetting. Time grows with the square of the
length in the worst case, so `grade` turns away very long answers first.
"""

import re
from enum import Enum
from functools import lru_cache

from egrsd_jax.verify import number_spellings
from egrsd_jax.verify.characters import in_commands
from egrsd_jax.verify.layout import without_layout
from egrsd_jax.verify.measures import Measure, measure
from egrsd_jax.verify.rewrite import STYLE, TEXT, rewrite, rules
from egrsd_jax.verify.units import without_units, written_unit

_THOUSANDS = number_spellings.THOUSANDS

_SURROUNDINGS = rules(
    (r"\{ ?, ?\}", ","),
    (rf"^ ?{STYLE}\{{([^{{}}]*\d[^{{}}]*)\}} ?$", r"\1"),
)

# An inequality, whose joining words matter; values are listed, whatever joins them.
ORDER = re.compile(r"[<>]|\\(?:le|ge|ne)(?![A-Za-z])")
_JOINED = re.compile(r",?\\(?:lor|land)(?![A-Za-z]) ?")


def _join(match: re.Match[str]) -> str:
    """Words between two answers; a comma is what separates values."""
    return r"\lor " if "or" in match[0] else r"\land "


_SPELLING = rules(
    (rf",? ?{STYLE}\{{ ?,? ?(?:and|or) ?\}} ?|,? (?:and|or) ", _join),
    (rf"([_^]\{{) ?{STYLE}\{{([^{{}}]*)\}} ?\}}", r"\1\2}"),
    (rf"([_^]) ?{STYLE}(\{{[^{{}}]*\}})", r"\1\2"),
    # Words stay words, so that no reader takes them for products; \text{SRMC} and \mathrm{max} are names.
    (rf"{TEXT}\{{ ?([^{{}}]*(?:[a-z]{{3}}| )[^{{}}]*?) ?\}}", r"\\words{\1}"),
    (rf"{STYLE}\{{ ?([^{{}}]*?) ?\}}", r"\1"),
    (r"\\words(?![A-Za-z])", r"\\text"),
    (r"(?<![A-Za-z\\])(sqrt|pi|infty)(?![A-Za-z])", r"\\\1 "),
    (r"(?<![A-Za-z\\])inf(?:inity)?(?![A-Za-z])", r"\\infty "),
    (r"\\(?:smallsetminus|backslash)(?![A-Za-z])", r"\\setminus "),
    (r"\\(?:vee|lor)(?![A-Za-z])", r"\\lor "),
    (r"\\(?:wedge|land)(?![A-Za-z])", r"\\land "),
    (r"\\[RZNQC](?![A-Za-z])", lambda match: rf"\mathbb{{{match[0][1]}}}"),
    (r"\*\*", "^"),
    (r"\*|(?<=\d) [xX] (?=\d)", r"\\cdot "),
    (r"<=|\\leq(?:slant)?(?![A-Za-z])", r"\\le "),
    (r">=|\\geq(?:slant)?(?![A-Za-z])", r"\\ge "),
    (r"!=|\\neq(?![A-Za-z])", r"\\ne "),
    (r"\\lt(?![A-Za-z])", "<"),
    (r"\\gt(?![A-Za-z])", ">"),
    (r"\\varnothing(?![A-Za-z])|\\\{ ?\\\}", r"\\emptyset "),
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
    (r"([_^])([+-]?\d+(?:\.\d+)?|[A-Za-z]|\\[A-Za-z]+)", r"\1{\2}"),
    (r"\^\(([^()]*)\)", r"^{\1}"),
)

_EDGES = rules(
    (r"^(?:[=:]|\\(?:approx|sim)(?![A-Za-z]))+", ""),
    (r"(?:[.,;:]|\\\\)+$", ""),
    (r"^\+(?=[\d\\.])", ""),
    (r"^(?:\(([A-Z])\)|([A-Z])\))$", r"\1\2"),  # the choice (B) or B)
)

_WORDS = re.compile(rf"\s*{STYLE}\{{\s*([A-Za-z][A-Za-z'. -]*[A-Za-z])\.?\s*\}}\s*\.?\s*")
_ARTICLE = re.compile(r"(?:an?|the) (?=[a-z]{2})")
_MAY_HAVE_UNIT = re.compile(
    r"\\(?:text|math|[mh]box|SI|qty|si|unit|Omega|AA|mu|\$)|(?<![\\A-Za-z])[A-Za-zµμΩÅ]|[$€£¢]|_"
)
_PLAIN_ARTICLE = re.compile(r"^(?:[Aa]n?|[Tt]he) (?=[A-Za-z]{3,}[A-Za-z ]*$)")
_TOKEN = re.compile(r"\\[A-Za-z]+|\d+|\S")


class Thousands(Enum):
    """Where a comma before three digits is inside a number: `1,234` is one outside brackets, `(1,234)` two."""

    NOWHERE = 0
    OUTSIDE_BRACKETS = 1
    EVERYWHERE = 2


@lru_cache(maxsize=4096)
def normalise(answer: str, *, thousands: Thousands = Thousands.OUTSIDE_BRACKETS) -> str:
    r"""Return the canonical spelling of a bare answer: what a box held, or a gold answer.

    An answer that is nothing but words set as text comes back as `\text{...}` in lower case and without its
    article.
    """
    text = in_commands(answer)
    if words := _WORDS.fullmatch(text):
        return rf"\text{{{_ARTICLE.sub('', ' '.join(words[1].lower().split()), count=1)}}}"
    text = _laid_out(_PLAIN_ARTICLE.sub("", text))
    text = number_spellings.spelled(without_units(text))
    if thousands is not Thousands.NOWHERE:
        text = number_spellings.join_thousands(text, everywhere=thousands is Thousands.EVERYWHERE)
    text = rewrite(rewrite(text, _SPELLING), _SPACES)
    if not ORDER.search(text):
        text = _JOINED.sub(",", text)
    text = _with_braces(text, r"\frac", 2)
    text = _with_braces(text, r"\binom", 2)
    text = _with_braces(text, r"\sqrt", 1)
    return _without_outer_braces(rewrite(rewrite(text, _SCRIPTS), _EDGES))


@lru_cache(maxsize=4096)
def measure_of(answer: str) -> Measure | None:
    """The unit that a bare answer ends with; None where it has none that is known."""
    if not _MAY_HAVE_UNIT.search(answer):
        return None
    unit = written_unit(_laid_out(in_commands(answer)))
    return None if unit is None else measure(unit)


@lru_cache(maxsize=4096)
def _laid_out(text: str) -> str:
    return rewrite(without_layout(text, number_spellings.LOOK), _SURROUNDINGS)


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
    r"""Where the argument at `start` ends, and what it holds; None where nothing or something broken is there.

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
