r"""Whether an answer is correct: exactly the same first, then by its parts and numbers, then by algebra.

Last station of grading: extract -> normalise -> **grade**. `settle` needs microseconds and no sympy and decides nearly
everything; `work_out` decides the rest and may take for ever, which is why the pool runs it in processes that it can
kill. `grade` is both in the calling process.
"""

import re
from dataclasses import replace
from fractions import Fraction
from functools import partial
from types import ModuleType
from typing import NamedTuple

from egrsd_jax.verify import naming
from egrsd_jax.verify.characters import in_commands
from egrsd_jax.verify.extract import extract_answer
from egrsd_jax.verify.hazards import MAX_RAW_LENGTH, hazard
from egrsd_jax.verify.measures import measure
from egrsd_jax.verify.normalise import Thousands, measure_of, normalise
from egrsd_jax.verify.number import Number, number, numbers_agree, rounds_to, same_in_base
from egrsd_jax.verify.parser import is_readable
from egrsd_jax.verify.reading import has_fractional_part
from egrsd_jax.verify.structure import (
    LIST,
    SET,
    TUPLE,
    UNION,
    Collection,
    Same,
    Settled,
    are_plain_numbers,
    collection,
    collections_agree,
    is_list,
    only_item,
    split,
    without_group,
)
from egrsd_jax.verify.wording import condition_apart, relation_of, with_index_of, without_label

_PLAIN = re.compile(r"-?(?:\d+(?:\.\d+)?|\\frac\{-?\d+\}\{\d+\})")  # numbers in their canonical spelling
_WITH_LETTERS = re.compile(r"(-?[\d.,]+) ?([A-Za-z]{1,2})")
_UNKNOWN = re.compile(r"(?<![\\A-Za-z])[A-DF-HJ-Za-df-hj-z](?![A-Za-z])")
_WORDS = re.compile(r"\\text\{([^{}]*)\}")


class AlgebraMissing(ImportError):
    """sympy cannot be imported."""


class _Stage(NamedTuple):
    """How single answers are compared: at once, or with algebra; and whether a decimal is what a value rounds to."""

    same: Same
    rounds: Same


def grade(prediction: str, answer: str) -> bool:
    r"""Whether a prediction is the gold answer; both are bare answers, or texts whose last box is read.

    In the calling process, without a time limit: inputs that are known to hang are turned away by their spelling, and
    what cannot be graded is not correct. Use `GradingPool` for answers of a model: it has a deadline and says which
    answers could not be graded. Raises AlgebraMissing (an ImportError) where sympy is not installed.
    """
    if (verdict := settle(prediction, answer)) is not None:
        return verdict
    if refusal(prediction, answer):
        return False
    try:
        return work_out(prediction, answer)
    except AlgebraMissing:
        raise
    except Exception:  # sympy raises nearly anything on nonsense; the pool reports it
        return False


def settle(prediction: str, answer: str) -> bool | None:
    """The verdict where it needs no algebra, within microseconds; None where it does."""
    prediction, answer = bare(prediction), bare(answer)
    if not prediction or not answer:
        return False
    if max(len(prediction), len(answer)) > MAX_RAW_LENGTH:
        return True if prediction == answer else None
    if prediction == answer:
        return True
    if _PLAIN.fullmatch(prediction) and _PLAIN.fullmatch(answer):
        return _numbers_settled(number(prediction), number(answer))
    if _scale(prediction, answer) == 1 and normalise(prediction) == normalise(answer) != "":
        return True
    return None if refusal(prediction, answer) else _judge(prediction, answer, _AT_ONCE)


def refusal(prediction: str, answer: str) -> str | None:
    """Why a pair that is not settled must not be worked out; None where it may be."""
    for name, text in (("prediction", bare(prediction)), ("gold answer", bare(answer))):
        if len(text) > MAX_RAW_LENGTH:
            return f"the {name} has {len(text):,} characters; no answer over {MAX_RAW_LENGTH:,} is parsed"
        normal = normalise(text)
        if (reason := hazard(normal)) and not are_plain_numbers(normal):
            return f"the {name} is not evaluated: {reason}"
    return None


def work_out(prediction: str, answer: str) -> bool:
    """The verdict by algebra, item by item where an answer has several.

    Raises Unreadable where one of them cannot be read, what sympy raises while comparing, and may hang.
    """
    return bool(_judge(bare(prediction), bare(answer), _WORKED_OUT))


