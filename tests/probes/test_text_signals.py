"""What is counted in texts: phrases, stretches of the reference, where the answer is first stated, style tokens."""

import pytest

from egrsd_jax.probes.settings import HESITATIONS, MENTIONS
from egrsd_jax.probes.text_signals import StyleTokens, count_phrases, first_stated, shared_stretches


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Wait, no. Hmm... let me  check\nthat; wait!", 4),
        ("We await the waiter.", 0),  # whole words alone
        ("Let me double-check this.", 1),  # the longer phrase, and not `double-check` inside it again
        ("", 0),
    ],
)
def test_hesitations(text, count):
    assert count_phrases(text, HESITATIONS) == count


def test_a_reference_angle_is_no_reference():
    assert count_phrases("The reference angle is 30 degrees, a frame of reference.", MENTIONS) == 0
    assert count_phrases("As the Reference Solution says, x = 2.", MENTIONS) == 1


def test_signs_in_phrases_are_taken_literally():
    assert count_phrases("a.b axb a.b", ("a.b",)) == 2


def test_shared_stretches_by_hand():
    # of `one two three four five`: (one two) is in the problem, (two three) and (four five) in the reference
    assert shared_stretches("One two, three".replace(",", "") + " four five", "two three; four five", "one two", 2) == (
        2,
        3,
    )


def test_short_texts_have_no_stretches():
    assert shared_stretches("one two", "one two", "", 3) == (0, 0)
    assert shared_stretches("one two three", "", "", 3) == (0, 1)


def test_commands_numbers_and_signs_are_words():
    assert shared_stretches(r"\frac{12}{7}", r"\frac { 12 } { 7 }", "", 7) == (1, 1)


@pytest.mark.parametrize(
    ("text", "answer", "place"),
    [
        (r"0123456789\boxed{7}.", "7", 0.5),
        (r"\boxed{ 7 } and so on", "7", 0.0),
        ("The answer is 12. Since ...", "12", 4 / 27),
        ("The answer is $12$ ...", "12", 4 / 22),
        (r"The final answer is: **\boxed{12}**", "12", 10 / 35),
        ("The answer is 125 or so", "12", None),  # another number
        ("The answer is 1.5", "1", None),
        ("The answer is 1 + 2", "1", None),
        ("12 is what comes out", "12", None),  # not stated as an answer
        (r"\boxed{3} no, \boxed{4}", "4", 14 / 23),
        ("The answer is ", "", None),
        ("", "7", None),
    ],
)
def test_where_the_answer_is_first_stated(text, answer, place):
    assert first_stated(text, answer) == (None if place is None else pytest.approx(place))


def test_style_tokens_are_judged_by_their_own_text_and_decoded_once():
    texts, asked = {1: " Wait", 2: ",", 3: "waiting", 4: "so,\n"}, []

    def decode(ids):
        asked.append(ids[0])
        return texts[ids[0]]

    style = StyleTokens(("wait", "so"), decode)
    assert style.mask([1, 2, 3, 4, 1]).tolist() == [True, False, False, True, True]
    assert style.mask([4, 3]).tolist() == [True, False]
    assert sorted(asked) == [1, 2, 3, 4]
