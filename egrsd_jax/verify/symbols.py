r"""Names in an answer: with their indices, primes and accents; derivatives of them; what they are functions of.

Part of the parser. A name keeps all that is written on it, and a derivative is no fraction: I_1 is not I_0, dv/dt does
not vanish, g^{-1}(x) is not 1/g(x).
"""

import re
from abc import ABC, abstractmethod

from egrsd_jax.verify.functions import ACCENTS, DOTS
from egrsd_jax.verify.syntax import Cursor, Node, Reading, Unreadable, is_name

_NAME_MARKS = {"*", r"\ast", r"\star", r"\dagger", "+", "-"}  # of x^{*}; a power would have a base
_DIFFERENTIAL = re.compile(r"(d|\\partial)(?:\^\{(\d+)\})? ?(.*)", re.DOTALL)
_BY = re.compile(r"(d|\\partial) ?([A-Za-z]|\\[A-Za-z]+)(?:\^\{(\d+)\})?")
_PLAIN_DERIVATIVE = re.compile(
    r"(d|\\partial)(?:\^\{(\d+)\})?((?:[A-Za-z]|\\[A-Za-z]+)(?:_\{\w+\})?)"
    r"/(d|\\partial)([A-Za-z](?![A-Za-z])|\\[A-Za-z]+)(?:\^\{(\d+)\})?"
)


class Symbols(Cursor, ABC):
    """Takes names and derivatives; expressions, inside their brackets, are for the whole parser."""

    @abstractmethod
    def sum(self) -> Node:
        """The expression that begins at the next token."""

    @abstractmethod
    def factor(self) -> Node:
        """The factor that begins at the next token."""

    @abstractmethod
    def arguments(self) -> tuple[Node, ...]:
        """The expressions in the brackets that open at the next token."""

    @abstractmethod
    def continues(self, *, of_function: bool) -> bool:
        """Whether the next token begins another factor of the same product."""

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
            arguments = self.arguments()
            if not is_inverse and (order or self._reading.arguments_dropped) and self._is_variable(arguments):
                arguments = None
        if arguments is not None:
            return Node("applied", (name + "'" * order + "^{-1}" * is_inverse, arguments))
        if order:
            return Node("derivative", (name, by or self._reading.variable, str(order), "d"))
        return Node("name", (name,))

    def _is_variable(self, arguments: tuple[Node, ...]) -> bool:
        """Whether a function is taken of the one variable of all, which need not be written."""
        if len(arguments) != 1 or arguments[0].kind != "name":
            return False
        return self._reading.variable == arguments[0].parts[0]

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
            parser = type(self)(text, Reading())
            node = parser.sum()
        except Unreadable:
            return text
        is_sum = node.kind == "sum" and not parser.token
        return "+".join(sorted(map(_flat, node.parts))) if is_sum else text

    # --- Derivatives ------------------------------------------------------------------------------------------------

    def _derivative(self, above: str, below: str) -> Node | None:
        r"""\frac{dv}{dt}, \frac{d^{2}x}{dt^{2}}, \frac{d}{dx}(...); None where the fraction is one."""
        by = _BY.fullmatch(below)
        of = _DIFFERENTIAL.fullmatch(above)
        if by is None or of is None or by[1] != of[1]:
            return None
        order, variable = (by[3] or "1") if (by[3] or "1") == (of[2] or "1") else f"{of[2]}/{by[3]}", by[2]
        if self._reading.fold_case:
            variable = variable.lower() if len(variable) == 1 else variable
        inner = type(self)(of[3], self._reading) if of[3] else self
        if not is_name(inner.token) and inner.token not in ACCENTS:
            if inner is not self or inner.token not in {"(", "[", "{"}:
                raise Unreadable("it is a derivative of something that is no name")
            return Node("call", ("differentiate", self.factor(), Node("name", (variable,)), order))
        name, marks, _ = inner._letter()
        if inner is self and (self.token == "^" or (self.token != "(" and self.continues(of_function=False))):
            raise Unreadable("a derivative does not say how far it goes")
        argument = inner.arguments() if inner.token == "(" else self.arguments() if self._is_at(variable) else ()
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
        name, _, _ = type(self)(match[3], self._reading)._letter()
        return Node("derivative", (name, match[5], match[2] or "1", "d" if match[1] == "d" else "partial"))

    def _is_at(self, variable: str) -> bool:
        """Whether (t) is next, where the variable is t."""
        return self._tokens[self._position : self._position + 3] == ["(", variable, ")"]


def _flat(node: Node | str) -> str:
    """A tree on one line."""
    return node if isinstance(node, str) else f"{node.kind}({','.join(_flat(part) for part in node.parts)})"
