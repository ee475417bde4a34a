r"""The parser of answers: normalised LaTeX in, nested `Node`s out, or `Unreadable` with what could not be read.

A parser that skips what it does not know makes wrong answers correct: with latex2sympy, dv/dt is zero, gcd(m, n) is one
and \coth x is cot(hx). So this one takes every token or refuses the text; an unknown command is never a product of
letters.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, ClassVar

from egrsd_jax.verify.functions import ACCENTS, DOTS, FUNCTIONS, ONE_ARGUMENT, RELATIONS, SEVERAL_ARGUMENTS
from egrsd_jax.verify.symbols import Symbols
from egrsd_jax.verify.syntax import Node, Reading, Unreadable, is_name

_CLOSING = {"(": ")", "[": "]", "{": "}", r"\{": r"\}", r"\lfloor": r"\rfloor", r"\lceil": r"\rceil"}
_ROUNDED = {r"\lfloor": "floor", r"\lceil": "ceil"}
_ENDS = {
    "",
    "+",
    "-",
    ",",
    ";",
    "&",
    r"\\",
    *_CLOSING.values(),
    *RELATIONS,
    r"\cup",
    r"\cap",
    r"\setminus",
    r"\pm",
    r"\mp",
}
_TIMES, _OVER, _MODULO = {"*", r"\cdot", r"\times", r"\ast"}, {"/", r"\div"}, {r"\bmod", r"\mod"}
_PLAIN_NUMBER = re.compile(r"\d+")
_MAX_DEPTH = 60


@lru_cache(maxsize=2048)
def parse(text: str, reading: Reading) -> Node:
    """The tree of normalised text, every token of it; Unreadable says what could not be taken."""
    parser = _Parser(text.rstrip("%"), reading)
    node = parser.relation()
    if parser.token:
        raise Unreadable(f"{parser.rest()!r} does not continue it")
    return node


def is_readable(text: str) -> bool:
    """Whether normalised text is one value, or nothing that needs brackets: a single expression, and not a relation."""
    try:
        return parse(text, Reading()).kind != "relation"
    except Unreadable:
        return False


class _Parser(Symbols):
    """Recursive descent over the tokens of one text."""

    def __init__(self, text: str, reading: Reading) -> None:
        super().__init__(text, reading)
        self._bars = 0  # open |: the next one closes
        self._integrals = 0  # open integrals: d with a name ends their body
        self._depth = 0

    # --- Sums, products and relations -------------------------------------------------------------------------------

    def relation(self) -> Node:
        parts: list[Any] = [self.sum()]
        while self.token in RELATIONS:
            parts += [RELATIONS[self._take()], self.sum()]
        return parts[0] if len(parts) == 1 else Node("relation", tuple(parts))

    def sum(self) -> Node:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise Unreadable(f"it is nested deeper than {_MAX_DEPTH}")
        terms = [self._signed_product()]
        while self.token in {"+", "-"}:
            terms.append(self._signed_product())
        self._depth -= 1
        return terms[0] if len(terms) == 1 else Node("sum", tuple(terms))

    def _signed_product(self) -> Node:
        negative = False
        while self.token in {"+", "-"}:
            negative ^= self._take() == "-"
        product = self._product()
        return Node("product", (Node("number", ("-1",)), product)) if negative else product

    def _product(self, *, of_function: bool = False) -> Node:
        """Factors; those of a function without brackets, sin 2x cos y, end before the next function and at `/`."""
        value = self._signed_factor()
        while True:
            if not of_function and self.token in _TIMES | _OVER | _MODULO:
                sign = self._take()
                factor = self._signed_factor()
                if sign in _OVER:
                    value = Node("quotient", (value, factor))
                else:
                    value = (
                        Node("call", ("mod", value, factor)) if sign in _MODULO else Node("product", (value, factor))
                    )
            elif not self.continues(of_function=of_function):
                return value
            elif of_function and self.token in {"(", "["} and _has_name(value):
                return value  # sin x (x+1) is a product, sin 2(x+1) is not
            else:
                value = Node("product", (value, self.factor()))

    def continues(self, *, of_function: bool) -> bool:
        """Whether the next token begins another factor of the same product."""
        token = self.token
        if token in _ENDS or token in _TIMES | _OVER | _MODULO or token in {"!", "!!", "'", "^", "_", "%", "|"}:
            return token == "|" and not self._bars
        if self._integrals and self._is_differential():
            return False
        if token[0].isdigit() and (self._ahead(-1)[0].isdigit() or is_name(self._ahead(-1))):
            raise Unreadable(f"{self._ahead(-1)} {token} has a gap that may mean anything")
        return not (of_function and self._is_function(token))

    def _is_function(self, token: str) -> bool:
        return token in FUNCTIONS or token in {r"\log", r"\ln", r"\lg", r"\exp"}

    def _is_differential(self) -> bool:
        return self.token == "d" and is_name(self._ahead())

    def _signed_factor(self) -> Node:
        if self.token in {"-", "+"}:
            return self._negated() if self._take() == "-" else self._signed_factor()
        return self.factor()

    def _negated(self) -> Node:
        return Node("product", (Node("number", ("-1",)), self._signed_factor()))

    # --- One factor -------------------------------------------------------------------------------------------------

    def factor(self) -> Node:
        value = self._primary()
        while self.token in {"!", "!!", "^"}:
            if self.token == "^":
                self._take()
                value = Node("power", (value, self._script()))
            else:
                value = Node("call", ("factorial" if self._take() == "!" else "double factorial", value))
        if self.token == "'":
            raise Unreadable(f"a prime is behind {value.kind}")
        return value

    def _script(self) -> Node:
        """What `^` raises to: a group, or one token."""
        if self.token == "{":
            return self._group()
        return self._primary()

    def _group(self) -> Node:
        self._take("{")
        return self._inside("}")

    def _inside(self, closing: str) -> Node:
        """An expression up to its closing bracket; bars outside do not close within."""
        bars, self._bars = self._bars, 0
        node = self.sum()
        if self.token == ",":
            raise Unreadable("several values are where one is expected")
        self._take(closing)
        self._bars = bars
        return node

    def _primary(self) -> Node:
        token = self.token
        if not token:
            raise Unreadable("it ends too early")
        if token[0].isdigit() and token.isascii():
            return self._number()
        if token in _CLOSING:
            return self._bracketed()
        if token == "|":
            return self._absolute()
        if token in {"d", r"\partial"} and (derivative := self._plain_derivative()) is not None:
            return derivative
        if token in ACCENTS or token in DOTS or is_name(token):
            return self._name()
        if (command := self._COMMANDS.get(token)) is not None:
            return command(self)
        if token in FUNCTIONS:
            return self._function()
        raise Unreadable(f"{token!r} is not known here" if token.startswith("\\") else f"{token!r} is out of place")

    def _bracketed(self) -> Node:
        opening = self._take()
        if opening == r"\{" and self._reading.fractional_parts:
            return self._fractional_part()
        if opening == r"\{":
            raise Unreadable("a set is where a value is expected")
        node = self._inside(_CLOSING[opening])
        if opening in _ROUNDED:
            return Node("call", (_ROUNDED[opening], node))
        if opening == "(" and self.token == "_":  # (52)_8
            raise Unreadable("a bracket has an index")
        return node

    def _fractional_part(self) -> Node:
        node = self._inside(r"\}")
        if not _has_name(node):
            raise Unreadable("a set or a fractional part of a number is where a value is expected")
        return Node("call", ("fractional part", node))

    def _absolute(self) -> Node:
        self._take("|")
        self._bars += 1
        node = self.sum()
        self._bars -= 1
        self._take("|")
        return Node("call", ("abs", node))

    def _number(self) -> Node:
        digits = self._take()
        if self.token == r"\overline" and "." in digits:
            self._take()
            return Node("repeating", (digits, self._raw_group()))
        if self.token == "_":
            self._take()
            return Node("base", (digits, self._raw_group()))
        if self.token == "." and self._ahead() == r"\overline":
            self._position += 2
            return Node("repeating", (digits + ".", self._raw_group()))
        if self.token == r"\frac" and "." not in digits and (mixed := self._proper_fraction()) is not None:
            return Node("sum", (Node("number", (digits,)), mixed))
        return Node("number", (digits,))

    def _proper_fraction(self) -> Node | None:
        r"""The fraction of a mixed number, 2\frac{1}{2}; 2\frac{x}{2} is a product."""
        words = self._tokens[self._position : self._position + 7]
        if len(words) == 7 and words[1] == words[4] == "{" and words[3] == words[6] == "}":
            above, below = words[2], words[5]
            if _PLAIN_NUMBER.fullmatch(above) and _PLAIN_NUMBER.fullmatch(below):
                self._position += 7
                return Node("quotient", (Node("number", (above,)), Node("number", (below,))))
        return None

    # --- Commands ---------------------------------------------------------------------------------------------------

    def arguments(self) -> tuple[Node, ...]:
        opening = self._take()
        bars, self._bars = self._bars, 0
        arguments = [self.sum()]
        while self.token in {",", ";"}:
            self._take()
            arguments.append(self.sum())
        self._take(_CLOSING[opening])
        self._bars = bars
        return tuple(arguments)

    def _fraction(self) -> Node:
        self._take()
        start = self._position
        above, below = self._raw_group(), self._raw_group()
        if (derivative := self._derivative(above, below)) is not None:
            return derivative
        self._position = start
        return Node("quotient", (self._group(), self._group()))

    def _root(self) -> Node:
        self._take()
        degree = None
        if self.token == "[":
            self._take()
            degree = self._inside("]")
        inner = self._script()
        return Node("call", ("root", inner)) if degree is None else Node("call", ("root", inner, degree))

    def _binomial(self) -> Node:
        self._take()
        return Node("call", ("binomial", self._group(), self._group()))

    def _logarithm(self) -> Node:
        command = self._take()
        base = None
        if command == r"\lg" or (command == r"\log" and self._reading.common_logarithm):
            base = Node("number", ("10",))
        if self.token == "_":
            self._take()
            base = self._script()
        power = self._power()
        return _raised(Node("log", (base, self._of_function())), power)

    def _exponential(self) -> Node:
        self._take()
        power = self._power()
        return _raised(Node("call", ("exp", self._of_function())), power)

    def _power(self) -> Node | None:
        r"""The exponent of \sin^{2} x."""
        if self.token != "^":
            return None
        self._take()
        return self._script()

    def _of_function(self) -> Node:
        if self.token in {"(", "["}:
            arguments = self.arguments()
            if len(arguments) != 1:
                raise Unreadable("a function of one number has several")
            return arguments[0]
        if self.token == "{":
            return self._group()
        return self._product(of_function=True)

    def _function(self) -> Node:
        command = self._take()
        name = FUNCTIONS[command]
        if name in SEVERAL_ARGUMENTS:
            return self._of_several(name)
        power = self._power()
        if power is not None and power == Node("product", (Node("number", ("-1",)), Node("number", ("1",)))):
            if name not in ONE_ARGUMENT or ONE_ARGUMENT[name] is None:
                raise Unreadable(f"the inverse of {name} is not known")
            name, power = str(ONE_ARGUMENT[name]), None
        return _raised(Node("call", (name, self._of_function())), power)

    def _of_several(self, name: str) -> Node:
        if self.token not in {"(", "[", r"\{", "{"}:
            raise Unreadable(f"{name} is without brackets")
        if self.token == "{" and self._ahead() in {"(", r"\{"}:
            self._take()
            arguments = self.arguments()
            self._take("}")
        else:
            arguments = self.arguments()
        return Node("call", (name, *arguments))

    def _series(self) -> Node:
        command = self._take()
        self._take("_")
        self._take("{")
        index, _, _ = self._letter()
        self._take("=")
        start = self._inside("}")
        self._take("^")
        end = self._script()
        return Node("series", (command, index, start, end, self._product()))

    def _integral(self) -> Node:
        self._take()
        if self.token != "_":
            raise Unreadable("an integral has no limits")
        self._take()
        start = self._script()
        self._take("^")
        end = self._script()
        self._integrals += 1
        body = Node("number", ("1",)) if self._is_differential() else self.sum()
        self._integrals -= 1
        self._take("d")
        variable, _, _ = self._letter()
        return Node("integral", (variable, start, end, body))

    def _constant(self) -> Node:
        return Node("name", (self._take(),))

    def _angle(self) -> Node:
        command, letters = self._take(), ""
        while is_name(self.token):
            letters += self._take()
        if not letters:
            raise Unreadable(f"{command} is of nothing")
        return Node("name", (f"{command}{{{letters}}}",))

    def _unknown_function(self) -> Node:
        self._take()
        name = self._raw_group()
        if self.token not in {"(", "["} or not name.isalpha():
            raise Unreadable(f"the operator {name!r} is not known")
        return Node("applied", (name, self.arguments()))

    _COMMANDS: ClassVar[dict[str, Callable[["_Parser"], Node]]] = {
        r"\frac": _fraction,
        r"\sqrt": _root,
        r"\binom": _binomial,
        r"\log": _logarithm,
        r"\ln": _logarithm,
        r"\lg": _logarithm,
        r"\exp": _exponential,
        r"\sum": _series,
        r"\prod": _series,
        r"\int": _integral,
        r"\infty": _constant,
        r"\hbar": _constant,
        r"\ell": _constant,
        r"\angle": _angle,
        r"\triangle": _angle,
        r"\operatorname": _unknown_function,
    }


def _has_name(node: Node) -> bool:
    r"""Whether it has a name other than \pi."""
    if node.kind == "name":
        return node.parts[0] != r"\pi"
    return any(isinstance(part, Node) and _has_name(part) for part in node.parts)


def _raised(value: Node, power: Node | None) -> Node:
    return value if power is None else Node("power", (value, power))
