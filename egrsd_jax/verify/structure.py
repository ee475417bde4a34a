r"""Answers made of several answers: lists, sets, tuples, intervals, unions, matrices, taken apart into their items.

Everything here takes normalised text. Taking them apart keeps what a computer algebra system loses: that `(1,2)` has an
order, and that `[1,2]`, `(1,2)` and `\{1,2\}` are three different things.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from egrsd_jax.verify.number import number

Settled = bool | None  # None: not without algebra
Same = Callable[[str, str], Settled]

LIST, SET, TUPLE, UNION = "list", "set", "()", "union"

_PIECE = re.compile(r"\\[{}]|\\\\|\\[A-Za-z]+|.", re.DOTALL)
_OPENS, _CLOSES = {"(", "[", "{", r"\{"}, {")", "]", "}", r"\}"}
_BRACKETS = re.compile(r"(\(|\[|\\\{)(.*)(\)|\]|\\\})", re.DOTALL)
_DESCRIBED = re.compile(r"\\\{[^|:]*?(?:\\mid(?![A-Za-z])|:|\|[^|]*(?:\|[^|]*\|[^|]*)*$)")  # an odd number of bars
# A matrix, with a factor before it or transposed.
_MATRIX = re.compile(r"([^&,]*?)\\begin\{matrix\}((?:(?!\\begin).)*)\\end\{matrix\}(\^\{(?:T|\\top|')\})?", re.DOTALL)
_ORDER = re.compile(r"[<>]|\\(?:le|ge|ne)(?![A-Za-z])")
_LETTER = re.compile(r"(?<![\\A-Za-z])[A-Za-z](?![A-Za-z])")
_TRANSPOSED = re.compile(r"(?<=[)\]])\^\{(?:T|\\top)\}$")  # of a vector in brackets
_UNIT_VECTORS = re.compile(r"(?:[+-]?[^+-]*?\\hat\{[ijk]\})+")
_UNIT_VECTOR = re.compile(r"([+-]?)([^+-]*?)\\hat\{([ijk])\}")
_MAX_SIGNS = 4  # in one answer, each of which doubles it
_MAX_PROGRESSION = 500  # terms that dots may stand for


@dataclass(frozen=True)
class Collection:
    """Several answers and what holds them: `list`, `set`, `union`, `matrix R` with R rows, `()`, `[]`, `(]` or `[)`."""

    kind: str
    items: tuple[str, ...]


@lru_cache(maxsize=4096)
def collection(text: str) -> Collection | None:
    """Take normalised text apart at its outermost level; None where it is one single answer."""
    if matrix := _MATRIX.fullmatch(text):
        return _matrix(matrix)
    if _UNIT_VECTORS.fullmatch(text):
        return _coordinates(text)
    if is_region(text) or is_described_set(text):
        return None
    if len(parts := split(text, {",", ";"})) > 1:
        return Collection(LIST, _both_signs(_written_out(parts)))
    if len(parts := split(text, {r"\cup"})) > 1:
        return Collection(UNION, tuple(parts))
    inside = inside_brackets(text)
    if inside is None and _TRANSPOSED.search(text):
        return collection(_TRANSPOSED.sub("", text))
    if inside is not None and inside[0] == r"\{" and inside[2] == r"\}":
        return Collection(SET, _both_signs(_written_out(split(inside[1], {",", ";"}))))
    if len(signs := _both_signs([text])) > 1:
        return Collection(LIST, signs)
    if inside is not None and len(items := split(inside[1], {",", ";"})) > 1:
        return Collection(inside[0] + inside[2], tuple(items))
    return None


def split(text: str, separators: set[str]) -> list[str]:
    """The parts of normalised text between separators outside brackets, without surrounding blanks."""
    if not any(separator in text for separator in separators):
        return [text.strip()]
    parts, depth = [""], 0
    for match in _PIECE.finditer(text):
        piece = match[0]
        depth += (piece in _OPENS) - (piece in _CLOSES)
        if depth == 0 and piece in separators:
            parts.append("")
        else:
            parts[-1] += piece
    return [part.strip() for part in parts]


def inside_brackets(text: str) -> tuple[str, str, str] | None:
    """Opening bracket, content, closing bracket, where one pair of them encloses the whole text."""
    if (match := _BRACKETS.fullmatch(text)) is None:
        return None
    depth = 0
    for piece in _PIECE.finditer(text):
        depth += (piece[0] in _OPENS) - (piece[0] in _CLOSES)
        if depth == 0:
            return (match[1], match[2], match[3]) if piece.end() == len(text) else None
    return None


def _matrix(match: re.Match[str]) -> Collection:
    factor, inside, transposed = match.groups()
    rows = [row.split("&") for row in inside.split("\\\\") if row]
    if factor and factor not in {"+", "-"}:
        rows = [[f"({factor})({cell})" for cell in row] for row in rows]
    elif factor == "-":
        rows = [[f"-({cell})" for cell in row] for row in rows]
    if transposed and len({len(row) for row in rows}) == 1:
        rows = [list(column) for column in zip(*rows, strict=True)]
    return Collection(f"matrix {len(rows)}", tuple(cell for row in rows for cell in row))


def _coordinates(text: str) -> Collection:
    r"""The coordinates of 2\hat{i}-3\hat{k}; two where \hat{k} is not in it."""
    along = {axis: f"{sign}{size or 1}".removeprefix("+") for sign, size, axis in _UNIT_VECTOR.findall(text)}
    return Collection(TUPLE, tuple(along.get(axis, "0") for axis in ("ijk" if "k" in along else "ij")))


def is_region(text: str) -> bool:
    """Whether it is a set of numbers that inequalities describe: x<2 or x>3, not x>0, y>0."""
    parts = split(text, {",", ";", r"\lor", r"\land"})
    if len(parts) == 1 or not all(_ORDER.search(part) for part in parts):
        return False
    return len(set(_LETTER.findall(text))) == 1 or r"\lor" in text or r"\land" in text


def _both_signs(items: Sequence[str]) -> tuple[str, ...]:
    r"""Write out every item with `\pm`, each sign as two items; a `\mp` turns with the sign before it."""
    return tuple(signed for item in items for signed in _signed(item))


def _signed(item: str) -> list[str]:
    count = item.count(r"\pm")
    if not count and r"\mp" in item:
        item, count = item.replace(r"\mp", r"\pm"), item.count(r"\mp")
    if not count or count > _MAX_SIGNS or (count > 1 and r"\mp" in item):
        return [item]
    before, _, after = item.partition(r"\pm")
    is_first = before == "" or before[-1] in "({[,="
    plus, minus = ("" if is_first else "+"), "-"
    rest = after.lstrip()
    if (inside := inside_brackets(rest)) is not None and is_first and not before and len(split(inside[1], {","})) > 1:
        negated = ",".join(f"-({part})" for part in split(inside[1], {","}))
        return [*_signed(rest), *_signed(f"({negated})")]  # \pm(1,2)
    other = rest.replace(r"\mp", "-"), rest.replace(r"\mp", "+")
    return [*_signed(before + plus + other[0]), *_signed(before + minus + other[1])]


def _written_out(items: list[str]) -> list[str]:
    r"""1,2,\ldots,12 with all its terms, where what is written is an arithmetic or geometric progression."""
    if items.count(r"\ldots") != 1 or not all(re.fullmatch(r"-?\d{1,9}", item) for item in items if item != r"\ldots"):
        return items
    at = items.index(r"\ldots")
    before, after = ([int(item) for item in part] for part in (items[:at], items[at + 1 :]))
    if not before or len(after) == 0:
        return items
    steps = {later - earlier for earlier, later in pairwise([*before])} | {b - a for a, b in pairwise(after)}
    step = steps.pop() if len(steps) == 1 else 1 if not steps and after[0] > before[0] else None
    if step and (after[0] - before[-1]) % step == 0 and 0 < (after[0] - before[-1]) // step <= _MAX_PROGRESSION:
        return [str(term) for term in (*before, *range(before[-1] + step, after[0], step), *after)]
    if len(before) > 2 and before[0] and all(b * before[0] == a * before[1] for a, b in pairwise(before)):
        return _geometric(items, before, after)
    return items


def _geometric(items: list[str], before: list[int], after: list[int]) -> list[str]:
    """1,2,4,...,64 with all its terms; as it is where the last is none of them."""
    terms = list(before)
    while abs(terms[-1]) < abs(after[-1]) and len(terms) <= _MAX_PROGRESSION and abs(before[1]) > abs(before[0]):
        terms.append(terms[-1] * before[1] // before[0])
    return [str(term) for term in terms] if terms[len(terms) - len(after) :] == after else items


def is_described_set(text: str) -> bool:
    r"""Whether it holds a set that is given by a condition: \{n^{2}\mid n\in\mathbb{Z}\}."""
    return _DESCRIBED.search(text) is not None


def without_group(text: str) -> str:
    """Drop round brackets that hold one single answer: (5) is 5."""
    while (inside := inside_brackets(text)) and inside[0] + inside[2] == TUPLE and collection(text) is None:
        text = inside[1]
    return text


def are_plain_numbers(text: str) -> bool:
    """Whether it is a list or set of nothing but plain numbers, which need no algebra however many they are."""
    parts = collection(text)
    return parts is not None and parts.kind in {LIST, SET, TUPLE} and all(number(item) for item in parts.items)


def is_list(text: str) -> bool:
    """Whether the text is several answers without brackets around them."""
    parts = collection(text)
    return parts is not None and parts.kind == LIST


def only_item(several: Collection | None) -> str | None:
    """The element of a set of one, which stands for itself."""
    if several is None or several.kind not in {LIST, SET} or len(several.items) != 1:
        return None
    return several.items[0]


def collections_agree(prediction: Collection, answer: Collection, same: Same) -> Settled:
    """Whether two collections are the same answer; `same` compares two items.

    A prediction without brackets is read in the gold's, and only the brackets of an interval cannot be left out.
    """
    if answer.kind == UNION or prediction.kind == UNION:
        if answer.kind == prediction.kind and _all_found(prediction.items, answer.items, same):
            return True
        return None  # (1,3) u (2,4) is (1,4): for algebra
    if not _kinds_agree(prediction, answer):
        return False
    if len(prediction.items) != len(answer.items):
        return False
    if answer.kind in {LIST, SET}:
        return _all_found(prediction.items, answer.items, same)
    return _all([same(*pair) for pair in zip(prediction.items, answer.items, strict=True)])


def _kinds_agree(prediction: Collection, answer: Collection) -> bool:
    if answer.kind == LIST:
        return prediction.kind in {LIST, SET, TUPLE, "[]"}
    if answer.kind.startswith("matrix") and _is_vector(answer):
        return prediction.kind in {answer.kind, TUPLE, "[]"}  # a vector as a row of coordinates
    if prediction.kind.startswith("matrix") and _is_vector(prediction):
        return answer.kind == prediction.kind or answer.kind == TUPLE
    return prediction.kind == answer.kind or (prediction.kind == LIST and answer.kind in {SET, TUPLE})


def _is_vector(matrix: Collection) -> bool:
    """Whether a matrix has one column, or one row."""
    return matrix.kind in {"matrix 1", f"matrix {len(matrix.items)}"}


def _all(verdicts: Sequence[Settled]) -> Settled:
    if False in verdicts:
        return False
    return None if None in verdicts else True


def _numbers_found(predictions: Sequence[str], answers: Sequence[str]) -> Settled:
    """Long lists of plain numbers in one go; None where something else is in them, or a rounded number may be."""
    plain = [[number(item) for item in items] for items in (predictions, answers)]
    if not all(item is not None and not item.is_decimal and not item.is_percent for items in plain for item in items):
        return None
    one, other = (Counter(item.value for item in items if item) for items in plain)
    return one == other


def _all_found(predictions: Sequence[str], answers: Sequence[str], same: Same) -> Settled:
    """Whether every answer finds a prediction of its own, in whatever order."""
    if len(predictions) != len(answers):
        return False
    if (settled := _numbers_found(predictions, answers)) is not None:
        return settled
    left, unsettled = list(predictions), []
    for answer in answers:
        verdicts = [True if prediction == answer else same(prediction, answer) for prediction in left]
        if True in verdicts:
            del left[verdicts.index(True)]
        elif None in verdicts:
            unsettled.append(answer)
        else:
            return False
    return None if unsettled else True
