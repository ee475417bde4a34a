r"""Whether two expressions with unknowns are equal: at points of several sizes and signs, and where they bend.

A formula and another that differs agree nowhere but on a thin set, if both are analytic: a few points tell them apart
for certain. Functions with bends and steps (bars, max, floor, arcsin of sin) agree on whole half-lines, so there are
points on both sides of every bend too, and far away. Unknowns of floor, gcd, a factorial or a sum are whole numbers.
"""

import random
from collections.abc import Iterator
from itertools import product
from typing import Any

import sympy
from sympy import Abs, I, Max, Min, Mod, Pow, Rational, Symbol, ceiling, factorial, factorial2, floor, log
from sympy.core.function import AppliedUndef
from sympy.functions.combinatorial.factorials import binomial

from egrsd_jax.verify.exact import evaluated, values_equal
from egrsd_jax.verify.syntax import Unreadable
from egrsd_jax.verify.values import Gcd, Lcm

# Sizes of the unknowns, point after point; the first three points are positive, as quantities mostly are.
_SIZES = (1, 1, 7, 1, 7, 30, 0, 300, 2, 2, 2000, 0)
_SIGNS = (1, 1, 1, -1, -1, 1, -1, -1, 1, -1, 1, 1)
_WHOLE = (3, 4, 7, 1, 2, 5, 6, 8, 12, 17, 30, 101)
_WHOLE_LETTERS = set("ijkmnpqKMN")
_MAX_BENDS = 24
_MAX_DEGREE = 6  # of a polynomial whose zeros are bends
_NOT_NEGATIVE = (factorial, factorial2, binomial)
_STEPS = (floor, ceiling, Mod)
_MAX_EXPONENT = 300  # of a point's coordinate
_MAX_EXPANDED = 10_000  # product of the exponents, each and one, of what is multiplied out
_ENOUGH = 2  # points in the domain of both


class NowhereComparable(Unreadable):
    """No point was found at which both have a value."""


def expressions_equal(prediction: Any, answer: Any, *, is_rounded: bool = False) -> bool:
    """Whether two expressions have the same value wherever the answer has one.

    Raises NowhereComparable where no point is known at which they have one, ValueError where a constant has none.
    """
    if prediction == answer:
        return True
    unknowns = sorted(unknowns_of(prediction) | unknowns_of(answer), key=str)
    operators = [
        {str(call.func) for call in side.atoms(AppliedUndef) if str(call.func).isalpha()}
        for side in (prediction, answer)
    ]
    if unknown_operators := {name for name in operators[0] ^ operators[1] if len(name) > 1}:
        raise NowhereComparable(f"the function {min(unknown_operators)} is not known")
    if not unknowns:
        return values_equal(prediction, answer, is_rounded=is_rounded)
    whole = _whole_numbers(prediction, answer, unknowns)
    readings = [whole]
    if _is_discrete(prediction) or _is_discrete(answer):
        # Letters that mostly count, as n does, may be meant as whole numbers where only these make the two equal.
        readings.append(whole | {unknown for unknown in unknowns if _counts(unknown)})
    differs = False
    for reading in readings:
        comparison = _Comparison(prediction, answer, is_rounded=is_rounded)
        if comparison.differs_at(_points(prediction, answer, unknowns, reading)):
            differs = True
        elif comparison.compared >= _ENOUGH:
            return is_rounded or not _differ_as_polynomials(prediction, answer, unknowns)
    if not differs:
        raise NowhereComparable("no point was found at which both answers have a value")
    return False


def _differ_as_polynomials(prediction: Any, answer: Any, unknowns: list[Any]) -> bool:
    """Whether the difference of two quotients of polynomials is another one than zero: worked out, as such a difference
    may vanish at every point that was tried. Anything else, and what is long when it is multiplied out, is not decided
    here: its difference is an analytic function between the bends, of no family that is made to vanish there."""
    sides = prediction, answer
    if not all(isinstance(unknown, Symbol) for unknown in unknowns):
        return False
    if not all(side.is_rational_function(*unknowns) and _is_short(side) for side in sides):
        return False
    numerator = sympy.fraction(sympy.together(prediction - answer))[0]
    return not sympy.Poly(numerator, *unknowns).is_zero


def _is_short(side: Any) -> bool:
    exponents = [abs(power.exp) for power in side.atoms(Pow) if power.exp.is_Integer and power.base.free_symbols]
    return sympy.prod([exponent + 1 for exponent in exponents]) <= _MAX_EXPANDED


