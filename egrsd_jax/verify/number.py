r"""Answers that are plain numbers, compared exactly and without a computer algebra system.

`4.5\times10^{33}`, `-1/3`, `137\frac{1}{2}`, `0.\overline{3}`, `12.5%`: most answers of most benchmarks. Everything
here takes normalised text.
"""

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

DECIMALS = 6  # to which a decimal has to state a value that it cannot state exactly: math-verify's default

_MAX_EXPONENT = 1_000  # of ten; beyond it `10^{n}` is no plain number but something that can fill the memory
_MAX_LENGTH = 1_000

_DECIMAL = r"\d+(?:\.\d+)?"
_NUMBER = re.compile(
    rf"(?P<sign>-?)(?:"
    rf"(?P<whole>\d+)?\\frac\{{(?P<top>-?{_DECIMAL})\}}\{{(?P<bottom>-?{_DECIMAL})\}}"
    rf"|(?P<left>{_DECIMAL})/(?P<right>{_DECIMAL})"
    rf"|(?P<start>\d+\.\d*)\\overline\{{(?P<period>\d+)\}}"
    rf"|(?:(?P<mantissa>{_DECIMAL})(?:\\times|\\cdot))?10\^\{{(?P<exponent>-?\d{{1,4}})\}}"
    rf"|(?P<decimal>{_DECIMAL})"
    rf")(?P<percent>%?)"
)
_PLAIN_DECIMAL = re.compile(rf"-?{_DECIMAL}")
_IN_BASE = re.compile(r"([0-9A-Z]*[0-9][0-9A-Z]*|[A-Z]{2,})_\{(\d+)\}")


@dataclass(frozen=True)
class Number:
    """A number as it was written: its value, whether as a decimal, whether with a percent sign (not in the value)."""

    value: Fraction
    is_decimal: bool
    is_percent: bool


@lru_cache(maxsize=4096)
def number(text: str) -> Number | None:
    """Read normalised text as a plain number; None where it is anything else."""
    if len(text) > _MAX_LENGTH or (match := _NUMBER.fullmatch(text)) is None:
        return None
    if (magnitude := _magnitude(match)) is None:
        return None
    sign = -1 if match["sign"] else 1
    return Number(sign * magnitude, is_decimal="." in text and not match["period"], is_percent=bool(match["percent"]))


def _magnitude(match: re.Match[str]) -> Fraction | None:
    if match["top"]:
        return _quotient(match["top"], match["bottom"], int(match["whole"] or 0))
    if match["left"]:
        return _quotient(match["left"], match["right"])
    if match["period"]:
        return repeating(match["start"], match["period"])
    if match["exponent"]:
        exponent = int(match["exponent"])
        return Fraction(match["mantissa"] or 1) * Fraction(10) ** exponent if abs(exponent) <= _MAX_EXPONENT else None
    return Fraction(match["decimal"])


def repeating(start: str, period: str) -> Fraction:
    r"""The value of 0.1\overline{6}: the digits before the period, point included, and the period."""
    digits_before = len(start) - start.index(".") - 1
    return Fraction(start.rstrip(".")) + Fraction(int(period), (10 ** len(period) - 1) * 10**digits_before)


def in_base(digits: str, base: str) -> Fraction:
    """The value of whole digits in a base from 2 to 36; ValueError where a digit is not one of it."""
    if not base.isdigit() or not 2 <= int(base) <= 36:
        raise ValueError(f"{base} is no base from 2 to 36")
    return Fraction(int(digits, int(base)))


def _quotient(top: str, bottom: str, whole: int = 0) -> Fraction | None:
    if not Fraction(bottom):
        return None
    return whole + Fraction(top) / Fraction(bottom)


def numbers_agree(prediction: Number, answer: Number) -> bool:
    """Whether two plain numbers are the same answer.

    Two integers, two fractions or two decimals have to be equal. A decimal may stand for a fraction that no decimal
    states exactly when the two agree to six decimals, or to six significant digits below 0.1: 0.333333 for 1/3.
    Where only one of the two has a percent sign, the other may count in percent or in parts of one: 50% is 50 and 0.5.
    """
    if prediction.is_percent == answer.is_percent:
        return _values_agree(prediction, answer)
    return _values_agree(prediction, answer) or _values_agree(_in_parts_of_one(prediction), _in_parts_of_one(answer))


def _in_parts_of_one(quantity: Number) -> Number:
    if not quantity.is_percent:
        return quantity
    return Number(quantity.value / 100, quantity.is_decimal, is_percent=False)


def _values_agree(prediction: Number, answer: Number) -> bool:
    if prediction.value == answer.value:
        return True
    exact = answer.value if prediction.is_decimal else prediction.value
    if prediction.is_decimal == answer.is_decimal or _is_finite_decimal(exact):
        return False
    places = decimal_places(_order(abs(exact)))
    return round(prediction.value, places) == round(answer.value, places)


def decimal_places(order: int) -> int:
    """The decimals to which a value between 10^order and 10^(order+1) has to be stated: six, more below 0.1."""
    return DECIMALS + max(0, -(order + 1))


def _order(magnitude: Fraction) -> int:
    """The exponent of ten of a positive number."""
    if magnitude >= 1:
        return len(str(int(magnitude))) - 1
    return -len(str(math.ceil(1 / magnitude) - 1))


def _is_finite_decimal(value: Fraction) -> bool:
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return rest == 1


def same_in_base(prediction: str, answer: str) -> bool | None:
    r"""Compare answers that carry a base, `2516_{8}`; None where neither does, or where their digits leave it open.

    Where the gold carries one, the digits have to agree, and so does the base unless the prediction leaves it out.
    Where only the prediction does, its value has to be the gold's; the same digits in another base may be meant.
    """
    stated, gold = _IN_BASE.fullmatch(prediction), _IN_BASE.fullmatch(answer)
    if gold is not None:
        return prediction == gold[1] if stated is None else stated.groups() == gold.groups()
    plain = number(answer)
    if stated is None or plain is None or stated[1] == answer:
        return None
    try:
        return in_base(*stated.groups()) == plain.value
    except ValueError:
        return None


def rounds_to(value: Fraction, rounded: Number, written: str) -> bool:
    """Whether a value is what a decimal states to all its digits, give or take one unit of the last."""
    mantissa = re.split(r"\\|e", written)[0]
    places = len(mantissa.partition(".")[2])
    scale = Fraction(mantissa) and abs(rounded.value / Fraction(mantissa)) if _PLAIN_DECIMAL.fullmatch(mantissa) else 1
    return abs(value - rounded.value) <= (scale or 1) * Fraction(1, 10**places)
