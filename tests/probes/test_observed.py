"""What each probe counts in completions."""

import math

import numpy as np
import pytest

from egrsd_jax.probes.observed import Observed, fork_entropy, fork_masks, tallies
from egrsd_jax.probes.settings import ProbeSettings


def completion(text: str = "one two three", correct: bool = True, **fields) -> Observed:
    length = fields.get("length", 10)
    given = {"problem": "", "reference": "", "answer": "7", "stopped": True, "length": length}
    return Observed(text=text, correct=correct, **{**given, "style": np.zeros(length, bool), **fields})


def test_right_and_wrong_are_counted_apart():
    observed = [
        completion("wait", length=10),
        completion("wait hmm", length=30, correct=False, stopped=False),
        completion("fine", length=10),
    ]
    found = tallies(observed, ProbeSettings())
    assert [found["hesitation"][group].value for group in ("all", "right", "wrong")] == [3 / 50, 1 / 20, 2 / 30]
    assert [found["length"][group].value for group in ("all", "right", "wrong")] == [50 / 3, 10, 30]
    assert [found["cut_off"][group].value for group in ("all", "right", "wrong")] == [1 / 3, 0, 1]
    assert found["accuracy"]["all"].value == 2 / 3


def test_early_answers_are_shares_of_completions_that_have_one():
    early, late = r"\boxed{7} because ..........", r"because ............ \boxed{7}"
    found = tallies([completion(early), completion(late), completion("none", answer=None)], ProbeSettings())
    assert (found["early"]["all"].value, found["early"]["all"].count) == (0.5, 2)
    later = tallies([completion(early), completion(late)], ProbeSettings(early_within=0.9))
    assert later["early"]["all"].value == 1


def test_mentions_and_words_of_the_reference():
    observed = [completion("the answer key says a b c", reference="x a b c"), completion("a b d", reference="e")]
    found = tallies(observed, ProbeSettings(overlap_words=2))
    assert found["mention"]["all"].value == 0.5
    assert found["overlap"]["all"].value == 2 / 8  # (a b), (b c) of 6 + 2 stretches


def test_weight_and_signal_on_style():
    style = np.array([True, False, False, True])
    numbers = {"length": 4, "style": style, "weight": np.array([1.0, 2, 3, 2]), "delta": np.array([-3.0, 1, 0, 0])}
    found = tallies([completion(**numbers), completion()], ProbeSettings())
    assert found["style_weight"]["all"].value == 3 / 8
    assert found["style_delta"]["all"].value == 3 / 4
    assert found["style_tokens"]["all"].value == 2 / 14
    assert math.isnan(found["fork"]["all"].value)  # nobody knows an entropy


def test_forks_are_unsure_for_a_whole_window():
    entropies = [np.array([2.0] * 7 + [0.1]), np.array([0.1, 2.0])]
    masks = fork_masks(entropies, 1.0)
    # the window is six tokens with the token itself, and the end of a completion cuts it
    assert masks[0].tolist() == [True, True] + [False] * 6
    assert masks[1].tolist() == [False, True]
    assert fork_entropy(entropies) == pytest.approx(np.quantile([2.0] * 8 + [0.1] * 2, 0.7))
