"""Control gates: the same weights on other tokens, whatever the padding holds."""

import jax
import numpy as np
import pytest

from egrsd_jax.objective.controls import CONTROLS, rearranged_gate

MASK = np.arange(7)[None] < np.array([7, 0, 3, 5])[:, None]
GATE = np.where(MASK, np.random.default_rng(0).uniform(0.1, 1, MASK.shape), np.nan).astype(np.float32)


@pytest.mark.parametrize("control", CONTROLS)
def test_the_weights_are_the_gates_own(control):
    found = np.asarray(rearranged_gate(GATE, MASK, control, jax.random.key(1)))
    np.testing.assert_array_equal(np.sort(found[MASK]), np.sort(GATE[MASK]))
    np.testing.assert_array_equal(found[~MASK], 0)
    assert (found[MASK] != GATE[MASK]).any()


def test_random_depends_on_the_key_alone():
    one, same, other = (np.asarray(rearranged_gate(GATE, MASK, "random", jax.random.key(seed))) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_reversed_gives_the_largest_where_the_smallest_was():
    found = np.asarray(rearranged_gate(GATE, MASK, "reversed", jax.random.key(0)))[MASK]
    order = np.argsort(GATE[MASK])
    assert (np.diff(found[order]) <= 0).all()


def test_position_rises_along_completions_of_any_length():
    """By t / T: the last tokens of all completions get the largest weights, and no later token a smaller one."""
    found = np.asarray(rearranged_gate(GATE, MASK, "position", jax.random.key(0)))
    last = np.array([found[0, 6], found[2, 2], found[3, 4]])
    np.testing.assert_array_equal(np.sort(last), np.sort(GATE[MASK])[-3:])
    for row in (0, 2, 3):
        assert (np.diff(found[row][MASK[row]]) >= 0).all()


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="control must be one of 'random', 'reversed', 'position'"):
        rearranged_gate(GATE, MASK, "entropy", jax.random.key(0))
