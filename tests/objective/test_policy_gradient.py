"""The clipped ratio and the k3 estimate: where they rest, where they bind, and what they are on average."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egrsd_jax.objective.policy_gradient import clipped_ratio_gain, k3_divergence


def slope(student, sampled, advantage, **clips):
    gain = jax.grad(lambda logp: jnp.sum(clipped_ratio_gain(logp, sampled, advantage, **clips)))
    return gain(jnp.asarray(student, jnp.float32))


def test_on_policy_its_gradient_is_the_advantage():
    advantage = np.array([1.5, -0.5, 0.0], np.float32)
    logp = np.array([-1.0, -2.0, -0.1], np.float32)
    np.testing.assert_array_equal(slope(logp, logp, advantage), advantage)


def test_a_ratio_beyond_the_clip_gains_nothing_more_on_that_side_alone():
    """Above 1 + epsilon_high a positive advantage has no slope, a negative one has; below 1 - epsilon the reverse."""
    sampled = np.zeros(4, np.float32)
    student = np.log(np.array([1.29, 1.29, 0.7, 0.7], np.float32))
    advantage = np.array([1, -1, 1, -1], np.float32)
    found = slope(student, sampled, advantage, epsilon=0.2, epsilon_high=0.28)
    np.testing.assert_allclose(found, [0, -1.29, 0.7, 0], rtol=1e-6)
    within = slope(student, sampled, advantage, epsilon=0.2, epsilon_high=0.30)
    np.testing.assert_allclose(within[0], 1.29, rtol=1e-6)  # clip-higher lets it rise


def test_k3_is_unbiased_and_never_negative():
    draw = np.random.default_rng(0)
    p, q = draw.dirichlet(np.ones(8)), draw.dirichlet(np.ones(8))
    each = np.asarray(k3_divergence(np.log(p), np.log(q)))
    assert (each >= 0).all()
    np.testing.assert_allclose(p @ each, p @ np.log(p / q), rtol=1e-5)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="sampled_logp has shape"):
        clipped_ratio_gain(np.zeros(3), np.zeros(2), np.zeros(3))
    with pytest.raises(ValueError, match="epsilon must be a number in"):
        clipped_ratio_gain(np.zeros(3), np.zeros(3), np.zeros(3), epsilon=1.0)
