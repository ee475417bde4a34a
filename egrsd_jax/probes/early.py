r"""Where a completion first states its answer as an answer: in `\boxed{}`, or after words such as "the answer is"."""

import re

_BOX = re.compile(r"\\boxed\s*\{")
_STATED = re.compile(r"\banswer(?:\s+(?:is|must\s+be|should\s+be|will\s+be)|\s*[:=])", re.IGNORECASE)
_DRESSING = re.compile(r"[\s$*({\[:]*(?:\\[(\[])?\s*")  # what may come between such words and the value itself
_CONTINUES = re.compile(r"\w|[.,]\d|\s*[-+*/^=]\s*\w")  # after the value: it is another, longer one


def first_stated(text: str, answer: str) -> float | None:
    """The share of the text, 0 to 1, before its answer is first stated; None where it never is.

    `answer` is the one that the completion ends with, right or wrong.
    """
    places = [match.start() for match in _BOX.finditer(text) if _holds(text[match.end() :], answer)]
    for match in _STATED.finditer(text):
        dressed = _DRESSING.match(text, match.end())
        start = dressed.end() if dressed else match.end()
        boxed = _BOX.match(text, start)
        if _holds(text[boxed.end() if boxed else start :], answer):
            places.append(match.start())
    return min(places) / len(text) if places else None


def _holds(text: str, answer: str) -> bool:
    """Whether the text begins with this very value."""
    text, answer = text.lstrip(), answer.strip()
    return bool(answer) and text.startswith(answer) and not _CONTINUES.match(text, len(answer))
