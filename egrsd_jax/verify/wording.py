r"""Words around an answer: the label of a choice, a condition behind it, approximations of it, names before it.

What `grade` takes away from an answer as it was written, or reads in it, before values are compared.
"""

import re

from egrsd_jax.verify.rewrite import STYLE

_GAP = r"(?:[\s~:.]|\\[ ,;:]|\\q?quad)*"
_LABELLED = re.compile(rf"\s*{STYLE}\{{\s*(?:\(([A-Z])\)|([A-Z])[).:])\s*\}}{_GAP}(\S.*)", re.DOTALL)
_PLAINLY_LABELLED = re.compile(rf"\s*(?:{STYLE}\{{)?\s*(?:\(([A-Z])\)|([A-Z])[).:])\s*(\S.*)", re.DOTALL)
# In a text that is no letter itself a label needs a gap behind it: (B) 12, but not f(A)(B).
_SURELY_LABELLED = re.compile(
    r"\s*(?:\(([A-J])\)|([A-J])[).:])(?:[\s~]|\\[ ,;:]|\\q?quad)+(\w|\\|\$|-|\(|\[)(.*)", re.DOTALL
)
_CHOICE = re.compile(rf"\s*(?:{STYLE}\{{)?\s*(?:[Oo]ption|[Cc]hoice|[Aa]nswer)\s*:?\s*\}}?\s*(.+?)\s*", re.DOTALL)

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
_OTHERWISE = re.compile(r"otherwise|else|unless|\bnot\b")
_WORDS = re.compile(rf"{STYLE}\{{([^{{}}]*)\}}")


def without_label(prediction: str, gold: str) -> str:
    """The letter of a multiple choice, or what follows it, whichever the gold is."""
    asked_for_letter = re.fullmatch("[A-Z]", gold) is not None
    if named := _CHOICE.fullmatch(prediction):
        prediction = named[1].removesuffix("}") if prediction.count("}") > prediction.count("{") - 1 else named[1]
    label = _LABELLED.fullmatch(prediction) or (_PLAINLY_LABELLED.fullmatch(prediction) if asked_for_letter else None)
    if label is not None:
        return (label[1] or label[2]) if asked_for_letter else label[3]
    if not asked_for_letter and (label := _SURELY_LABELLED.fullmatch(prediction)):
        return label[3] + label[4]
    return prediction


def condition_apart(answer: str) -> tuple[str, str]:
    """An answer without the condition or reason behind it, and that condition; empty where there is none.

    One condition only: two are the cases of a piecewise answer, which stay together.
    """
    conditions = list(_CONDITION.finditer(answer))
    if not conditions:
        membership = _MEMBERSHIP.search(answer)
        if membership is None or not answer[: membership.start()].strip():
            return answer, ""
        return _closed(answer[: membership.start()]), answer[membership.start() :]
    if _OTHERWISE.search(answer[conditions[0].start() :]):
        return answer, ""
    first = conditions[0]
    if len(conditions) > 1 and "since" not in first[0] and "because" not in first[0]:
        return answer, ""
    value, condition = answer[: first.start()].strip(), answer[first.end() :]
    return (_closed(value), condition) if value and not value.endswith(("=", "+", "-", "{", "(")) else (answer, "")


def _closed(value: str) -> str:
    """A value that was cut off before the closing dollar or brace of what was around all of it."""
    return value.rstrip(" ,;(") if value.count("{") == value.count("}") else value


def relation_of(condition: str) -> str:
    """What a condition says in mathematics, words left out: `n\\ge 2` of `all $n \\ge 2$`."""
    return _WORDS.sub(" ", condition).strip(" {}$.,;)~").removeprefix("all ").strip(" $")
