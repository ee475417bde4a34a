r"""Whether two single answers are equal as mathematics: as expressions, as equations, as sets of real numbers.

The slow path of grading, on normalised text. It imports sympy and can run for very long: `hazards` keeps out what is
known, the pool kills the rest. What cannot be read, or not be compared, raises: it is neither equal nor different.
"""

import re
from dataclasses import replace
from fractions import Fraction
from typing import Any

import sympy

from egrsd_jax.verify.exact import evaluated
from egrsd_jax.verify.number import number, rounds_to
from egrsd_jax.verify.parser import parse
from egrsd_jax.verify.points import expressions_equal
from egrsd_jax.verify.reading import reading_of
from egrsd_jax.verify.relations import relations_equal
from egrsd_jax.verify.sets import is_about_sets, real_set, sets_equal
from egrsd_jax.verify.syntax import Node, Reading, Unreadable
from egrsd_jax.verify.values import value

_LOGARITHM = re.compile(r"\\log(?![A-Za-z_])")


def algebraically_equal(prediction: str, answer: str) -> bool:
    """Whether two normalised answers are equal.

    Raises Unreadable, with its reason, where one of them is no mathematics that is known, and whatever the computer
    algebra system raises while comparing: such a pair has not been graded.
    """
    if prediction.isalpha() and answer.isalpha() and len(prediction) > 3 and sorted(prediction) == sorted(answer):
        raise Unreadable("two runs of the same letters may be words or products")
    reading = reading_of(prediction, answer)
    if _equal(prediction, answer, reading):
        return True
    is_ambiguous = _LOGARITHM.search(prediction + answer) and not reading.common_logarithm
    if is_ambiguous and _equal(prediction, answer, replace(reading, common_logarithm=True)):
        raise Unreadable("they are equal if log is to base ten, and not if it is natural")
    return False


def _equal(prediction: str, answer: str, reading: Reading) -> bool:
    predicted = _meaning("prediction", prediction, reading)
    gold = _meaning("gold answer", answer, reading)
    if isinstance(gold, sympy.Expr) and gold.has(sympy.nan, sympy.zoo):
        raise Unreadable("the gold answer divides by zero")
    if isinstance(predicted, sympy.Set) and isinstance(gold, sympy.Set):
        return sets_equal(predicted, gold)
    if isinstance(predicted, Node) and isinstance(gold, Node):
        return relations_equal(predicted, gold)
    if not isinstance(predicted, sympy.Expr) or not isinstance(gold, sympy.Expr):
        return False  # an equation is no value, a value no set
    if predicted.has(sympy.nan, sympy.zoo):
        return False  # it divides by zero, and so equals nothing
    is_rounded = any((plain := number(text)) and plain.is_decimal for text in (prediction, answer))
    return expressions_equal(predicted, gold, is_rounded=is_rounded)


def load() -> None:
    """Import and build what grading needs, a second or two."""
    algebraically_equal(r"\sqrt{8}", r"2\sqrt{2}")


def _meaning(name: str, text: str, reading: Reading) -> Any:
    """A set of real numbers, an expression, or the tree of a relation that is no such set."""
    try:
        if not is_about_sets(text):
            return _value(parse(text, reading))
        try:
            return real_set(text, reading)
        except Unreadable as no_set:
            try:
                return _value(parse(text, reading))
            except Unreadable:
                raise no_set from None
    except Unreadable as error:
        raise Unreadable(f"the {name} cannot be read: {error}") from None


def _value(node: Node) -> Any:
    if node.kind == "relation":
        return node
    return value(node)


def is_rounded_to(exact: str, decimal: str) -> bool:
    """Whether a decimal states a value to all its digits; an angle that an inverse function gives, also in degrees."""
    rounded = number(decimal)
    expression = _meaning("prediction", exact, reading_of(exact, decimal))
    if rounded is None or not isinstance(expression, sympy.Expr) or expression.free_symbols:
        return False
    readings = [expression]
    if expression.has(sympy.pi, sympy.asin, sympy.acos, sympy.atan):
        readings.append(expression * 180 / sympy.pi)
    return any(rounds_to(Fraction(str(evaluated(one))), rounded, decimal) for one in readings)
