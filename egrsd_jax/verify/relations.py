r"""Whether two equations, or two inequalities, say the same.

Equations by their sides subtracted: equal up to a constant once denominators are multiplied out, or each solved for a
name that the other one has. So dv/dt + bv/m = f/m is m dv/dt + bv = f, while x^2 = x is not x = 1, which has lost a
solution. Inequalities may only differ by a positive constant.
"""

from typing import Any

import sympy
from sympy import Symbol

from egrsd_jax.verify.exact import evaluated
from egrsd_jax.verify.points import expressions_equal, unknowns_of
from egrsd_jax.verify.syntax import Node, Unreadable
from egrsd_jax.verify.values import value

Sides = tuple[Any, ...]
_TURNED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "=", "!=": "!="}


def relations_equal(prediction: Node, answer: Node) -> bool:
    """Whether two `relation` nodes are equivalent, sign by sign; Unreadable where one of them says nothing."""
    pairs = [_steps(node) for node in (prediction, answer)]
    if len(pairs[0]) != len(pairs[1]):
        if {sign for _, sign, _ in (*pairs[0], *pairs[1])} == {"="}:
            raise Unreadable("one is a chain of more equations than the other")
        return False
    forwards = all(_steps_equal(*both) for both in zip(*pairs, strict=True))
    return forwards or (
        len(pairs[0]) > 1 and all(_steps_equal(*both) for both in zip(pairs[0][::-1], pairs[1], strict=True))
    )


def _steps(node: Node) -> list[tuple[Any, str, Any]]:
    """The single relations of a chain a < b < c."""
    sides, signs = [value(side) for side in node.parts[::2]], node.parts[1::2]
    steps = list(zip(sides, signs, sides[1:], strict=False))
    if any(left == right for left, _, right in steps):
        raise Unreadable("it says nothing: both sides are the same")
    return steps


def _steps_equal(prediction: tuple[Any, str, Any], answer: tuple[Any, str, Any]) -> bool:
    (left, sign, right), (gold_left, gold_sign, gold_right) = prediction, answer
    if sign in {"=", "!="} or gold_sign in {"=", "!="}:
        return sign == gold_sign and _equations_equal(left, right, gold_left, gold_right)
    if sign == gold_sign:
        ratio = _ratio(left - right, gold_left - gold_right)
    elif sign == _TURNED[gold_sign]:
        ratio = _ratio(right - left, gold_left - gold_right)
    else:
        return False
    return ratio is not None and bool(ratio > 0)


def _equations_equal(left: Any, right: Any, gold_left: Any, gold_right: Any) -> bool:
    difference, gold = (_numerator(side) for side in (left - right, gold_left - gold_right))
    if difference.is_zero or gold.is_zero:
        raise Unreadable("it says nothing: its sides are equal")
    if _ratio(difference, gold) is not None:
        return True
    return _solved_alike((left, right), (gold_left, gold_right))


def _numerator(difference: Any) -> Any:
    """The difference of two sides over one denominator, without it, and without factors that are never zero."""
    above, _ = sympy.fraction(sympy.together(difference))
    return sympy.Mul(*(factor for factor in sympy.Mul.make_args(above) if not isinstance(factor, sympy.exp)))


def _ratio(one: Any, other: Any) -> Any | None:
    """The constant, not zero, by which one expression is the other; None where there is none."""
    unknowns = sorted(unknowns_of(one) | unknowns_of(other), key=str)
    if unknowns_of(one) != unknowns_of(other):
        one, other = sympy.expand(one), sympy.expand(other)
        if unknowns_of(one) != unknowns_of(other):
            return None
    if not unknowns:
        return None
    for start in range(3, 9):
        at = {unknown: sympy.Rational(101 + 37 * index, 83 + start) for index, unknown in enumerate(unknowns)}
        values = [evaluated(side.xreplace(at)) for side in (one, other)]
        if not all(number.is_number and number.is_finite and number != 0 for number in values):
            continue
        exact = one.xreplace(at) / other.xreplace(at)
        ratio = exact if exact.is_Rational else sympy.nsimplify(values[0] / values[1], tolerance=1e-20, full=False)
        return ratio if expressions_equal(one, ratio * other) else None
    return None


def _solved_alike(prediction: Sides, answer: Sides) -> bool:
    """Whether each equation is solved for a name, and each solution fulfils the other: y = ln x and x = e^y."""
    solutions = [_solution(sides) for sides in (prediction, answer)]
    if None in solutions:
        return False
    (name, solution), (gold_name, gold_solution) = solutions  # type: ignore[misc]
    return _fulfils(answer, name, solution) and _fulfils(prediction, gold_name, gold_solution)


def _solution(sides: Sides) -> tuple[Symbol, Any] | None:
    for side, other in (sides, sides[::-1]):
        if isinstance(side, Symbol) and side not in other.free_symbols:
            return side, other
    return None


def _fulfils(equation: Sides, name: Symbol, solution: Any) -> bool:
    left, right = (side.xreplace({name: solution}) for side in equation)
    try:
        return expressions_equal(left, right)
    except ValueError:
        return False
