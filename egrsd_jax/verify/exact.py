r"""Whether two constants are equal, by their digits: no rounding to fifteen decimals, no `simplify`.

math-verify's comparison rounds, and so takes e^{-50} for e^{-60}. Values are compared to 150 digits.
"""

from typing import Any

from sympy import Float, Rational, floor, log
from sympy.concrete.expr_with_limits import ExprWithLimits

from egrsd_jax.verify.number import decimal_places

DIGITS = 30  # of an evaluation
MAX_DIGITS = 150  # to which values that are close are told apart
_CERTAIN_DIGITS = 20  # of a difference that is not zero: sympy vouches for up to ten too many in powers of powers
_MAX_BITS = 3_000_000  # of a value: evaluation loses more digits than that of larger ones
_CLOSE = "1e-15"  # relative difference over which two values differ for certain
_ZERO = "1e-100"  # under which a value may be a zero that evaluation did not recognise


def evaluated(exact: Any) -> Any:
    """Thirty digits of a constant; ln(1+10^{-40}) needs more to differ from zero."""
    return exact.evalf(DIGITS) or exact.evalf(MAX_DIGITS)


def values_equal(exact_prediction: Any, exact_answer: Any, *, is_rounded: bool) -> bool:
    """Whether two constants are equal; ValueError where they have no value that can be computed.

    `is_rounded`: one of the two is a decimal, so it has to state the other's value to six decimals and no more.
    """
    prediction, answer = evaluated(exact_prediction), evaluated(exact_answer)
    if not (prediction.is_number and answer.is_number):
        raise ValueError("one of the two answers has no value that can be computed")
    if not (prediction.is_finite and answer.is_finite):
        return bool(prediction.is_infinite and prediction == answer and prediction.is_extended_real)
    larger = max(abs(prediction), abs(answer))
    _, _, exponent, bits = Float(larger)._mpf_
    if abs(exponent + bits) > _MAX_BITS:
        raise ValueError(f"a value over 2^{_MAX_BITS:,}, or under its inverse, is not known to enough digits")
    gap = abs(prediction - answer)
    is_close = larger < Float(_ZERO) or gap <= larger * Float(_CLOSE)
    if is_close and _is_zero(exact_prediction - exact_answer):
        return True
    if not is_rounded or gap > 1:
        return False
    places = decimal_places(int(floor(log(larger, 10).evalf(DIGITS))))
    return prediction.round(places) == answer.round(places)


def _is_zero(gap: Any) -> bool:
    """Whether the difference of two close values has no digits that are certain, and so may be zero."""
    if isinstance(gap, Rational):
        return gap == 0
    if gap.has(ExprWithLimits):
        return True  # integrals and series are not known to more digits than have been compared
    certain = Float(1, _CERTAIN_DIGITS)._prec  # evaluation lowers the precision to what it vouches for
    number = gap.evalf(_CERTAIN_DIGITS, maxn=MAX_DIGITS) or gap.evalf(MAX_DIGITS)
    return all(part == 0 or part._prec < certain for part in number.atoms(Float))
