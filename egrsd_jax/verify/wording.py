r"""Words around an answer: the label of a choice, a condition behind it, approximations of it, names before it.

What `grade` takes away from an answer as it was written, or reads in it, before values are compared.
"""

import re
from functools import lru_cache

from egrsd_jax.verify.rewrite import STYLE

_GAP = r"(?:[\s~:.]|\\[ ,;:]|\\q?quad)*"
_LABELLED = re.compile(rf"\s*{STYLE}\{{\s*(?:\(([A-Z])\)|([A-Z])[).:])\s*\}}{_GAP}(\S.*)", re.DOTALL)
_PLAINLY_LABELLED = re.compile(rf"\s*(?:{STYLE}\{{)?\s*(?:\(([A-Z])\)|([A-Z])[).:])\s*(\S.*)", re.DOTALL)
# In a text that is no letter itself a label needs a gap behind it: (B) 12, but not f(A)(B).
_SURELY_LABELLED = re.compile(
    r"\s*(?:\(([A-J])\)|([A-J])[).:])(?:[\s~]|\\[ ,;:]|\\q?quad)+(\w|\\|\$|-|\(|\[)(.*)", re.DOTALL
)
_LABELLED_NUMBER = re.compile(r"\s*\([A-J]\)(\d.*)", re.DOTALL)
_SMALL_CHOICE = re.compile(r"\(([a-j])\)")
_CHOICE = re.compile(
    rf"\s*(?:{STYLE}\{{)?\s*(?:[Oo]ption|[Cc]hoice|(?:[Tt]he )?(?:[Ff]inal )?[Aa]nswer)(?: is)?\s*:?\s*\}}?\s*(.+?)\s*",
    re.DOTALL,
)

_OPENS_A_CONDITION = (
    "for|where|when|whenever|if|since|because|given|provided|assuming|as long as|such that|with|as|so that|whereby|"
    "in which"
)
_CONDITION = re.compile(
    rf"(?:[\s,;~:(]|\\[ ,;:(]|\\q?quad(?![A-Za-z]))*"
    rf"(?:{STYLE}\{{[\s,;(]*(?:and )?(?:{_OPENS_A_CONDITION})(?![A-Za-z])"
    rf"|(?<=[\s,;~(])(?:{_OPENS_A_CONDITION})(?![A-Za-z])|\\forall(?![A-Za-z]))",
)
# A membership or restriction behind a comma: n\pi, n \in \mathbb{Z}.
_MEMBERSHIP = re.compile(
    r"(?:[\s,;~(]|\\[ ,;:]|\\q?quad(?![A-Za-z]))+[A-Za-z](?:, ?[A-Za-z])* ?\\in(?![A-Za-z]) ?"
    r"\\?(?:mathbb ?\{?)?[ZNRQC]\}?[_^{}+*><=0-9 ]*\)?\s*$"
)
# An inequality behind a value: n^2, n \ge 1; x+1 (x \ne 0).
_RESTRICTION = re.compile(
    r"(?:\s*[,;]|\s*\\q?quad|\s*(?=\())(?:[\s~]|\\[ ,;:]|\\q?quad(?![A-Za-z]))*(\(?)(?:\d+ ?(?:<|\\leq?) ?)?[A-Za-z] ?"
    r"(?:[<>]=?|\\(?:leq?|geq?|neq?|ge?t|lt)(?:slant)?(?![A-Za-z]))[^,;=()]*(\)?)\s*$"
)
_MODULUS = re.compile(
    r"(?:[\s,]|\\[ ,;:]|\\q?quad)*(?:\\pmod(?![a-z])|\(?(?<!b)\\?(?:text ?\{ ?)?mod(?![A-Za-z]) ?\}?)(.*)$", re.DOTALL
)
_ORDER = re.compile(r"[<>]|\\(?:leq?|geq?|neq?|lt|gt)(?![A-Za-z])")
_OTHERWISE = re.compile(r"otherwise|else|unless|\bnot\b")
_WHOLE = re.compile(
    r"([a-zA-Z]) ?\}?\$? ?(?:\\in(?![A-Za-z]) ?\\?(?:mathbb ?\{?)?[ZN]|(?:\\text\{)? ?is an(?:y)? integer)"
)
_LETTER = re.compile(r"(?<![\\A-Za-z])[A-Za-z](?![A-Za-z])")
_WORDS = re.compile(rf"{STYLE}\{{([^{{}}]*)\}}")


