"""Loops and repeated stretches against their definitions, and on texts that are none."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from egrsd_jax.data.tasks.registry import BUILT_IN_TASKS
from egrsd_jax.probes.settings import ProbeSettings
from egrsd_jax.probes.token_signals import REPEATS, loop_period, repeated_stretches

LEAST = ProbeSettings().loop_tokens


@pytest.mark.parametrize(
    ("tokens", "period"),
    [
        ([7] * 24, 1),
        ([1, 2, 3] + [7] * 24, 1),
        ([7] * 23, None),  # shorter than what counts
        ([1, 2, 3] + [7] * 24 + [8], None),  # it found a way out
        ([1, 2, 3] * 8, 3),
        (list(range(10)) * 4, 10),
        (list(range(10)) * 3, None),  # three times is a song
        ([5] * 7 + list(range(10)) * 4, 10),
        (list(range(100)), None),
        ([], None),
    ],
)
def test_loops(tokens, period):
    assert loop_period(tokens, LEAST) == period


@given(st.lists(st.integers(0, 2), max_size=40), st.integers(4, 12))
def test_a_loop_is_a_tail_that_is_one_stretch_again_and_again(tokens, least):
    def repeats(period):
        length = max(REPEATS * period, least)
        tail = tokens[-length:]
        return len(tail) == length and all(a == b for a, b in zip(tail, tail[period:], strict=False))

    expected = next((period for period in range(1, len(tokens) + 1) if repeats(period)), None)
    assert loop_period(tokens, least) == expected


@given(st.lists(st.integers(0, 2), max_size=30), st.integers(1, 4))
def test_a_stretch_is_repeated_where_it_was_before(tokens, n):
    stretches = [tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1)]
    again = sum(stretch in stretches[:place] for place, stretch in enumerate(stretches))
    assert repeated_stretches(tokens, n) == (again, len(stretches))


@pytest.mark.parametrize("task", ["arithmetic", "orders", "words"])
def test_solutions_of_the_built_in_tasks_end_in_no_loop(task):
    for problem in BUILT_IN_TASKS[task].problems(200, seed=1, held_out=False):
        words = problem.solution.split()
        assert loop_period([hash(word) for word in words], LEAST) is None
        assert loop_period([ord(letter) for letter in problem.solution], LEAST) is None
