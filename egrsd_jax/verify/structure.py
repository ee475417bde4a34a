r"""Answers made of several answers: lists, sets, tuples, intervals, unions, matrices, taken apart into their items.

Everything here takes normalised text. Taking them apart keeps what a computer algebra system loses: that `(1,2)` has an
order, and that `[1,2]`, `(1,2)` and `\{1,2\}` are three different things.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Settled = bool | None  # None: not without algebra
Same = Callable[[str, str], Settled]

LIST, SET, TUPLE, UNION = "list", "set", "()", "union"

_PIECE = re.compile(r"\\[{}]|\\\\|\\[A-Za-z]+|.", re.DOTALL)
_OPENS, _CLOSES = {"(", "[", "{", r"\{"}, {")", "]", "}", r"\}"}
_BRACKETS = re.compile(r"(\(|\[|\\\{)(.*)(\)|\]|\\\})", re.DOTALL)
_DESCRIBED = re.compile(r"\\\{[^|:]*?(?:\\mid(?![A-Za-z])|:|\|[^|]*(?:\|[^|]*\|[^|]*)*$)")  # an odd number of bars
_MATRIX = re.compile(r"\\begin\{matrix\}(.*)\\end\{matrix\}", re.DOTALL)


@dataclass(frozen=True)
class Collection:
    """Several answers and what holds them: `list`, `set`, `union`, `matrix R` with R rows, `()`, `[]`, `(]` or `[)`."""

    kind: str
    items: tuple[str, ...]


def collection(text: str) -> Collection | None:
    """Take normalised text apart at its outermost level; None where it is one single answer."""
    if matrix := _MATRIX.fullmatch(text):
        rows = [row for row in matrix[1].split("\\\\") if row]
        return Collection(f"matrix {len(rows)}", tuple(cell for row in rows for cell in row.split("&")))
    if len(parts := split(text, {",", ";"})) > 1:
        return Collection(LIST, _both_signs(parts))
    if len(parts := split(text, {r"\cup"})) > 1:
        return Collection(UNION, tuple(parts))
    inside = _inside_brackets(text)
    if inside is not None and inside[0] == r"\{" and inside[2] == r"\}":
        return Collection(SET, _both_signs(split(inside[1], {",", ";"})))
    if len(signs := _both_signs([text])) > 1:
        return Collection(LIST, signs)
    if inside is not None and len(items := split(inside[1], {",", ";"})) > 1:
        return Collection(inside[0] + inside[2], tuple(items))
    return None


def split(text: str, separators: set[str]) -> list[str]:
    """The parts of normalised text between separators that stand in no brackets, without surrounding blanks."""
    parts, depth = [""], 0
    for match in _PIECE.finditer(text):
        piece = match[0]
        depth += (piece in _OPENS) - (piece in _CLOSES)
        if depth == 0 and piece in separators:
            parts.append("")
        else:
            parts[-1] += piece
    return [part.strip() for part in parts]


def _inside_brackets(text: str) -> tuple[str, str, str] | None:
    """Opening bracket, content, closing bracket, where one pair of them encloses the whole text."""
    if (match := _BRACKETS.fullmatch(text)) is None:
        return None
    depth = 0
    for piece in _PIECE.finditer(text):
        depth += (piece[0] in _OPENS) - (piece[0] in _CLOSES)
        if depth == 0:
            return (match[1], match[2], match[3]) if piece.end() == len(text) else None
    return None


def _both_signs(items: Sequence[str]) -> tuple[str, ...]:
    r"""Write an item with one `\pm` as two items."""
    signed = []
    for item in items:
        if item.count(r"\pm") == 1 and r"\mp" not in item:
            before, _, after = item.partition(r"\pm")
            plus = "" if before == "" or before[-1] in "({[," else "+"
            signed += [before + plus + after.strip(), f"{before}-{after.strip()}"]
        else:
            signed.append(item)
    return tuple(signed)


def is_described_set(text: str) -> bool:
    r"""Whether it holds a set that is given by a condition: \{n^{2}\mid n\in\mathbb{Z}\}."""
    return _DESCRIBED.search(text) is not None


def without_group(text: str) -> str:
    """Drop round brackets that hold one single answer: (5) is 5."""
    while (inside := _inside_brackets(text)) and inside[0] + inside[2] == TUPLE and collection(text) is None:
        text = inside[1]
    return text


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
    if not _kinds_agree(prediction.kind, answer.kind):
        return False
    if len(prediction.items) != len(answer.items):
        return False
    if answer.kind in {LIST, SET}:
        return _all_found(prediction.items, answer.items, same)
    return _all([same(*pair) for pair in zip(prediction.items, answer.items, strict=True)])


def _kinds_agree(prediction: str, answer: str) -> bool:
    if answer == LIST:
        return prediction in {LIST, SET, TUPLE, "[]"}
    return prediction == answer or (prediction == LIST and answer in {SET, TUPLE})


def _all(verdicts: Sequence[Settled]) -> Settled:
    if False in verdicts:
        return False
    return None if None in verdicts else True


def _all_found(predictions: Sequence[str], answers: Sequence[str], same: Same) -> Settled:
    """Whether every answer finds a prediction of its own, in whatever order."""
    if len(predictions) != len(answers):
        return False
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
