import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egrsd_jax.verify.extract import Missing, extract_answer, extract_in, why_missing

PIECES = ["\\boxed{", "\\boxed {", "\\boxed", "{", "}", "\\{", "\\}", "\\", "<think>", "</think>", "7", "x", " ", "\n"]
texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=30).map("".join)
thoughtless = texts.filter(lambda text: "think>" not in text)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{7}", "7"),
        (r"\boxed{ 7 }", "7"),
        (r"\boxed {7}", "7"),
        ("\\boxed\n\t{7}", "7"),
        (r"\\boxed{7}", "7"),
        (r"a \\ \boxed{7}", "7"),
        (r"a \\\boxed{7}", "7"),
        (r"\boxed{\frac{1}{2^{n}}}", r"\frac{1}{2^{n}}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\left\{ x \}}", r"\left\{ x \}"),
        (r"\boxed{a \\ b}", r"a \\ b"),
        ("\\boxed{1\n2}", "1\n2"),
        (r"\boxed{7} \boxed{8}", "8"),
        (r"\boxed{\boxed{7}}", "7"),
        (r"\boxed{a \boxed{7} b}", "7"),
        (r"\boxed{7} \boxed{8", "7"),
        (r"\boxed{8 \boxed{7}", "7"),
        (r"} \boxed{7} {", "7"),
        (r"\boxed{}", ""),
        (r"\boxed{8", None),
        (r"\boxed 7", None),
        (r"\fbox{7}", None),
        ("the answer is 7", None),
        ("", None),
    ],
)
def test_the_last_balanced_box(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"<think>\boxed{3}</think>\boxed{7}", "7"),
        (r"\boxed{3}</think>\boxed{7}", "7"),
        (r"<think>\boxed{3}</think>7", None),
        (r"<think>\boxed{3}", None),
        (r"\boxed{7}<think>\boxed{3}", None),
        (r"<think>a</think>\boxed{7}<think>", None),
        (r"<think>a</think>\boxed{3}</think>\boxed{7}", "7"),
        (r"<think>{</think>\boxed{7}", "7"),
    ],
)
def test_only_what_follows_the_thought_counts(text, answer):
    assert extract_answer(text) == answer


@settings(deadline=None, max_examples=300)
@given(texts)
def test_any_text_gives_a_stripped_answer_or_none(text):
    answer = extract_answer(text)
    assert answer is None or (answer in text and answer == answer.strip())


@settings(deadline=None, max_examples=100)
@given(texts, thoughtless)
def test_a_thought_never_changes_the_answer(thought, spoken):
    assert extract_answer(f"<think>{thought}</think>{spoken}") == extract_answer(spoken)


@settings(deadline=None, max_examples=100)
@given(thoughtless.map(lambda text: text.rstrip("\\")))
def test_a_complete_box_at_the_end_is_the_answer(before):
    assert extract_answer(before + r" \boxed{\frac{1}{2}}") == r"\frac{1}{2}"


@pytest.mark.parametrize(
    "piece", ["\\boxed{", "\\boxed{1}", "{", "}", "\\", "\\boxed", "\\boxed ", " ", "\\{", "<think>"]
)
def test_time_is_linear(piece):
    start = time.perf_counter()
    extract_answer(piece * (200_000 // len(piece)))
    extract_answer(r"\boxed{7}" + piece * (200_000 // len(piece)))
    assert time.perf_counter() - start < 2.0  # a quadratic scan needs minutes


@pytest.mark.parametrize(
    ("text", "stopped", "why"),
    [
        (r"\boxed{7}", True, None),
        (r"<think>\boxed{3}</think>\boxed{7}", True, None),
        (r"\boxed{7}", False, Missing.CUT_OFF),
        ("", False, Missing.CUT_OFF),
        ("", True, Missing.EMPTY),
        (" \n", True, Missing.EMPTY),
        (r"\boxed{ }", True, Missing.EMPTY),
        (r"<think>\boxed{7}", True, Missing.THOUGHT),
        (r"<think>so</think>7<think>", True, Missing.THOUGHT),
        ("<think>so</think>7", True, Missing.NO_BOX),
        ("the answer is 7", True, Missing.NO_BOX),
        (r"\boxed{7", True, Missing.NO_BOX),
    ],
)
def test_why_there_is_no_answer(text, stopped, why):
    assert why_missing(text, extract_answer(text), stopped=stopped) == why


@pytest.mark.parametrize(
    ("answer_format", "text", "answer"),
    [
        ("last_number", "3 apples and 1,042 pears make -7.5 of them.", "-7.5"),
        ("last_number", "It is 1,042.", "1042"),
        ("last_number", "x2 and y3b", None),
        ("last_number", "<think>5</think> none", None),
        ("last_number", "<think>5", None),
        ("####", "so\n#### 1,042\n", "1042"),
        ("####", "#### 1\nmore\n#### x^2 \nthen", "x^2"),
        ("####", "42", None),
        ("The answer is", "The answer is 3. No, the answer is: 4.", "4"),
        ("The answer is", "the answer is **12**.", "12"),
        ("The answer is", r"The answer is $\frac{1}{2}$.", r"\frac{1}{2}"),
        ("The answer is", "The answer is", None),
        ("boxed", r"\boxed{3} and 4", "3"),
    ],
)
def test_formats_beside_the_box(answer_format, text, answer):
    assert extract_in(answer_format, text) == answer


@pytest.mark.parametrize("answer_format", ["last_number", "####", "The answer is"])
@given(text=texts)
def test_other_formats_never_raise_and_never_read_an_open_thought(answer_format, text):
    answer = extract_in(answer_format, f"{text}1,2 #### The answer is <think>")
    assert answer is None
