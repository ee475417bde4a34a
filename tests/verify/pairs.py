r"""Pairs of a prediction and a gold answer, and completions, for hypothesis; and what a verdict must not be.

Used by `test_fuzz` and by `benchmarks/fuzz_grading.py`.
"""

import re
from typing import NamedTuple

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from egrsd_jax.verify.pool import Verdict
from tests.verify.answers import known, labelled, numbers


class Pair(NamedTuple):
    """What the grader gets, and whether it has to be right; None where it may come out either way."""

    kind: str
    prediction: str
    answer: str
    right: bool | None


def violation(pair: Pair, verdict: Verdict) -> str | None:
    """What is wrong with a verdict; that it was not found is wrong only where the two texts are the same."""
    if not verdict.reason:
        return f"{verdict.outcome} without a reason"
    if pair.right in (None, verdict.correct) or (verdict.ungradable and pair.prediction != pair.answer):
        return None
    return f"{verdict.outcome}: {verdict.reason}"


# --- Anything ------------------------------------------------------------------------------------------------------

TOKENS = [
    r"\frac", r"\dfrac12", r"\sqrt", r"\sqrt[3]", r"\pi", r"\sin", r"\ln", r"\log_", r"\cup", r"\pm", r"\infty", r"\le",
    r"\text{", r"\text{cm}", r"\text{ and }", r"\mathrm{~m}", r"\left(", r"\right)", r"\\", r"\{", r"\}", r"\cdot",
    r"\times", r"\gamma", r"\approx", r"\in", r"\mid", r"\boxed{", r"\boxed", r"\begin{pmatrix}", r"\end{pmatrix}",
    r"\int", r"\int_0^1", r"\sum_{n=1}^{\infty}", r"\prod", r"\lim_{x\to0}", r"\binom", r"\overline{", r"^\circ", "°",
    r"\%", r"\$", r"\,", r"\!", r"\;", "~", "\\", "{", "}", "(", ")", "[", "]", "^", "^{", "_", "_{", "+", "-", "=",
    ",", ";", ":", ".", "x", "y", "d", "e", "i", "E", "0", "1", "2", "10", "99", "0.5", "1e9", "1,000", "!", "|", "%",
    "&", "'", "/", "<", ">", "*", "**", "$", "√", "²", "∞", "−", "½", "<think>", "</think>", "\x00", "\x1b", "\ud800",
    "\n", "\t", "\u200b", "\u202e", "\U0001d7d9", "١", "①", "µ", "mod", "or", "I", "million",
]  # fmt: skip
_NESTS = (
    ("{", "}"), ("(", ")"), (r"\frac{1}{", "}"), (r"\sqrt{", "}"), ("x^{", "}"), ("10^{", "}"), ("e^{-", "}"),
    (r"\left(", r"\right)"), (r"\{", r"\}"), ("|", "|"), (r"\text{", "}"), (r"\boxed{", "}"), (r"\sin(", ")"),
    ("(1+", ")!"),
)  # fmt: skip
tokens = st.lists(st.sampled_from(TOKENS) | st.text(max_size=2), max_size=20).map("".join)


@st.composite
def nests(draw: st.DrawFn) -> str:
    """One thing within itself up to a hundred times, closed again or not."""
    opening, closing = draw(st.sampled_from(_NESTS))
    depth = draw(st.integers(1, 8) | st.integers(9, 100))
    return (
        opening * depth
        + draw(st.sampled_from(["", "1", "x", r"\frac{1}{2}"]))
        + draw(st.sampled_from(["", closing])) * depth
    )


@st.composite
def damaged(draw: st.DrawFn, texts: SearchStrategy[str]) -> str:
    """A text with a piece left out, put in, or repeated, up to 200,000 characters long."""
    text = draw(texts)
    start, end = sorted(draw(st.tuples(*[st.integers(0, len(text))] * 2)))
    match draw(st.sampled_from(["leave out", "put in", "repeat"])):
        case "leave out":
            return text[:start] + text[end:]
        case "put in":
            return text[:start] + draw(st.sampled_from(TOKENS) | st.characters()) + text[start:]
        case _:
            piece = text[start:end] or " "
            times = draw(st.integers(2, 5) | st.sampled_from([100, 200_000]))
            return text[:start] + piece * min(times, 200_000 // len(piece)) + text[end:]


anything = tokens | nests() | known.flatmap(st.sampled_from) | st.text(max_size=30)
texts = anything | damaged(anything)

# --- Pairs ---------------------------------------------------------------------------------------------------------


@st.composite
def respelled(draw: st.DrawFn, text: str) -> str:
    """The same answer with other blanks, other fractions and delimiters of mathematics."""
    blank = draw(st.sampled_from(["", " ", r"\,", r"\;", "~", "\u2009"]))
    text = re.sub(r" ?([+=<>]) ?", lambda match: f"{blank}{match[1]}{blank}", text)
    if draw(st.booleans()):
        text = re.sub(r"\\[dt]?frac(?![A-Za-z])", draw(st.sampled_from([r"\\frac", r"\\dfrac", r"\\tfrac"])), text)
    return draw(st.sampled_from(["{}", " {} ", "${}$", r"\({}\)", "{}.", "**{}**", r"\displaystyle {}"])).format(text)


@st.composite
def _itself(draw: st.DrawFn) -> Pair:
    text = draw(texts.filter(lambda text: text.strip() and r"\boxed" not in text and "think>" not in text))
    return Pair("itself", text, text, True)


@st.composite
def _equal(draw: st.DrawFn) -> Pair:
    answer = draw(known)
    prediction, gold = draw(st.permutations([answer.gold, draw(respelled(answer.same))]))
    return Pair("equal", prediction, gold, True)


@st.composite
def _perturbed(draw: st.DrawFn) -> Pair:
    answer = draw(known)
    prediction, gold = draw(st.permutations([answer.gold, draw(respelled(answer.other))]))
    return Pair("perturbed", prediction, gold, False)


_labelled = st.builds(
    lambda answer, is_right: Pair("labelled", answer.same if is_right else answer.other, answer.gold, is_right),
    labelled,
    st.booleans(),
)
_broken = known.flatmap(
    lambda answer: st.builds(Pair, st.just("broken"), damaged(st.sampled_from(answer)), st.just(answer.gold), st.none())
)
_unrelated = st.builds(Pair, st.just("unrelated"), texts, texts, st.none())
PAIRS = {
    "itself": _itself(),
    "equal": _equal(),
    "perturbed": _perturbed(),
    "labelled": _labelled,
    "broken": _broken,
    "unrelated": _unrelated,
}

# --- Completions ---------------------------------------------------------------------------------------------------

_PIECES = [r"\boxed{", r"\boxed {", r"\\boxed{", r"\boxed", "{", "}", r"\{", r"\}", "\\", "<think>", "</think>", "\n"]
_boxes = (tokens | numbers().map(lambda answer: answer.gold)).map(lambda text: rf"\boxed{{{text}}}")
completions = st.lists(st.sampled_from(_PIECES) | _boxes, max_size=12).map("".join)


def last_box(text: str) -> str | None:
    """What `extract_answer` should find, by trying every box in turn: simple, and quadratic in time."""
    spoken = text.split("</think>")[-1]
    if "<think>" in spoken:
        return None
    for box in reversed(list(re.finditer(r"\\boxed\s*\{", spoken))):
        depth, position = 1, box.end()
        while position < len(spoken) and depth:
            character = spoken[position]
            depth += (character == "{") - (character == "}")
            position += 2 if character == "\\" else 1
        if not depth:
            return spoken[box.end() : position - 1].strip()
    return None
