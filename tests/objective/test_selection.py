"""Which completions count: mixed groups, pass rates, consensus."""

import numpy as np
import pytest

from egrsd_jax.objective.selection import consensus, mixed_groups, others, pace_weight, shortest_correct, shown_attempts

CORRECT = np.array([1, 1, 1, 1, 0, 0, 0, 0, 1, 0, 0, 0], bool)


def test_groups_all_right_or_all_wrong_are_dropped():
    np.testing.assert_array_equal(mixed_groups(CORRECT, 4), [False] * 8 + [True] * 4)


def test_pace_is_the_beta_kernel_of_the_pass_rate():
    np.testing.assert_allclose(pace_weight(CORRECT, 4), [0] * 8 + [0.25 * 0.75] * 4)
    np.testing.assert_allclose(pace_weight(CORRECT, 4, right=0, wrong=2), [0] * 4 + [1] * 4 + [0.75**2] * 4)
    assert pace_weight(CORRECT, 4).dtype == np.float32


@pytest.mark.parametrize(
    ("answers", "least", "agreeing"),
    [
        (["1", "2", "1", None], 2, [True, False, True, False]),
        (["1", "2", "3", None], 2, [False] * 4),
        ([None, None, None], 1, [False] * 3),
        (["1", "2", "2", "1"], 2, [True, False, False, True]),
    ],
)
def test_consensus_is_of_the_most_frequent_answer(answers, least, agreeing):
    assert consensus(answers, least) == agreeing


def test_a_group_size_that_does_not_divide_is_named():
    with pytest.raises(ValueError, match="group_size must divide the 12 completions; got 5"):
        mixed_groups(CORRECT, 5)


def test_the_shortest_correct_completion_of_a_problem_is_chosen():
    correct = np.array([0, 1, 1, 1, 0, 0, 0, 0, 1, 1, 0, 1], bool)
    length = np.array([1, 9, 5, 5, 1, 1, 1, 1, 4, 7, 2, 4])
    chosen = shortest_correct(correct, length, 4)
    np.testing.assert_array_equal(np.flatnonzero(chosen), [2, 8])  # the second problem is unsolved
    with pytest.raises(ValueError, match="group_size must divide"):
        shortest_correct(correct, length, 5)


def test_the_teacher_reads_a_wrong_attempt_before_a_correct_one_and_never_the_completion_itself():
    correct = np.array([1, 0, 0, 1, 1, 1, 1, 1], bool)
    length = np.array([3, 8, 6, 1, 9, 5, 7, 5])
    np.testing.assert_array_equal(shown_attempts(correct, length, 4), [2, 2, 1, 2, 5, 7, 5, 5])
    with pytest.raises(ValueError, match="group_size must be at least 2"):
        shown_attempts(correct, length, 1)


def test_the_wanted_others_of_a_problem_come_in_turn_from_the_next_one_on():
    wanted = np.array([1, 0, 1, 1, 0, 0, 1, 0], bool)
    assert others(wanted, 4) == [[2, 3], [2, 3, 0], [3, 0], [0, 2], [6], [6], [], [6]]
    with pytest.raises(ValueError, match="group_size must divide"):
        others(wanted, 3)
