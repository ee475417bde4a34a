r"""What the spelling of both answers says about each: which names are functions, by what primes differentiate.

The same text may be a product or a function of something, f(1+m). Nothing decides it but use: where a name is followed
by brackets wherever it occurs, in both answers, it may be a function; where it once occurs alone, it is a factor.
"""

import re

from egrsd_jax.verify.syntax import Reading, is_name, tokens

_MOSTLY_FUNCTIONS = {"f", "g", "h", "F", "G", "H", r"\phi", r"\varphi", r"\psi", r"\Phi", r"\Psi", r"\Gamma"}
_BY = re.compile(
    r"\\frac\{(?:d|\\partial)(?!_)[^{}]*(?:\{[^{}]*\}[^{}]*)*\}"
    r"\{(?:d|\\partial) ?([A-Za-z]|\\[A-Za-z]+)(?:\^\{\d+\})?\}"
)
_BY_IN_PLAIN_TEXT = re.compile(r"d(?:[A-Za-z]|\\[A-Za-z]+)(?:_\{\w+\})?/d([A-Za-z](?![A-Za-z]))")
_COMMON_LOGARITHM = re.compile(r"\\lg(?![A-Za-z])|\\log_\{10\}")
_NATURAL_LOGARITHM = re.compile(r"\\ln(?![A-Za-z])|(?<![\\A-Za-z])e\^")
_PRIMED = re.compile(r"[A-Za-z}]'")
_OF_VARIABLE = re.compile(r"'\(([A-Za-z])\)")
_PARTS = re.compile(
    r"\\lfloor|(?:[+\-*/(^]|\d|(?<![\\A-Za-z])[A-Za-z]|\\cdot|\\times)\\\{|\\\}(?:[+\-*/^]|\\cdot|\\times)"
)
_SETS = re.compile(r"\\(?:mathbb|cup|cap|in|setminus|mid|emptyset|varnothing|subset)(?![A-Za-z])|\\\{[^{}]*,")
_DOTTED = re.compile(r"\\d?dot(?![A-Za-z])")


def has_fractional_part(*texts: str) -> bool:
    r"""Whether \{x\} in normalised texts is the fractional part of x: where whole parts are written too, or it is a
    term or a factor; not where sets are."""
    return any(map(_PARTS.search, texts)) and not any(map(_SETS.search, texts))


def reading_of(prediction: str, answer: str) -> Reading:
    """How to read two normalised answers that are to be compared."""
    both = (prediction, answer)
    uses = [_Uses(tokens(text)) for text in both]
    variables = {name for text in both for name in _BY.findall(text) + _BY_IN_PLAIN_TEXT.findall(text)}
    variables |= {name for text in both for name in _OF_VARIABLE.findall(text)}
    if any(_DOTTED.search(text) for text in both):
        variables.add("t")
    if not variables and any(map(_PRIMED.search, both)):
        variables = _only_arguments(uses)
    fold_case = _only_case_differs(prediction, answer)
    applied = uses[0].applied | uses[1].applied
    functions = {name for name in applied if not any(name in use.alone for use in uses)}
    functions -= {name for name in functions - _MOSTLY_FUNCTIONS if not all(use.is_simple(name) for use in uses)}
    # f(x+y) = f(x)+f(y) is about a function, whatever the other answer does with f.
    functions |= {name for use in uses for name in _MOSTLY_FUNCTIONS if len(use.arguments.get(name, ())) > 1}
    return Reading(
        functions=frozenset(name.lower() if fold_case and len(name) == 1 else name for name in functions),
        variable=next(iter(variables)) if len(variables) == 1 else "",
        arguments_dropped=bool(variables) or any(_PRIMED.search(text) for text in both),
        common_logarithm=any(map(_COMMON_LOGARITHM.search, both)) and not any(map(_NATURAL_LOGARITHM.search, both)),
        fold_case=fold_case,
        fractional_parts=has_fractional_part(*both),
    )


def _only_arguments(uses: list["_Uses"]) -> set[str]:
    """The letter that everything in the answers is a function of; nothing where there are several."""
    arguments = {argument for use in uses for of in use.arguments.values() for argument in of if is_name(argument)}
    return arguments if len(arguments) == 1 else set()


class _Uses:
    """How the names of one answer occur: before brackets or alone."""

    def __init__(self, words: list[str]) -> None:
        self.applied: set[str] = set()
        self.alone: set[str] = set()
        self.arguments: dict[str, set[str]] = {}
        for start, token in enumerate(words):
            if not is_name(token) or token in {"e", "i", "d"}:
                continue
            name, end = _whole_name(words, start)
            if words[end : end + 5] == ["^", "{", "-", "1", "}"]:
                end += 5
            if end < len(words) and words[end] == "(":
                self.applied.add(name)
                self.arguments.setdefault(name, set()).add(_bracket(words, end))
            else:
                self.alone.add(name)

    def is_simple(self, name: str) -> bool:
        """Whether the name comes before brackets that hold one number or name each time."""
        return all(len(tokens(argument)) <= 1 for argument in self.arguments.get(name, ()))


def _whole_name(words: list[str], start: int) -> tuple[str, int]:
    """A name with its index, and where it ends; primes are passed over."""
    name, end = words[start], start + 1
    while end < len(words):
        if words[end].startswith("'"):
            end += 1
        elif words[end] == "_" and words[end + 1 : end + 2] == ["{"] and "}" in words[end:]:
            closing = words.index("}", end)
            name += "".join(words[end : closing + 1])
            end = closing + 1
        else:
            break
    return name, end


def _bracket(words: list[str], opening: int) -> str:
    depth = 0
    for position in range(opening, len(words)):
        depth += {"(": 1, ")": -1}.get(words[position], 0)
        if depth == 0:
            return "".join(words[opening + 1 : position])
    return "".join(words[opening + 1 :])


def _only_case_differs(prediction: str, answer: str) -> bool:
    """Whether every letter of one answer is in the other's as a letter of the other case: 3r^2 for 3R^2.

    A formula with G and g, in which one of several letters differs, is of other quantities.
    """
    predicted, gold = (set(re.findall(r"[A-Za-z]", re.sub(r"\\[A-Za-z]+", "", text))) for text in (prediction, answer))
    constants = set("eEiI")  # Euler's number and the imaginary unit are no other case of a quantity
    predicted, gold = predicted - (predicted & gold & constants), gold - (predicted & gold & constants)
    is_swapped = bool(gold) and predicted == {letter.swapcase() for letter in gold}
    return is_swapped and not predicted & (gold | constants)
