r"""Sets of real numbers: intervals, unions, inequalities in one unknown, all numbers but some; and whether two are one.

Everything becomes pieces of the line whose ends are numbers: x < 2 or x > 3 is (-\infty, 2) \cup (3, \infty). Takes
normalised text.
"""

import re
from typing import Any

import sympy
from sympy import S

from egrsd_jax.verify.exact import values_equal
from egrsd_jax.verify.parser import parse
from egrsd_jax.verify.structure import inside_brackets, split
from egrsd_jax.verify.syntax import Node, Reading, Unreadable
from egrsd_jax.verify.values import value

_REAL = re.compile(r"\\mathbb\{R\}|\\R(?![A-Za-z])")
_DESCRIBED = re.compile(r"\\\{([A-Za-z])(?:\\in\\mathbb\{R\})?(?:\\mid ?|:|\|)(.*)\\\}", re.DOTALL)
_MEMBER = re.compile(r"[A-Za-z]\\in(?![A-Za-z]) ?(.+)", re.DOTALL)
_SIGN = re.compile(r"[<>]|\\(?:le|ge|ne)(?![A-Za-z])")
_LOOKS_LIKE_ONE = re.compile(r"\\(?:cup|cap|setminus|mathbb|emptyset|lor|land)(?![A-Za-z])")
_MAX_DEGREE = 6  # of the polynomials that an inequality is solved for


def is_about_sets(text: str) -> bool:
    """Whether normalised text is spelled as a set of numbers: by inequalities, as intervals, with signs of sets."""
    return _SIGN.search(text) is not None or _LOOKS_LIKE_ONE.search(text) is not None or _is_interval(text)


def real_set(text: str, reading: Reading) -> Any:
    """The set of real numbers that normalised text stands for; Unreadable where it stands for none that is known."""
    text = text.strip()
    if described := _DESCRIBED.fullmatch(text):
        text = described[2]
    if member := _MEMBER.fullmatch(text):
        text = member[1]
    for separator, join in ((r"\lor", sympy.Union), (r"\cup", sympy.Union), (r"\land", sympy.Intersection)):
        if len(parts := split(text, {separator})) > 1:
            return join(*(real_set(part, reading) for part in parts))
    if len(parts := split(text, {r"\cap"})) > 1:
        return sympy.Intersection(*(real_set(part, reading) for part in parts))
    if len(parts := split(text, {r"\setminus"})) > 1 or (len(parts := _without(text)) > 1):
        return sympy.Complement(real_set(parts[0], reading), *(real_set(part, reading) for part in parts[1:]))
    if _SIGN.search(text):
        return _of_inequalities(split(text, {",", ";"}), reading)
    if text == r"\emptyset":
        return S.EmptySet
    if _REAL.fullmatch(text):
        return S.Reals
    return _bracketed(text, reading)


def _without(text: str) -> list[str]:
    r"""\mathbb{R}-\{1\} in its two parts."""
    head, sign, tail = text.partition("-")
    return [head, tail] if sign and _REAL.fullmatch(head) else [text]


def _is_interval(text: str) -> bool:
    inside = inside_brackets(text)
    return (
        inside is not None and inside[0] + inside[2] in {"()", "[]", "(]", "[)"} and len(split(inside[1], {","})) == 2
    )


def _bracketed(text: str, reading: Reading) -> Any:
    inside = inside_brackets(text)
    if inside is None:
        raise Unreadable("it is no set of real numbers that is known")
    opening, content, closing = inside
    if opening + closing == "()" and not _is_interval(text):
        return real_set(content, reading)
    ends = [_number(item, reading) for item in split(content, {",", ";"})]
    if opening == r"\{" and closing == r"\}":
        return sympy.FiniteSet(*ends)
    if len(ends) != 2 or opening not in "([" or closing not in ")]":
        raise Unreadable("it is no interval")
    return sympy.Interval(*ends, left_open=opening == "(", right_open=closing == ")")


def _number(text: str, reading: Reading) -> Any:
    number = value(parse(text.removeprefix("+"), reading))
    if number.free_symbols or not number.is_extended_real:
        raise Unreadable("a set of numbers has an end that is none")
    return number


def _of_inequalities(texts: list[str], reading: Reading) -> Any:
    """Inequalities in one unknown; joined by commas they hold together, or, where they cannot, either does."""
    sets, names = [], set()
    for text in texts:
        node = parse(text, reading)
        if node.kind != "relation":
            raise Unreadable("a condition is no inequality")
        solved, name = _solve(node)
        sets.append(solved)
        names.add(name)
    if len(names) != 1:
        raise Unreadable("it is an inequality in several unknowns")
    both = sympy.Intersection(*sets)
    return both if both is not S.EmptySet or len(sets) == 1 else sympy.Union(*sets)


def _solve(node: Node) -> tuple[Any, Any]:
    sides, signs = [value(side) for side in node.parts[::2]], node.parts[1::2]
    names = set().union(*(side.free_symbols for side in sides))
    if len(names) != 1:
        raise Unreadable("it is an inequality in several unknowns")
    (name,) = names
    solved = S.Reals
    for left, sign, right in zip(sides, signs, sides[1:], strict=False):
        solved = sympy.Intersection(solved, _solve_one(left, sign, right, name))
    return solved, name


def _solve_one(left: Any, sign: str, right: Any, name: Any) -> Any:
    relation = sympy.Rel(left, right, {"=": "==", "!=": "!="}.get(sign, sign))
    if relation in (S.true, S.false):
        raise Unreadable("an inequality says nothing")
    if sign in {"=", "!="}:
        solutions = sympy.solveset(left - right, name, S.Reals)
        if not isinstance(solutions, sympy.FiniteSet):
            raise Unreadable("an equation in a condition is not solved")
        return solutions if sign == "=" else sympy.Complement(S.Reals, solutions)
    return sympy.solve_univariate_inequality(relation, name, relational=False)


def sets_equal(prediction: Any, answer: Any) -> bool:
    """Whether two sets of real numbers have the same pieces; Unreadable where one is not made of pieces."""
    pieces = [_pieces(which) for which in (prediction, answer)]
    if len(pieces[0]) != len(pieces[1]):
        return False
    return all(_piece_equal(*both) for both in zip(*pieces, strict=True))


def _pieces(which: Any) -> list[tuple[Any, Any, bool, bool]]:
    """Intervals and points from left to right: ends, and whether each is left out."""
    which = which.simplify() if isinstance(which, sympy.Complement | sympy.Intersection) else which
    parts = which.args if isinstance(which, sympy.Union) else (which,)
    pieces = []
    for part in parts:
        if part is S.EmptySet:
            continue
        if part is S.Reals:
            part = sympy.Interval(-sympy.oo, sympy.oo)
        if isinstance(part, sympy.FiniteSet):
            pieces += [(number, number, False, False) for number in part.args]
        elif isinstance(part, sympy.Interval):
            pieces.append((part.start, part.end, bool(part.left_open), bool(part.right_open)))
        else:
            raise Unreadable("it is a set that is not made of intervals")
    return sorted(pieces, key=lambda piece: (float(piece[0]), float(piece[1])))


def _piece_equal(one: tuple[Any, Any, bool, bool], other: tuple[Any, Any, bool, bool]) -> bool:
    ends = all(values_equal(*both, is_rounded=False) for both in zip(one[:2], other[:2], strict=True))
    return ends and one[2:] == other[2:]
