r"""The answer of a completion: the content of its last balanced `\boxed{}` after the thinking.

First station of grading: completion -> **extract** -> normalise -> grade.
"""

import re
from enum import StrEnum
from typing import Literal

AnswerFormat = Literal["boxed", "last_number", "####", "The answer is"]
_NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?!\w)")
_GROUPED = re.compile(r"[-+]?\d{1,3}(,\d{3})+(\.\d+)?")
THOUGHT_OPENS, THOUGHT_CLOSES = "<think>", "</think>"


class Missing(StrEnum):
    """Why a completion has no answer."""

    CUT_OFF = "cut off"  # it did not end by itself, whatever boxes it holds
    EMPTY = "empty"  # nothing was written, or a box with nothing in it
    THOUGHT = "unfinished thought"
    NO_BOX = "no box"


# One token at a time, so that the scan is linear: a box with its brace (models also write `\\boxed`), an escaped
# character (`\{` and `\}` group nothing), a brace that groups.
_TOKEN = re.compile(r"(?P<box>\\\\?boxed\s*\{)|\\.|(?P<open>\{)|(?P<close>\})", re.DOTALL)


def extract_answer(text: str) -> str | None:
    r"""Return what the last balanced `\boxed{}` of a completion holds, without surrounding blanks, or None.

    Only what follows the last `</think>` counts: chat templates may put the opening tag into the prompt, so a
    completion may hold the closing tag alone. A thought that was opened and never closed has no answer, whatever
    numbers or boxes it holds; text without either tag is read whole. Of nested boxes the inner one is the last. A box
    that was cut off is passed over for the last one that is complete. Boxes are never merged.

    Time is linear in the length of the text.
    """
    spoken = text.rpartition(THOUGHT_CLOSES)[2]
    if THOUGHT_OPENS in spoken:
        return None
    return _last_balanced_box(spoken)


def why_missing(text: str, answer: str | None, *, stopped: bool) -> Missing | None:
    """Why there is no answer in a completion, of which `answer` was extracted; None where there is one."""
    if not stopped:
        return Missing.CUT_OFF
    if answer is not None:
        return None if answer.strip() else Missing.EMPTY
    spoken = text.rpartition(THOUGHT_CLOSES)[2]
    if THOUGHT_OPENS in spoken:
        return Missing.THOUGHT
    return Missing.NO_BOX if text.strip() else Missing.EMPTY


def extract_in(answer_format: AnswerFormat, text: str) -> str | None:
    r"""The answer of a completion in a format, or None: in a `boxed` `\boxed{}`; the `last_number` of the text; or what
    follows the last `####` or `The answer is` on its line, without a full stop at its end.

    Of thinking as `extract_answer`. Time is linear in the length of the text.
    """
    if answer_format == "boxed":
        return extract_answer(text)
    spoken = text.rpartition(THOUGHT_CLOSES)[2]
    if THOUGHT_OPENS in spoken:
        return None
    if answer_format == "last_number":
        numbers = _NUMBER.findall(spoken)
        return numbers[-1].replace(",", "") if numbers else None
    marks = [match.end() for match in re.finditer(re.escape(answer_format), spoken, re.IGNORECASE)]
    if not marks:
        return None
    line = spoken[marks[-1] :].lstrip(" \t:").partition("\n")[0].strip()
    line = line.removesuffix(".").strip().strip("*$").strip()
    return (line.replace(",", "") if _GROUPED.fullmatch(line) else line) or None


def _last_balanced_box(text: str) -> str | None:
    groups: list[tuple[int, bool]] = []  # of every group still open: where its content starts, whether it is a box
    last: tuple[int, int] | None = None
    for token in _TOKEN.finditer(text):
        if token["box"] or token["open"]:
            groups.append((token.end(), token["box"] is not None))
        elif token["close"] and groups:
            start, is_box = groups.pop()
            if is_box and (last is None or start > last[0]):
                last = (start, token.start())
    return None if last is None else text[slice(*last)].strip()
