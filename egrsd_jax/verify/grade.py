r"""Whether an answer is right: exactly the same first, then by its parts and numbers, then by algebra.

Last station of grading: extract -> normalise -> **grade**. `settle` needs microseconds and no sympy and decides nearly
everything; `work_out` decides the rest and may take for ever, which is why the pool runs it in processes that it can
kill. `grade` is both in the calling process.
"""

import re
from functools import partial

from egrsd_jax.verify.algebra import AlgebraMissing, algebraically_equal
from egrsd_jax.verify.extract import extract_answer
from egrsd_jax.verify.hazards import MAX_RAW_LENGTH, hazard
from egrsd_jax.verify.normalise import normalise
from egrsd_jax.verify.number import number, numbers_agree, same_in_base
from egrsd_jax.verify.rewrite import STYLE
from egrsd_jax.verify.structure import (
    LIST,
    SET,
    Same,
    Settled,
    collection,
    collections_agree,
    is_described_set,
    is_list,
    only_item,
    split,
    without_group,
)
from egrsd_jax.verify.units import unit_power

_NAME = r"(?:[A-Za-z]|\\[A-Za-z]+)(?:_\{[^{}]*\})?(?:\([A-Za-z]\))?"
_NAMED = re.compile(rf"{_NAME}=([^=]+)")
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}")  # Area = 5 names a value, prose does not
_WORDS = re.compile(r"\\text\{(.*)\}")
_APPROXIMATED = re.compile(r"(.+?)\\approx ?(.+)", re.DOTALL)
_LABELLED = re.compile(
    rf"\s*{STYLE}\{{\s*(?:\(([A-Z])\)|([A-Z])[).:])\s*\}}(?:[\s~:.]|\\[ ,;:]|\\q?quad)*(\S.*)", re.DOTALL
)
_PLAINLY_LABELLED = re.compile(rf"\s*(?:{STYLE}\{{)?\s*(?:\(([A-Z])\)|([A-Z])[).:])\s*(\S.*)", re.DOTALL)


