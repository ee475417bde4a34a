r"""Whether two answers are equal as mathematics: math-verify's parser, evaluation at points, math-verify's comparison.

The slow path of grading, on normalised text. It imports sympy when it is first used, sets no alarm (math-verify's own
time limit fails off the main thread) and can run for very long: `hazards` keeps out what is known, the pool kills the
rest. Expressions are compared by their values, because math-verify's comparison rounds to fifteen decimals and so takes
e^{-50} for e^{-60}, and because a wrong answer then costs milliseconds where `simplify` costs seconds. Equations,
inequalities and sets are left to math-verify.
"""

import logging
import random
import re
from functools import lru_cache
from typing import Any

from egrsd_jax.verify.number import decimal_places, number
from egrsd_jax.verify.rewrite import rewrite, rules

_DIGITS = 30  # of an evaluation
_MAX_DIGITS = 150  # to which values that are close are told apart
_POINTS = 4  # at which expressions with unknowns are compared; every second one has negative coordinates
_CERTAIN_DIGITS = 20  # of a difference that is not zero: sympy vouches for up to ten too many in powers of powers
_MAX_BITS = 3_000_000  # of a value: evaluation loses more digits than that of larger ones
_CLOSE = "1e-15"  # relative difference over which two values differ for certain
_ZERO = "1e-100"  # under which a value may be a zero that evaluation did not recognise

_RATIONAL = r"\\(?:frac|binom)\{-?\d+\}\{-?\d+\}"
# What the parser reads wrongly or not at all, in words that it reads.
_FOR_PARSER = rules(
    (r"(\d+)\.(\d+)", lambda match: rf"\frac{{{match[1]}{match[2]}}}{{1{'0' * len(match[2])}}}"),  # exact
    (r"([A-Za-z])_\{([^{}]*)\}('+)", lambda match: f"{match[1]}_{{{match[2]}{'prime' * len(match[3])}}}"),
    (r"([A-Za-z])('+)", lambda match: f"{match[1]}_{{{'prime' * len(match[2])}}}"),  # y' would be y
    (r"_\{\\([A-Za-z]+)\}", r"_{\1}"),  # L_{\odot} would be refused
    (r"(?<!\\)E(?=_)", r"\\Upsilon"),  # E_{1} would be Euler's number with an index, and refused
    (r"\\gamma(?![A-Za-z])", r"\\varkappa"),  # \gamma^{2}-1 would be the gamma function
    (r"%$", ""),
    (r"(?<=\d)(?=[eE][+-]?\d)", r"\\cdot "),  # 2e-1, with blanks before normalisation, would be 0.2
    # The parser adds an integer to a rational number behind it, as in 2\frac{1}{2}: 3(2) would be 5.
    (rf"({_RATIONAL}|[\d)])(?=\(|\\binom)", r"\1\\cdot"),
    (rf"({_RATIONAL}|\))(?=\d|\\frac)", r"\1\\cdot"),
)


class AlgebraMissing(ImportError):
    """math-verify cannot be imported."""


def algebraically_equal(prediction: str, answer: str) -> bool:
    """Whether two normalised answers are equal; what cannot be parsed equals nothing.

    Raises whatever the computer algebra system raises while comparing, and RecursionError or MemoryError while
    parsing: such a pair has not been graded.
    """
    fold_case = _only_case_differs(prediction, answer)
    predicted, gold = _parse(prediction, fold_case), _parse(answer, fold_case)
    if predicted is None or gold is None:
        return False
    if _is_expression(gold):
        if not _is_expression(predicted):
            return False  # math-verify would take the right side of an equation: x+1=0 for 0
        is_rounded = any((plain := number(text)) and plain.is_decimal for text in (prediction, answer))
        if (equal := _equal_at_points(predicted, gold, is_rounded)) is not None:
            return equal
    return _verify()(
        gold, predicted, timeout_seconds=None, raise_on_error=True, allow_set_relation_comp=True, strict=True
    )


def load() -> None:
    """Import and build what grading needs, a second or two; AlgebraMissing where math-verify is not installed."""
    _parse("1", fold_case=False)


@lru_cache(maxsize=1)
def _verify() -> Any:
    try:
        from math_verify import verify
    except ImportError as error:
        raise AlgebraMissing(
            f"grading needs math-verify, which cannot be imported ({error}): pip install math-verify"
        ) from error
    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that we switched its alarm off, on purpose
    return verify


