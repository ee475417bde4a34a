r"""The syntax tree of one answer: normalised LaTeX in, nested `Node`s out, or `Unreadable` with what could not be read.

First half of algebra: **syntax** -> values -> points, relations, sets. It imports no sympy and evaluates nothing. A
parser that skips what it does not know makes wrong answers correct: with latex2sympy, dv/dt is zero, gcd(m, n) is one,
I_1 is I_0 and \coth x is cot(hx). So this one takes every token or refuses the text: a name keeps its index and primes,
a derivative is no fraction, and an unknown command is never a product of letters.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from egrsd_jax.verify.functions import ACCENTS, DOTS, FUNCTIONS, GREEK, ONE_ARGUMENT, RELATIONS, SEVERAL_ARGUMENTS


class Unreadable(ValueError):
    """An answer that is no mathematics that can be compared; its message completes "cannot be read: "."""


class Node(NamedTuple):
    """A kind and its parts: other nodes, or the text of a leaf.

    `number` digits; `repeating` start, period; `base` digits, base; `name` text; `sum`, `product` nodes; `power` base,
    exponent; `quotient` above, below; `call` function, nodes; `log` base or None, node; `derivative` name, variable or
    None, order, sign; `applied` name, nodes; `series` command, index, start, end, body; `integral` variable, start,
    end, body; `relation` sides and signs in turn.
    """

    kind: str
    parts: tuple[Any, ...]


@dataclass(frozen=True)
class Reading:
    """What the spelling of one answer alone does not say, and that of both does (`reading.reading_of`)."""

    functions: frozenset[str] = frozenset()  # names that brackets behind them are the argument of, not a factor
    variable: str = ""  # by which primes differentiate
    arguments_dropped: bool = False  # theta(t) is theta, as in an equation with derivatives by t
    common_logarithm: bool = False  # \log is to base ten
    fold_case: bool = False  # R is r


_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|\d+(?:\.\d+)?|'+|!!|\s+|.", re.DOTALL)
_CLOSING = {"(": ")", "[": "]", "{": "}", r"\{": r"\}", r"\lfloor": r"\rfloor", r"\lceil": r"\rceil"}
_ROUNDED = {r"\lfloor": "floor", r"\lceil": "ceil"}
_ENDS = {"", "+", "-", ",", ";", "&", r"\\", *_CLOSING.values(), *RELATIONS, r"\cup", r"\cap", r"\setminus", r"\pm", r"\mp"}
_TIMES, _OVER, _MODULO = {"*", r"\cdot", r"\times", r"\ast"}, {"/", r"\div"}, {r"\bmod", r"\mod"}
_NAME_MARKS = {"*", r"\ast", r"\star", r"\dagger", "+", "-"}  # of x^{*}; a power would have a base
_PLAIN_NUMBER = re.compile(r"\d+")
_DIFFERENTIAL = re.compile(r"(d|\\partial)(?:\^\{(\d+)\})? ?(.*)", re.DOTALL)
_BY = re.compile(r"(d|\\partial) ?([A-Za-z]|\\[A-Za-z]+)(?:\^\{(\d+)\})?")
_PLAIN_DERIVATIVE = re.compile(
    r"(d|\\partial)(?:\^\{(\d+)\})?((?:[A-Za-z]|\\[A-Za-z]+)(?:_\{\w+\})?)"
    r"/(d|\\partial)([A-Za-z](?![A-Za-z])|\\[A-Za-z]+)(?:\^\{(\d+)\})?"
)
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


def tokens(text: str) -> list[str]:
    """The tokens of normalised text, blanks left out."""
    return [token for token in _TOKEN.findall(text) if not token.isspace()]


def is_name(token: str) -> bool:
    """Whether a token is a letter, Latin or Greek, that may stand for a quantity."""
    return (len(token) == 1 and token.isascii() and token.isalpha()) or token in GREEK


class _Parser:
    """Recursive descent over the tokens of one text."""

    def __init__(self, text: str, reading: Reading) -> None:
        self._tokens = tokens(text)
        self._position = 0
        self._reading = reading
        self._bars = 0  # open |: the next one closes
        self._integrals = 0  # open integrals: d with a name ends their body
        self._depth = 0

    @property
    def token(self) -> str:
        """The next token; empty at the end."""
        return self._tokens[self._position] if self._position < len(self._tokens) else ""

    def rest(self) -> str:
        """What has not been taken yet, shortened."""
        return "".join(self._tokens[self._position :])[:30]

    def _ahead(self, by: int = 1) -> str:
        at = self._position + by
        return self._tokens[at] if 0 <= at < len(self._tokens) else ""

    def _take(self, expected: str | None = None) -> str:
        token = self.token
        if not token or (expected is not None and token != expected):
            raise Unreadable(f"{expected or 'more'} is missing before {self.rest()!r}" if token else "it ends too early")
        self._position += 1
        return token

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
                    value = Node("call", ("mod", value, factor)) if sign in _MODULO else Node("product", (value, factor))
            elif not self._continues(of_function):
                return value
            elif of_function and self.token in {"(", "["} and _has_name(value):
                return value  # sin x (x+1) is a product, sin 2(x+1) is not
            else:
                value = Node("product", (value, self._factor()))

    def _continues(self, of_function: bool) -> bool:
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
        return self._factor()

    def _negated(self) -> Node:
        return Node("product", (Node("number", ("-1",)), self._signed_factor()))

    # --- One factor -------------------------------------------------------------------------------------------------

    def _factor(self) -> Node:
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
        node = self._inside("}")
        return node

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
        if opening == r"\{":
            raise Unreadable("a set is where a value is expected")
        node = self._inside(_CLOSING[opening])
        if opening in _ROUNDED:
            return Node("call", (_ROUNDED[opening], node))
        if opening == "(" and self.token == "_":  # (52)_8
            raise Unreadable("a bracket has an index")
        return node

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
            self._take(), self._take()
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

    # --- Names ------------------------------------------------------------------------------------------------------

    def _name(self) -> Node:
        """A letter with its accents, index and primes; a derivative where it has primes or dots; its argument."""
        name, order, by = self._letter()
        if self._reading.arguments_dropped and self._is_at(self._reading.variable):
            self._position += 3
        is_inverse = self._is_inverse()
        if not (order and self.token == "(") and not self._is_call(name, is_inverse):
            arguments = None
        else:
            self._position += 5 * is_inverse
            arguments = self._arguments()
            if not is_inverse and (order or self._reading.arguments_dropped) and self._is_variable(arguments):
                arguments = None
        if arguments is not None:
            return Node("applied", (name + "'" * order + "^{-1}" * is_inverse, arguments))
        if order:
            return Node("derivative", (name, by or self._reading.variable, order, "d"))
        return Node("name", (name,))

    def _is_variable(self, arguments: tuple[Node, ...]) -> bool:
        """Whether a function is taken of the one variable of all, which need not be written."""
        if len(arguments) != 1 or arguments[0].kind != "name":
            return False
        return self._reading.variable in {"", arguments[0].parts[0]}

    def _is_inverse(self) -> bool:
        return self._tokens[self._position : self._position + 6] == ["^", "{", "-", "1", "}", "("]

    def _is_call(self, name: str, is_inverse: bool) -> bool:
        return name in self._reading.functions and (is_inverse or self.token == "(")

    def _letter(self) -> tuple[str, int, str]:
        """A name, the order of the derivative that its marks ask for, and by what (dots: by time)."""
        token, by = self._take(), ""
        order = DOTS.get(token, 0)
        if order:
            base, by = self._raw_group(), "t"
            if not is_name(base):
                raise Unreadable(f"{token} is over {base!r}")
        elif token in ACCENTS:
            base = f"{token}{{{self._raw_group()}}}"
        else:
            base = token.lower() if self._reading.fold_case and len(token) == 1 else token
        while True:
            if self.token == "_":
                self._take()
                base += f"_{{{self._index()}}}"
            elif self.token.startswith("'"):
                order += len(self._take())
            elif self.token == "^" and self._ahead() == "{" and self._ahead(2) in _NAME_MARKS and self._ahead(3) == "}":
                base += "^" + self._ahead(2)
                self._position += 4
            else:
                return base, order, by

    def _index(self) -> str:
        """An index as text: n+1 and 1+n are one."""
        text = self._raw_group()
        try:
            node = parse(text, Reading())
        except Unreadable:
            return text
        return "+".join(sorted(map(_flat, node.parts))) if node.kind == "sum" else text

    def _raw_group(self) -> str:
        """The text of the next group, or the next token."""
        if self.token != "{":
            return self._take()
        self._take()
        depth, start = 1, self._position
        while depth:
            depth += {"{": 1, "}": -1}.get(self._take(), 0)
        return "".join(self._tokens[start : self._position - 1])

    def _arguments(self) -> tuple[Node, ...]:
        opening = self._take()
        bars, self._bars = self._bars, 0
        arguments = [self.sum()]
        while self.token in {",", ";"}:
            self._take()
            arguments.append(self.sum())
        self._take(_CLOSING[opening])
        self._bars = bars
        return tuple(arguments)

    # --- Commands ---------------------------------------------------------------------------------------------------

    def _fraction(self) -> Node:
        self._take()
        start = self._position
        above, below = self._raw_group(), self._raw_group()
        if (derivative := self._derivative(above, below)) is not None:
            return derivative
        self._position = start
        return Node("quotient", (self._group(), self._group()))

    def _derivative(self, above: str, below: str) -> Node | None:
        r"""\frac{dv}{dt}, \frac{d^{2}x}{dt^{2}}, \frac{d}{dx}(...); None where the fraction is one."""
        by = _BY.fullmatch(below)
        of = _DIFFERENTIAL.fullmatch(above)
        if by is None or of is None or by[1] != of[1]:
            return None
        if int(of[2] or 1) != int(by[3] or 1):
            raise Unreadable("a derivative has two orders")
        order, variable = int(by[3] or 1), by[2]
        if self._reading.fold_case:
            variable = variable.lower() if len(variable) == 1 else variable
        inner = _Parser(of[3], self._reading) if of[3] else self
        if not is_name(inner.token) and inner.token not in ACCENTS:
            if inner is not self or inner.token not in {"(", "[", "{"}:
                raise Unreadable("it is a derivative of something that is no name")
            return Node("call", ("differentiate", self._factor(), Node("name", (variable,)), str(order)))
        name, marks, _ = inner._letter()
        if inner is self and (self.token == "^" or (self.token != "(" and self._continues(of_function=False))):
            raise Unreadable("a derivative does not say how far it goes")
        argument = inner._arguments() if inner.token == "(" else self._arguments() if self._is_at(variable) else ()
        if marks or (inner is not self and inner.token) or any(part != Node("name", (variable,)) for part in argument):
            raise Unreadable("it is a derivative of something that is no name")
        return Node("derivative", (name, variable, order, "d" if by[1] == "d" else "partial"))

    def _plain_derivative(self) -> Node | None:
        """dv/dt in plain text; None where it is a product."""
        match = _PLAIN_DERIVATIVE.match("".join(self._tokens[self._position : self._position + 24]))
        if match is None or match[1] != match[4] or match[2] != match[6]:
            return None
        taken = 0
        while taken < match.end():
            taken += len(self._take())
        name, _, _ = _Parser(match[3], self._reading)._letter()
        return Node("derivative", (name, match[5], int(match[2] or 1), "d" if match[1] == "d" else "partial"))

    def _is_at(self, variable: str) -> bool:
        """Whether (t) is next, where the variable is t."""
        return self._tokens[self._position : self._position + 3] == ["(", variable, ")"]

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
            arguments = self._arguments()
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
            arguments = self._arguments()
            self._take("}")
        else:
            arguments = self._arguments()
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
        return Node("applied", (name, self._arguments()))

    _COMMANDS: dict[str, Callable[["_Parser"], Node]] = {
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


def _flat(node: Node | str) -> str:
    """A tree on one line."""
    return node if isinstance(node, str) else f"{node.kind}({','.join(_flat(part) for part in node.parts)})"