def grade(prediction: str, answer: str) -> bool:
    r"""Whether a prediction is the gold answer; both are bare answers, or texts whose last box is read.

    In the calling process, without a time limit: inputs that are known to hang are turned away by their spelling, and
    what cannot be graded is not right. Use `GradingPool` for answers of a model: it has a deadline and says which
    answers could not be graded. Raises AlgebraMissing (an ImportError) where math-verify is not installed.
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
    if prediction == answer:
        return True
    if max(len(prediction), len(answer)) > MAX_RAW_LENGTH:
        return None
    if None not in (powers := (unit_power(prediction), unit_power(answer))) and powers[0] != powers[1]:
        return False
    if normalise(prediction) == normalise(answer) != "":
        return True
    return None if refusal(prediction, answer) else _judge(prediction, answer, _settle_single)


def refusal(prediction: str, answer: str) -> str | None:
    """Why a pair that is not settled must not be worked out; None where it may be."""
    for name, text in (("prediction", bare(prediction)), ("gold answer", bare(answer))):
        if len(text) > MAX_RAW_LENGTH:
            return f"the {name} has {len(text):,} characters; no answer over {MAX_RAW_LENGTH:,} is parsed"
        if reason := hazard(normalise(text)):
            return f"the {name} is not evaluated: {reason}"
        if is_described_set(normalise(text)):
            return f"the {name} is not evaluated: it is a set that is given by a condition other than an inequality"
    return None


def work_out(prediction: str, answer: str) -> bool:
    """The verdict by algebra, item by item where an answer has several; raises what sympy raises, and may hang."""
    return bool(_judge(bare(prediction), bare(answer), _work_out_single))


def bare(text: str) -> str:
    """The answer itself: what stands in the last box where a whole text was given, and nothing where that has none."""
    if r"\boxed" in text or "think>" in text:
        return extract_answer(text) or ""
    return text.strip()


def _judge(prediction: str, answer: str, single: Same) -> Settled:
    gold = normalise(answer)
    prediction = _without_label(prediction, gold)
    # 1,234 is one number, unless several are asked for.
    several = (asked := collection(gold)) is not None and asked.kind in {LIST, SET}
    return _compare(normalise(prediction, thousands=not several), gold, single)


def _without_label(prediction: str, gold: str) -> str:
    """The letter of a multiple choice, or what stands behind it, whichever the gold is."""
    asked_for_letter = re.fullmatch("[A-Z]", gold) is not None
    label = _LABELLED.fullmatch(prediction) or (_PLAINLY_LABELLED.fullmatch(prediction) if asked_for_letter else None)
    if label is None:
        return prediction
    return (label[1] or label[2]) if asked_for_letter else label[3]


def _compare(prediction: str, answer: str, single: Same) -> Settled:
    """Compare two normalised answers, taking them apart until single ones are left."""
    prediction, answer = (without_group(text) for text in _without_names(prediction, answer))
    if not prediction or not answer:
        return False
    if prediction == answer:
        return True
    predicted, gold = collection(prediction), collection(answer)
    if predicted is not None and gold is not None:
        agree = collections_agree(predicted, gold, partial(_compare, single=single))
        return single(prediction, answer) if agree is None else agree
    if (alone := only_item(predicted)) is not None:
        return _compare(alone, answer, single)
    if (alone := only_item(gold)) is not None:
        return _compare(prediction, alone, single)
    if (predicted and number(answer)) or (gold and number(prediction)):
        return False
    return single(prediction, answer)


def _without_names(prediction: str, answer: str) -> tuple[str, str]:
    """Leave out `x=` where only one of two answers has it, or both have the same; and what a value is about."""
    prediction, answer = _exact_side(prediction), _exact_side(answer)
    predicted, gold = split(prediction, {"="}), split(answer, {"="})
    if len(predicted) > 1 and len(gold) > 1:
        if predicted[0] == gold[0] and not is_list(prediction) and not is_list(answer):
            return predicted[-1], gold[-1]
    elif _states_a_value(prediction):
        return predicted[-1], answer
    elif named := _NAMED.fullmatch(answer):
        return prediction, named[1]
    return prediction, answer


def _states_a_value(text: str) -> bool:
    """Whether it reads like `x=5`, `m+n=5`, `2+3=5` or `Area=5`, and not like an equation `x+1=0` or like prose."""
    *left, right = split(text, {"="})
    is_equation = right == "0" and re.fullmatch(_NAME, "=".join(left)) is None
    return bool(left) and not is_equation and not is_list(text) and len(_WORD.findall(text)) <= 1


def _exact_side(text: str) -> str:
    r"""Of `\sqrt{2}\approx1.41` the root, of `x\approx1.41` the number."""
    if (match := _APPROXIMATED.fullmatch(text)) is None or is_list(text):
        return text
    return match[2] if re.fullmatch(_NAME, match[1]) else match[1]


def _settle_single(prediction: str, answer: str) -> Settled:
    if (same_base := same_in_base(prediction, answer)) is not None:
        return same_base
    predicted, gold = number(prediction), number(answer)
    if predicted is not None and gold is not None:
        return numbers_agree(predicted, gold)
    if r"\text" in prediction + answer or (prediction.isalpha() and answer.isalpha()):
        return _words_agree(prediction, answer)
    return None


def _words_agree(prediction: str, answer: str) -> Settled:
    """Compare words without regard to capitals; unequal runs of bare letters, xyz and zyx, may still be one product."""
    predicted, gold = (_WORDS.sub(r"\1", text).replace(" ", "") for text in (prediction, answer))
    if len(predicted) == len(gold) == 1:
        return predicted == gold
    if predicted.lower() == gold.lower():
        return True
    return False if r"\text" in prediction + answer else None


def _work_out_single(prediction: str, answer: str) -> bool:
    settled = _settle_single(prediction, answer)
    return algebraically_equal(prediction, answer) if settled is None else settled
