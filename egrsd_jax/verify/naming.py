r"""Names before values: `x=5`, `f(x)=2x`, `m+n=34`, `y=5, x=-2` for a pair, `\sqrt{2}\approx1.41`.

Part of `grade`. Everything here takes normalised text.
"""

import re

from egrsd_jax.verify.structure import LIST, SET, TUPLE, Collection, collection, is_list, split

_NAME = r"(?:[A-Za-z]|\\[A-Za-z]+)(?:_\{[^{}]*\})?(?:\([A-Za-z]\))?"
_NAMED = re.compile(rf"{_NAME}=([^=]+)")
_ITEM = re.compile(rf"({_NAME})=([^=]+)")
_DIFFERENTIALS = re.compile(r"d([A-Za-z])=(.*)d([A-Za-z])")
_DIFFERENTIAL = re.compile(r"(?<!\\)d[A-Za-z](?![A-Za-z])")
_DERIVATIVE = re.compile(r"d[A-Za-z](?:/|\}\{)d[A-Za-z]|[A-Za-z]'|\\dot")
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


def as_point(text: str, other: Collection | None) -> str:
    r"""`x=\pm2, y=\pm3` as the points (\pm2,\pm3), where the other answer is a list of points; else the text as it
    is."""
    if r"\pm" not in text or other is None or other.kind not in {LIST, SET} or not other.items:
        return text
    several = Collection(LIST, tuple(split(text, {",", ";"})))
    points = [collection(item) for item in other.items]
    if not all(
        point is not None and point.kind == TUPLE and len(point.items) == len(several.items) for point in points
    ):
        return text
    values = [match[2] for item in _sorted(several).items if (match := _ITEM.fullmatch(item))]
    return f"({','.join(values)})" if _are_of_a_family(_names(several)) and len(values) > 1 else text


def as_derivative(text: str, other: str) -> str:
    r"""dy=2xdx as \frac{dy}{dx}=(2x), where the other answer has a derivative; else the text as it is."""
    match = _DIFFERENTIALS.fullmatch(text)
    if match is None or _DIFFERENTIALS.fullmatch(other) or _DERIVATIVE.search(other) is None:
        return text
    function, body, variable = match.groups()
    if _DIFFERENTIAL.search(body) or len(split(body.removeprefix("-"), {"+", "-"})) > 1:
        return text  # more differentials, or one that only the last term has
    return rf"\frac{{d{function}}}{{d{variable}}}={f'({body})' if body else '1'}"


def _names(several: Collection) -> list[str]:
    """The names of the items, where every item has one of its own."""
    matches = [_ITEM.fullmatch(item) for item in several.items]
    names = [match[1] for match in matches if match]
    return names if len(names) == len(set(names)) == len(several.items) else []


def _sorted(several: Collection) -> Collection:
    names = _names(several)
    if not _are_of_a_family(names):
        return several
    return Collection(several.kind, tuple(item for _, item in sorted(zip(names, several.items, strict=True))))


def _are_of_a_family(names: list[str]) -> bool:
    """Whether names have a known order; no names have none."""
    letters = {name[0] for name in names}
    return bool(letters) and any(letters <= set(family) for family in _FAMILIES)
