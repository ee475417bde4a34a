r"""Syntax trees as sympy expressions, with functions of our own where sympy's say something else.

Between **syntax** and points, relations, sets. Imports sympy. Nothing is simplified here beyond what sympy does by
itself, and nothing is evaluated as code: a node that is not in the tables raises Unreadable.
"""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import sympy
from sympy import Integer, Rational, Symbol

from egrsd_jax.verify.functions import ONE_ARGUMENT
from egrsd_jax.verify.number import in_base, repeating
from egrsd_jax.verify.syntax import Node, Unreadable

_TWO = Integer(2)
_MAX_SERIES = 2_000  # terms of a finite sum or product that is written out


class Gcd(sympy.Function):
    """The greatest common divisor; sympy's own takes unknowns for polynomials, whose divisor is 1."""

    @classmethod
    def eval(cls, *numbers: Any) -> Any:
        """The value of whole numbers; unevaluated otherwise."""
        return sympy.igcd(*numbers) if all(number.is_Integer for number in numbers) else _sorted(cls, numbers)


class Lcm(sympy.Function):
    """The least common multiple, of whole numbers as `Gcd`."""

    @classmethod
    def eval(cls, *numbers: Any) -> Any:
        """The value of whole numbers; unevaluated otherwise."""
        return sympy.ilcm(*numbers) if all(number.is_Integer for number in numbers) else _sorted(cls, numbers)


def _sorted(function: Any, arguments: tuple[Any, ...]) -> Any:
    """The arguments in one order, as the function does not depend on it."""
    ordered = tuple(sorted(arguments, key=sympy.default_sort_key))
    return None if ordered == arguments else function(*ordered)


def value(node: Node, bound: frozenset[str] = frozenset()) -> Any:
    """The expression that a tree stands for, zoo where it divides by zero.

    `bound` names are indices of the sums around it, so that i may be one. Unreadable where it stands for none.
    """
    return _KINDS[node.kind](node.parts, bound) if node.kind in _KINDS else _refuse(node)


def symbol(name: str) -> Symbol:
    """The unknown of that name; unknowns are real."""
    return Symbol(name, real=True)


def _refuse(node: Node) -> Any:
    raise Unreadable(f"a {node.kind} is where a value is expected")


def _fraction(number: Fraction) -> Any:
    return Rational(number.numerator, number.denominator)


def _name(parts: Any, bound: frozenset[str]) -> Any:
    (name,) = parts
    return _CONSTANTS[name] if name in _CONSTANTS and name not in bound else symbol(name)


def _series(parts: Any, bound: frozenset[str]) -> Any:
    command, index, start, end, body = parts
    inner = bound | {index}
    low, high = value(start, bound), value(end, bound)
    limits = (symbol(index), low, high)
    if low.is_Integer and high.is_Integer and high - low > _MAX_SERIES:
        raise Unreadable(f"a sum has over {_MAX_SERIES:,} terms")
    series = sympy.Sum if command == r"\sum" else sympy.Product
    written = series(value(body, inner), limits)
    return written.doit() if low.is_Integer and high.is_Integer else written


def _integral(parts: Any, bound: frozenset[str]) -> Any:
    variable, start, end, body = parts
    inner = value(body, bound | {variable})
    return sympy.Integral(inner, (symbol(variable), value(start, bound), value(end, bound)))


def _derivative(parts: Any, _: frozenset[str]) -> Any:
    """A derivative is an unknown of its own: nothing follows about it from the function."""
    name, by, order, sign = parts
    return symbol(f"{sign}^{order} {name} by {by}")


def _applied(parts: Any, bound: frozenset[str]) -> Any:
    name, arguments = parts
    values = [value(argument, bound) for argument in arguments]
    if name == r"\Gamma" and len(values) == 1:
        return sympy.gamma(values[0])
    return sympy.Function(name, real=True)(*values)


def _log(parts: Any, bound: frozenset[str]) -> Any:
    base, of = parts
    natural = sympy.log(value(of, bound))
    return natural if base is None else natural / sympy.log(value(base, bound))


def _root(of: Any, degree: Any = _TWO) -> Any:
    """The real root: that of an odd degree of a negative number is negative."""
    if degree.is_Integer and degree > 2 and degree % 2 == 1 and not of.has(sympy.I):
        if of.is_negative:
            return -((-of) ** (1 / degree))
        if not of.is_nonnegative:
            return sympy.sign(of) * sympy.Abs(of) ** (1 / degree)
    return of ** (1 / degree)


def _quotient(above: Any, below: Any) -> Any:
    return sympy.zoo if below.is_zero else above / below


def _call(parts: Any, bound: frozenset[str]) -> Any:
    function, *arguments = parts
    if function == "differentiate":
        of, by, order = arguments
        differentiated = value(of, bound)
        if differentiated.free_symbols - {symbol(by.parts[0])}:
            raise Unreadable("a derivative is of something that may depend on the variable")
        return sympy.diff(differentiated, symbol(by.parts[0]), int(order))
    return _FUNCTIONS[function](*(value(argument, bound) for argument in arguments))


def _power(parts: Any, bound: frozenset[str]) -> Any:
    base, exponent = (value(part, bound) for part in parts)
    if base.is_zero and exponent.is_zero:
        raise Unreadable("it has 0^0")
    if exponent.is_Rational and exponent.q % 2 == 1 and exponent.q > 1:
        return _root(base, Integer(exponent.q)) ** exponent.p
    return base**exponent


def _product(parts: Any, bound: frozenset[str]) -> Any:
    return sympy.Mul(*(value(part, bound) for part in parts))


def _sum(parts: Any, bound: frozenset[str]) -> Any:
    return sympy.Add(*(value(part, bound) for part in parts))


_CONSTANTS = {r"\pi": sympy.pi, "e": sympy.E, "i": sympy.I, r"\infty": sympy.oo}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: getattr(sympy, name) for name in ONE_ARGUMENT if hasattr(sympy, name)},
    "exp": sympy.exp,
    "abs": sympy.Abs,
    "floor": sympy.floor,
    "fractional part": lambda of: of - sympy.floor(of),
    "ceil": sympy.ceiling,
    "root": _root,
    "binomial": sympy.binomial,
    "factorial": sympy.factorial,
    "double factorial": sympy.factorial2,
    "mod": sympy.Mod,
    "max": sympy.Max,
    "min": sympy.Min,
    "gcd": Gcd,
    "lcm": Lcm,
}
_KINDS: dict[str, Callable[[Any, frozenset[str]], Any]] = {
    "number": lambda parts, _: Rational(parts[0]),
    "repeating": lambda parts, _: _fraction(repeating(*parts)),
    "base": lambda parts, _: _fraction(in_base(*parts)),
    "name": _name,
    "sum": _sum,
    "product": _product,
    "power": _power,
    "quotient": lambda parts, bound: _quotient(*(value(part, bound) for part in parts)),
    "call": _call,
    "log": _log,
    "derivative": _derivative,
    "applied": _applied,
    "series": _series,
    "integral": _integral,
}