@lru_cache(maxsize=1024)
def _parse(text: str, fold_case: bool) -> Any | None:
    """The sympy object that the text stands for, `i` being the imaginary unit; None where it is no mathematics."""
    _verify()
    import sympy
    from latex2sympy2_extended import latex2sympy
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig

    try:
        parsed: Any = latex2sympy(
            rewrite(text, _FOR_PARSER),
            is_real=True,
            normalization_config=None,
            conversion_config=ConversionConfig(lowercase_symbols=fold_case),
        )
        return parsed.xreplace({symbol: sympy.I for symbol in parsed.free_symbols if str(symbol) == "i"})
    except (RecursionError, MemoryError):
        raise
    except Exception:  # the parser raises bare Exceptions
        return None


def _only_case_differs(prediction: str, answer: str) -> bool:
    r"""Whether to read R and r as one letter: never where one of the answers uses both."""
    predicted, gold = (set(re.findall(r"[A-Za-z]", re.sub(r"\\[A-Za-z]+", "", text))) for text in (prediction, answer))
    folded = {letter.lower() for letter in gold}
    return (
        predicted != gold
        and {letter.lower() for letter in predicted} == folded
        and len(predicted) == len(gold) == len(folded)
    )


def _is_expression(parsed: Any) -> bool:
    import sympy

    return isinstance(parsed, sympy.Expr) and not parsed.is_Matrix


def _equal_at_points(prediction: Any, answer: Any, is_rounded: bool) -> bool | None:
    """Compare the values of two expressions, at fixed points where they have unknowns; None where they have none.

    `is_rounded`: one of the two is a decimal, so it has to state the other's value to six decimals and no more.
    """
    from sympy import Derivative, I, Rational
    from sympy.core.function import AppliedUndef

    unknowns = set().union(
        *((side.free_symbols | side.atoms(AppliedUndef, Derivative)) for side in (prediction, answer))
    )
    is_complex = prediction.has(I) or answer.has(I)
    compared = 0
    for point in range(_POINTS if unknowns else 1):
        draw, sign = random.Random(point), (-1) ** point
        at = {unknown: Rational(sign * draw.randint(31, 171), 101) for unknown in sorted(unknowns, key=str)}
        exact = [side.xreplace(at) for side in (prediction, answer)]
        values = [side.evalf(_DIGITS) or side.evalf(_MAX_DIGITS) for side in exact]  # ln(1+10^{-40}) comes out as 0
        if not unknowns and not all(value.is_number for value in values):
            raise ValueError("one of the two answers has no value that can be computed")
        if unknowns and not all(
            value.is_number and value.is_finite and (value.is_real or is_complex) for value in values
        ):
            continue  # outside the domain of one of the two
        if not _values_equal(values[0], values[1], exact[0] - exact[1], is_rounded=is_rounded):
            return False
        compared += 1
    return True if compared else None


def _values_equal(prediction: Any, answer: Any, exact_gap: Any, *, is_rounded: bool) -> bool:
    from sympy import Float, floor, log

    if not (prediction.is_finite and answer.is_finite):
        return bool(prediction.is_infinite and prediction == answer and prediction.is_extended_real)
    larger = max(abs(prediction), abs(answer))
    _, _, exponent, bits = Float(larger)._mpf_
    if abs(exponent + bits) > _MAX_BITS:
        raise ValueError(f"a value over 2^{_MAX_BITS:,}, or under its inverse, is not known to enough digits")
    gap = abs(prediction - answer)
    if (larger < Float(_ZERO) or gap <= larger * Float(_CLOSE)) and _is_zero(exact_gap):
        return True
    if not is_rounded or gap > 1:
        return False
    places = decimal_places(int(floor(log(larger, 10).evalf(_DIGITS))))
    return prediction.round(places) == answer.round(places)


def _is_zero(gap: Any) -> bool:
    """Whether the difference of two close values has no digits that are certain, and so cannot be told from zero."""
    from sympy import Float
    from sympy.concrete.expr_with_limits import ExprWithLimits

    if gap.has(ExprWithLimits):
        return True  # integrals and series are not known to more digits than have been compared
    certain = Float(1, _CERTAIN_DIGITS)._prec  # evaluation lowers the precision to what it vouches for
    value = gap.evalf(_CERTAIN_DIGITS, maxn=_MAX_DIGITS) or gap.evalf(_MAX_DIGITS)
    return all(part == 0 or part._prec < certain for part in value.atoms(Float))