class _Comparison:
    """Compares two expressions point by point, and counts the points at which both had a value."""

    def __init__(self, prediction: Any, answer: Any, *, is_rounded: bool) -> None:
        self.prediction, self.answer, self.is_rounded = prediction, answer, is_rounded
        self.is_complex = prediction.has(I) or answer.has(I)
        self.unknowns = len(unknowns_of(prediction) | unknowns_of(answer))
        self.roots = [_domain(side) for side in (prediction, answer)]
        self.exponents = [exponent for side in (prediction, answer) for exponent in _large_if_large(side)]
        self.compared = 0

    def differs_at(self, points: Iterator[dict[Any, Any]]) -> bool:
        """Whether the two differ at some point."""
        missing = set()
        for at in points:
            if not all(_is_moderate(exponent, at) for exponent in self.exponents):
                continue
            sides = [self._side(index, at) for index in (0, 1)]
            if None in sides:
                if sides[1] is not None:
                    missing.add(tuple(at.values()))
                continue
            try:
                if not values_equal(*sides, is_rounded=self.is_rounded):
                    return True
            except ValueError:
                continue  # too large or too small to be known: there are other points
            self.compared += 1
        # ln x is no answer for ln |x|: it has no value on one side. Several unknowns are quantities, mostly positive.
        return self.unknowns == 1 and len(missing) > 1

    def _side(self, index: int, at: dict[Any, Any]) -> Any:
        """The exact value of a side at a point; None outside its domain."""
        if not self.is_complex and not all(_is_inside(condition, at) for condition in self.roots[index]):
            return None
        exact = (self.prediction, self.answer)[index].xreplace(at)
        number = evaluated(exact)
        if not number.is_number or not number.is_finite or not (number.is_real or self.is_complex):
            return None
        return exact


def _domain(side: Any) -> list[tuple[Any, bool]]:
    """What must not be negative for real values, and whether it must not be zero: under roots, in logarithms."""
    roots = [(power.base, False) for power in side.atoms(Pow) if power.exp.is_Rational and power.exp.q > 1]
    logarithms = [(logarithm.args[0], True) for logarithm in side.atoms(log)]
    return [(what, strictly) for what, strictly in roots + logarithms if not what.is_number]


def _large_if_large(side: Any) -> list[Any]:
    """What makes numbers of many digits where it is large: exponents, and what factorials are of."""
    exponents = [power.exp for power in side.atoms(Pow)]
    of_factorials = [of for call in side.atoms(*_NOT_NEGATIVE) for of in call.args]
    return [size for size in exponents + of_factorials if size.free_symbols]


def _is_moderate(exponent: Any, at: dict[Any, Any]) -> bool:
    """Whether a power or a factorial has not too many digits, as it is worked out exactly."""
    size = abs(exponent.xreplace(at).evalf(3))
    return bool(size.is_number and size.is_finite and size < _MAX_EXPONENT)


def _is_inside(condition: tuple[Any, bool], at: dict[Any, Any]) -> bool:
    number = evaluated(condition[0].xreplace(at))
    if not number.is_number or not number.is_real:
        return False
    return bool(number > 0) or (not condition[1] and bool(number == 0))


def unknowns_of(side: Any) -> set[Any]:
    """The names, and the functions that nothing is known about, of an expression."""
    return side.free_symbols | side.atoms(AppliedUndef)


def _is_discrete(side: Any) -> bool:
    """Whether it is about whole numbers: has steps or factorials in it, (-1)^n or cos(n pi)."""
    return (
        side.has(*_STEPS, *_NOT_NEGATIVE, Gcd, Lcm)
        or any(power.base.is_negative and power.exp.free_symbols for power in side.atoms(Pow))
        or any(wave.args[0].free_symbols and wave.args[0].has(sympy.pi) for wave in side.atoms(sympy.sin, sympy.cos))
    )


# --- Points --------------------------------------------------------------------------------------------------------


def _points(prediction: Any, answer: Any, unknowns: list[Any], whole: set[Any]) -> Iterator[dict[Any, Any]]:
    """Points of several sizes and signs, then points around the bends of either side."""
    positive = _positive(prediction, answer, unknowns, whole)
    has_powers = any(power.exp.free_symbols for side in (prediction, answer) for power in side.atoms(Pow))
    for number, (size, sign) in enumerate(zip(_SIZES, _SIGNS, strict=True)):
        draw = random.Random(number)
        at = {}
        for index, unknown in enumerate(unknowns):
            # Signs of two unknowns are the same at some points and not at others.
            signed = 1 if unknown in positive else sign * (-1 if sign < 0 and index % 2 and number % 2 == 0 else 1)
            if unknown in whole:
                at[unknown] = sympy.Integer(signed * _WHOLE[(number + 5 * index) % len(_WHOLE)])
            else:
                # Powers of numbers are worked out exactly: with small denominators these stay small.
                scale = Rational(draw.randint(3, 9), 4) if has_powers else Rational(draw.randint(31, 171), 101)
                at[unknown] = signed * (scale * size if size else scale / 23)
        yield at
    if whole and len(unknowns) <= 2:
        counting = sorted(whole, key=str)
        for values in product(range(10) if positive else range(-6, 10), repeat=len(whole)):
            yield {
                **{unknown: Rational(73, 101) for unknown in unknowns},
                **dict(zip(counting, map(sympy.Integer, values), strict=True)),
            }
    for at in _around_bends(prediction, answer, unknowns, whole):
        if all(at[unknown] > 0 for unknown in positive):
            yield at


