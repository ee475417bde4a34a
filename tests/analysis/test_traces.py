"""Which stretches and peaks of a completion a plot shows, and how it writes tokens."""

import numpy as np

from egrsd_jax.analysis.canvas import visible
from egrsd_jax.analysis.traces import envelope, fullest_span, left_context, most_lowered, peaks, separate_spans


def test_the_completion_with_most_entropy_taken_away_is_told():
    before = np.array([[1.0, 1.0, 0.0], [3.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    assert most_lowered(before, np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [1.0, 1.0, 0.0]])) == 1


def test_a_span_is_the_one_with_the_largest_sum():
    assert fullest_span(np.array([0, 5, 0, 2, 4, 2.0]), 3) == slice(3, 6)
    assert fullest_span(np.zeros(6), 3) == slice(0, 3)
    assert fullest_span(np.array([1.0, 2.0]), 40) == slice(0, 2)


def test_spans_stand_around_the_highest_values_and_do_not_meet():
    values = np.zeros(30)
    values[[2, 4, 20, 29]] = [3, 4, 2, 1]
    assert separate_spans(values, 5, 3) == [slice(2, 7), slice(18, 23), slice(25, 30)]
    assert separate_spans(values[:4], 8, 3) == [slice(0, 4)]


def test_the_envelope_is_flat_on_a_constant_and_lies_over_the_mean():
    mean, upper = envelope(np.full(9, 0.5))
    np.testing.assert_allclose([mean, upper], 0.5)
    values = np.random.default_rng(0).gamma(0.3, 1, 200)
    mean, upper = envelope(values)
    assert (upper >= mean).all()
    np.testing.assert_allclose(mean[100], values[95:106].mean())  # 200 tokens: 11 at a time


def test_peaks_are_the_highest_local_maxima_in_the_order_of_the_text():
    values = np.array([5, 1, 2, 1, 7, 7, 0, 3, 0.1])
    assert peaks(values, 3, least=0.5) == [0, 4, 7]
    assert peaks(values, 9, least=2.5) == [0, 4, 7]
    assert peaks(values, 9, least=9) == []


def test_left_context_is_whole_tokens():
    texts = ["<think>", " 7", " +", " 5", " ="]
    assert left_context(texts, 4, 7) == "… 7 + 5"
    assert left_context(texts, 2, 40) == "<think> 7"
    assert left_context(texts, 0, 40) == ""


def test_tokens_are_shown_on_one_line_and_with_what_the_font_has():
    assert visible(" +") == "+"
    assert visible("\n\n") == "↵↵"
    assert visible("   ") == "␣␣␣"
    assert visible("") == ""
    assert visible("$x") == r"\$x"
    assert visible("因\x00") == "□□"
    assert visible("abcdefghijklmnop") == "abcdefghijk…"
