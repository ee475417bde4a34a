"""RLCSD's contrast and what it adds to an advantage, against its equations in float64, one token after another."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from egrsd_jax.objective.contrast import contrast, modulated_advantage, modulation, split_weight

READ = np.array([[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 0, 0]], bool)


def test_the_contrast_is_to_the_mean_probability_of_the_wrong_hints_that_are_read():
    draw = np.random.default_rng(0)
    right, wrong = (
        draw.uniform(-4, -0.1, (4, 5)).astype(np.float32),
        draw.uniform(-9, -0.1, (4, 3, 5)).astype(np.float32),
    )
    wrong[~READ] = np.nan  # of no prompt
    expected = np.zeros((4, 5))
    for b, t in np.ndindex(4, 5):
        read = [math.exp(wrong[b, k, t]) for k in range(3) if READ[b, k]]
        if read:
            expected[b, t] = right[b, t] - math.log(sum(read) / len(read))
    np.testing.assert_allclose(contrast(right, wrong, READ), expected, rtol=1e-6, atol=1e-6)


def test_a_contrast_moves_an_advantage_by_its_tanh_where_that_is_enough():
    contrasts = jnp.array([[0.0, 0.0005, -0.0005, 0.002, 0.05, -8.0]], jnp.float32)
    moved = modulation(contrasts, scale=0.02, strength=0.5, least=0.02)
    expected = [0, 0, 0, *(0.5 * math.tanh(value / 0.02) for value in (0.002, 0.05, -8.0))]  # 0.0125 is too little
    np.testing.assert_allclose(moved[0], expected, rtol=1e-6)


def test_the_reward_decides_the_direction():
    advantage = jnp.array([[1.0, 1.0, 0.3, -1.0, -1.0, -0.3, 0.0]], jnp.float32)
    moved = jnp.array([[0.5, -0.5, -0.5, 0.5, -0.5, 0.5, 0.5]], jnp.float32)
    np.testing.assert_allclose(modulated_advantage(advantage, moved), [[1.5, 0.5, 0, -0.5, -1.5, 0, 0]])


@pytest.mark.parametrize("chosen", [[1, 0, 0, 1], [1, 1, 1, 1], [0, 0, 0, 0]])
def test_two_parts_of_the_tokens_are_averaged_apart(chosen):
    """Each has its own mean, whichever is larger; padding is in neither."""
    values, mask = np.array([[3.0, 5.0, 7.0, 11.0], [2.0, 9.0, 9.0, 9.0]]), np.array([[1, 1, 1, 1], [1, 0, 0, 0]], bool)
    picked = np.array([chosen, [0, 1, 1, 1]], bool)
    weight = np.asarray(split_weight(picked, mask, weight=0.25), float)
    parts = [values[mask & picked], values[mask & ~picked]]
    expected = sum(share * part.mean() for share, part in zip((0.25, 1), parts, strict=True) if len(part))
    np.testing.assert_allclose((weight * values)[mask].mean(), expected, rtol=1e-6)
    assert not weight[~mask].any()