def _around_bends(prediction: Any, answer: Any, unknowns: list[Any], whole: set[Any]) -> Iterator[dict[Any, Any]]:
    """Points on both sides of the zeros of what is in bars, in max and min, and of the steps of floor and ceiling."""
    count = 0
    for bend in _bends(prediction, answer):
        for unknown in sorted(bend.free_symbols, key=str):
            others = {
                other: (sympy.Integer(5) if other in whole else Rational(137, 101) + index)
                for index, other in enumerate(unknowns)
                if other != unknown
            }
            for zero in _zeros(bend.xreplace(others), unknown):
                for step in (0, 1, -1) if unknown in whole else (Rational(1, 50), -Rational(1, 50), 3, -3):
                    if (count := count + 1) > _MAX_BENDS:
                        return
                    yield {**others, unknown: (sympy.floor(zero) if unknown in whole else zero) + step}


def _bends(prediction: Any, answer: Any) -> list[Any]:
    """Expressions at whose zeros one of the two changes its formula."""
    bends: list[Any] = []
    for side in (prediction, answer):
        bends += [bend.args[0] for bend in side.atoms(Abs, sympy.sign)]
        for choice in side.atoms(Max, Min):
            bends += [one - choice.args[0] for one in choice.args[1:]]
        bends += [step.args[0] - shift for step in side.atoms(floor, ceiling) for shift in (0, 1)]
        # A modulus, a divisor and a binomial coefficient show only where a number reaches them.
        bends += [call.args[0] - other for call in side.atoms(Mod, Gcd, Lcm, binomial) for other in call.args[1:]]
        bends += [condition for condition, _ in _domain(side)]
    return sorted(set(bends), key=str)


def _zeros(bend: Any, unknown: Symbol) -> list[Any]:
    polynomial = sympy.fraction(sympy.together(bend))[0].as_poly(unknown)
    if polynomial is None or not 0 < polynomial.degree() <= _MAX_DEGREE:
        return []
    return [sympy.nsimplify(zero, rational=True, tolerance=1e-9) for zero in polynomial.nroots(n=15) if zero.is_real]


def _positive(prediction: Any, answer: Any, unknowns: list[Any], whole: set[Any]) -> set[Any]:
    """Unknowns that are not negative: of divisors and factorials, and quantities."""
    calls = [call for side in (prediction, answer) for call in side.atoms(*_NOT_NEGATIVE, Gcd, Lcm)]
    return (whole & set().union(*(call.free_symbols for call in calls))) | _quantities(prediction, answer, unknowns)


def _quantities(prediction: Any, answer: Any, unknowns: list[Any]) -> set[Any]:
    """Unknowns taken for positive: those of a formula of several quantities, at least three, with a root in it."""
    if len(unknowns) < 3 or prediction.has(I) or answer.has(I):
        return set()
    has_root = any(
        power.exp.is_Rational and power.exp.q > 1 for side in (prediction, answer) for power in side.atoms(Pow)
    )
    return set(unknowns) if has_root else set()


def _whole_numbers(prediction: Any, answer: Any, unknowns: list[Any]) -> set[Any]:
    """Unknowns that can only be whole numbers: of gcd, of factorials, at the ends of sums; n and its like of floor."""
    whole: set[Any] = set()
    for side in (prediction, answer):
        for call in side.atoms(Gcd, Lcm, *_NOT_NEGATIVE):
            whole |= call.free_symbols
        for series in side.atoms(sympy.Sum, sympy.Product):
            whole |= series.free_symbols & set().union(*(end.free_symbols for end in series.limits[0][1:]))
        for step in side.atoms(*_STEPS):
            whole |= {unknown for unknown in step.free_symbols if _counts(unknown)}
    return whole & set(unknowns)


def _counts(unknown: Symbol) -> bool:
    """Whether a letter next to floor and ceiling is a whole number by custom."""
    return str(unknown).partition("_")[0] in _WHOLE_LETTERS