def without_label(prediction: str, gold: str) -> str:
    """The letter of a multiple choice, or what follows it, whichever the gold is."""
    asked_for_letter = re.fullmatch("[A-Z]", gold) is not None
    if named := _CHOICE.fullmatch(prediction):
        prediction = named[1].removesuffix("}") if prediction.count("}") > prediction.count("{") - 1 else named[1]
    label = _LABELLED.fullmatch(prediction) or (_PLAINLY_LABELLED.fullmatch(prediction) if asked_for_letter else None)
    if label is not None:
        return (label[1] or label[2]) if asked_for_letter else label[3]
    if asked_for_letter and (small := _SMALL_CHOICE.fullmatch(prediction)):
        return small[1].upper()
    if not asked_for_letter and (label := _LABELLED_NUMBER.fullmatch(prediction)):
        return label[1]
    if not asked_for_letter and (label := _SURELY_LABELLED.fullmatch(prediction)):
        return label[3] + label[4]
    return prediction


@lru_cache(maxsize=4096)
def condition_apart(answer: str) -> tuple[str, str]:
    """An answer without the condition or reason behind it, and that condition; empty where there is none.

    One condition only: two are the cases of a piecewise answer, which stay together.
    """
    conditions = list(_CONDITION.finditer(answer))
    if not conditions:
        for behind in (_MEMBERSHIP, _RESTRICTION, _MODULUS):
            tail = behind.search(answer)
            if tail and _is_a_value(answer[: tail.start()], set_may_be=behind is not _RESTRICTION):
                return _closed(answer[: tail.start()]), answer[tail.start() :]
        return answer, ""
    if _OTHERWISE.search(answer[conditions[0].start() :]):
        return answer, ""
    first = conditions[0]
    if len(conditions) > 1 and "since" not in first[0] and "because" not in first[0]:
        return answer, ""
    value, condition = answer[: first.start()].strip(), answer[first.end() :]
    return (_closed(value), condition) if value and not value.endswith(("=", "+", "-", "{", "(")) else (answer, "")


def _is_a_value(text: str, *, set_may_be: bool) -> bool:
    """Whether what is left without a restriction is an answer of its own: 0<x<36, x \ne 9 is one set."""
    text = text.strip()
    return bool(text) and not _ORDER.search(text) and (set_may_be or text[-1] not in ")]}" or text[0] not in "([\\")


def _closed(value: str) -> str:
    """A value that was cut off before the closing dollar or brace of what was around all of it."""
    return value.rstrip(" ,;(") if value.count("{") == value.count("}") else value


def relation_of(condition: str) -> str:
    """What a condition says in mathematics, words left out: `n\\ge 2` of `all $n \\ge 2$`."""
    return _WORDS.sub(" ", condition).strip(" {}$.,;)~").removeprefix("all ").strip(" $")


def with_index_of(stated: str, condition: str, gold: str) -> str:
    """A family k\\pi, k \\in \\mathbb{Z}, in the letter of the gold n\\pi: the letter is bound by its condition."""
    index = _WHOLE.search(condition)
    letters = [set(_LETTER.findall(text)) for text in (stated, gold)]
    other = letters[1] - letters[0]
    if index is None or letters[0] - letters[1] != {index[1]} or len(other) != 1:
        return stated
    return re.sub(rf"(?<![\\A-Za-z]){index[1]}(?![A-Za-z])", other.pop(), stated)