def within(prediction: str, answer: str, tolerance: float) -> bool:
    """Whether two plain numbers differ by at most a tolerance, units converted; nothing else has one."""
    prediction, answer = bare(prediction), bare(answer)
    if max(len(prediction), len(answer)) > MAX_RAW_LENGTH or (scale := _scale(prediction, answer)) is None:
        return False
    plain, gold = number(normalise(prediction)), number(normalise(answer))
    if plain is None or gold is None or plain.is_percent != gold.is_percent:
        return False
    return abs(plain.value * scale - gold.value) <= Fraction(str(tolerance))


def bare(text: str) -> str:
    """The answer itself: the content of the last box where a whole text was given, and nothing where that has none."""
    if r"\boxed" in text or "think>" in text:
        return extract_answer(text) or ""
    return text.strip()


def load_algebra() -> ModuleType:
    """The module that compares with sympy, imported when it is first used; AlgebraMissing where that fails."""
    try:
        from egrsd_jax.verify import algebra
    except ImportError as error:
        raise AlgebraMissing(f"grading needs sympy, which cannot be imported ({error}): pip install sympy") from error
    return algebra


# --- From the answers as written to single values ------------------------------------------------------------------


def _judge(prediction: str, answer: str, stage: _Stage) -> Settled:
    prediction, answer = in_commands(prediction), in_commands(answer)
    prediction = without_label(prediction, normalise(answer))
    stated, condition = condition_apart(prediction)
    gold_stated, gold_condition = condition_apart(answer)
    stated = with_index_of(stated, condition, gold_stated)
    verdict = _judge_values(stated, gold_stated, stage)
    if verdict is False or not condition or not gold_condition or normalise(condition) == normalise(gold_condition):
        return verdict
    relations = normalise(relation_of(condition)), normalise(relation_of(gold_condition))
    return _all((verdict, relations[0] == relations[1] or stage.same(*relations)))


def _judge_values(prediction: str, answer: str, stage: _Stage) -> Settled:
    if measure_of(answer) and (glued := _WITH_LETTERS.fullmatch(prediction)) and measure(glued[2]):
        prediction = rf"{glued[1]}\text{{ {glued[2]}}}"  # 10 m, where a length is asked for
    if (scale := _scale(prediction, answer)) is None:
        return False
    gold = normalise(answer)
    predicted = _with_separators_of(prediction, collection(gold))
    if scale != 1:
        plain, gold_plain = number(predicted), number(gold)
        if plain is not None and gold_plain is not None:
            return numbers_agree(replace(plain, value=plain.value * scale), gold_plain)
        predicted = rf"\frac{{{scale.numerator}}}{{{scale.denominator}}}({predicted})"
    return _compare(predicted, gold, stage)


def _scale(prediction: str, answer: str):
    """By what a prediction's unit is larger than the gold's; 1 where one has none, None where they do not compare."""
    if (unit := measure_of(prediction)) is None or (gold := measure_of(answer)) is None:
        return 1
    return unit.size / gold.size if unit.kind == gold.kind else None


def _with_separators_of(prediction: str, gold: Collection | None) -> str:
    """Commas before three digits are inside numbers where one number is asked for, or only so as many as are asked."""
    if gold is None or gold.kind not in {LIST, SET, TUPLE}:
        return normalise(prediction)
    listed, joined = (
        normalise(prediction, thousands=thousands) for thousands in (Thousands.NOWHERE, Thousands.EVERYWHERE)
    )
    if listed == joined or _count(listed) == len(gold.items):
        return listed
    return joined if _count(joined) == len(gold.items) else listed


def _count(text: str) -> int:
    return 1 if (several := collection(text)) is None else len(several.items)


