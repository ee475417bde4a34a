r"""Names before values: `x=5`, `f(x)=2x`, `m+n=34`, `y=5, x=-2` for a pair, `\sqrt{2}\approx1.41`.

Part of `grade`. Everything here takes normalised text.
"""

import re

from egrsd_jax.verify.structure import LIST, TUPLE, Collection, is_list, split

_NAME = r"(?:[A-Za-z]|\\[A-Za-z]+)(?:_\{[^{}]*\})?(?:\([A-Za-z]\))?"
_NAMED = re.compile(rf"{_NAME}=([^=]+)")
_ITEM = re.compile(rf"({_NAME})=([^=]+)")
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}")  # Area = 5 names a value, prose does not
_FAMILIES = ("xyz", "abcd", "uvw", "pq", "mn", "rst")  # letters whose order is known


def without_names(prediction: str, answer: str) -> tuple[str, str]:
    """Leave out `x=` where only one of two answers has it, or both have the same; and what a value is about."""
    predicted, gold = split(prediction, {"="}), split(answer, {"="})
    if len(predicted) > 1 and len(gold) > 1:
        if predicted[0] == gold[0] and re.fullmatch(_NAME, gold[0]) and not is_list(prediction) and not is_list(answer):
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


def sides(text: str) -> list[str]:
    r"""What `\approx` joins, the exact value first; of `x\approx1.41` the number alone."""
    first, *others = split(text, {r"\approx"})
    return others if others and re.fullmatch(_NAME, first) else [first, *others]


def in_order(prediction: Collection | None, answer: Collection | None) -> tuple[Collection | None, Collection | None]:
    """Named coordinates in the order of their names where the other answer is a tuple: y=5, x=-2 is (-2, 5)."""
    if prediction is not None and answer is not None:
        if answer.kind == TUPLE and prediction.kind == LIST:
            return _sorted(prediction), answer
        if prediction.kind == TUPLE and answer.kind == LIST and _names(answer):
            return prediction, Collection(TUPLE, _sorted(answer).items)
    return prediction, answer


def _names(several: Collection) -> list[str]:
    """The names of the items, where every item has one of its own."""
    matches = [_ITEM.fullmatch(item) for item in several.items]
    names = [match[1] for match in matches if match]
    return names if len(names) == len(set(names)) == len(several.items) else []


def _sorted(several: Collection) -> Collection:
    names = _names(several)
    letters = "".join(name[0] for name in names)
    is_known = any(set(letters) <= set(family) for family in _FAMILIES) and all(
        not name.startswith("\\") for name in names
    )
    if not names or not is_known:
        return several
    return Collection(several.kind, tuple(item for _, item in sorted(zip(names, several.items, strict=True))))