def _compare(prediction: str, answer: str, stage: _Stage) -> Settled:
    """Compare two normalised answers, taking them apart until single ones are left."""
    if r"\approx" in prediction + answer and not is_list(prediction) and not is_list(answer):
        sides = naming.sides(prediction), naming.sides(answer)
        if sides != ([prediction], [answer]):
            return _compare_approximated(*sides, stage)
    prediction, answer = naming.as_derivative(prediction, answer), naming.as_derivative(answer, prediction)
    prediction, answer = (without_group(text) for text in naming.without_names(prediction, answer))
    if not prediction or not answer:
        return False
    if prediction == answer:
        return True
    predicted, gold = collection(prediction), collection(answer)
    if predicted is not None and gold is not None and r"\pm" in prediction + answer:
        points = naming.as_point(prediction, gold), naming.as_point(answer, predicted)
        if points != (prediction, answer):
            return _compare(*points, stage)
    predicted, gold = naming.in_order(predicted, gold)
    if predicted is not None and gold is not None:
        agree = collections_agree(predicted, gold, partial(_compare, stage=stage))
        return stage.same(prediction, answer) if agree is None else agree
    if (alone := only_item(predicted)) is not None:
        return _compare_alone((alone, answer), (prediction, answer), stage)
    if (alone := only_item(gold)) is not None:
        return _compare_alone((prediction, alone), (prediction, answer), stage)
    if (predicted is None) is not (gold is None) and _is_several_against_one(
        predicted or gold, answer if predicted else prediction
    ):
        return False
    return stage.same(prediction, answer)


def _compare_alone(alone: tuple[str, str], whole: tuple[str, str], stage: _Stage) -> Settled:
    r"""A set of one element, which stands for itself: but \{x\} of an unknown may be its fractional part, so what is
    equal as a set of one is left open, and what speaks of whole parts is read so."""
    if not _UNKNOWN.search("".join(re.findall(r"\\\{.*\\\}", "".join(whole)))):
        return _compare(*alone, stage)
    if has_fractional_part(*whole):
        return stage.same(*whole)
    return False if _compare(*alone, stage) is False else stage.same(*whole)


def _is_several_against_one(several: Collection | None, single: str) -> bool:
    """Whether one answer has several values, or none, and the other is one value: both as can be read."""
    if several is None or several.kind == UNION or not is_readable(single):
        return False
    return all(is_readable(split(item, {"="})[-1]) for item in several.items)


def _compare_approximated(prediction: list[str], answer: list[str], stage: _Stage) -> Settled:
    r"""`\sqrt{2}\approx1.41` states two values: the first, and a rounded one that counts where the gold is it."""
    exact, *rounded = prediction
    verdicts = [_compare(exact, gold, stage) for gold in answer]
    for decimal in rounded:
        plain = number(decimal)
        if plain and any((gold := number(text)) and numbers_agree(plain, gold) for text in answer):
            verdicts.append(stage.rounds(split(exact, {"="})[-1], decimal))
    return True if True in verdicts else None if None in verdicts else False


# --- Single values --------------------------------------------------------------------------------------------------


def _settle_single(prediction: str, answer: str) -> Settled:
    if (same_base := same_in_base(prediction, answer)) is not None:
        return same_base
    if (settled := _numbers_settled(number(prediction), number(answer))) is not None:
        return settled
    return _words_settled(prediction, answer)


def _numbers_settled(prediction: Number | None, answer: Number | None) -> Settled:
    return None if prediction is None or answer is None else numbers_agree(prediction, answer)


def _words_settled(prediction: str, answer: str) -> Settled:
    """Compare words without regard to capitals; unequal runs of bare letters, xyz and zyx, may still be one product."""
    if r"\text" not in prediction + answer and not (prediction.isalpha() and answer.isalpha()):
        return None
    predicted, gold = (_WORDS.sub(r"\1", text).replace(" ", "") for text in (prediction, answer))
    if len(predicted) == len(gold) == 1:
        return predicted == gold
    if predicted.lower() == gold.lower():
        return True
    are_plain = all(_WORDS.fullmatch(text) or text.isalpha() or number(text) for text in (prediction, answer))
    return False if are_plain and r"\text" in prediction + answer else None


def _work_out_single(prediction: str, answer: str) -> bool:
    settled = _settle_single(prediction, answer)
    return load_algebra().algebraically_equal(prediction, answer) if settled is None else settled


def _settle_rounding(exact: str, decimal: str) -> Settled:
    value, rounded = number(exact), number(decimal)
    return None if value is None or rounded is None else rounds_to(value.value, rounded, decimal)


def _work_out_rounding(exact: str, decimal: str) -> bool:
    settled = _settle_rounding(exact, decimal)
    return load_algebra().is_rounded_to(exact, decimal) if settled is None else settled


def _all(verdicts: tuple[Settled, ...]) -> Settled:
    return False if False in verdicts else None if None in verdicts else True


_AT_ONCE = _Stage(_settle_single, _settle_rounding)
_WORKED_OUT = _Stage(_work_out_single, _work_out_rounding)
