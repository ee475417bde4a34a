"""The clipped probability ratio of PPO and GRPO, and the k3 estimate of a KL divergence. Elementwise, not reduced."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from egrsd_jax.ops.arguments import check_number, check_same_shape


def clipped_ratio_gain(
    student_logp: ArrayLike,
    sampled_logp: ArrayLike,
    advantage: ArrayLike,
    *,
    epsilon: ArrayLike = 0.2,
    epsilon_high: ArrayLike | None = None,
) -> jax.Array:
    """`min(rho A, clip(rho, 1 - epsilon, 1 + epsilon_high) A)`, rho = exp(log p_S - log p_sampled) (arXiv 1707.06347).

    Args:
        student_logp: the student's log-probabilities, nats; the only input with a gradient.
        sampled_logp: of the same tokens under the policy that sampled them.
        advantage: of every token.
        epsilon: how far the ratio may fall, in [0, 1).
        epsilon_high: how far it may rise (clip-higher of DAPO, arXiv 2503.14476); as epsilon by default.

    Returns:
        What is to be made large, float32, of the inputs' shape.

    Raises:
        ValueError: shapes disagree, or a radius is out of its range.
    """
    check_same_shape(student_logp=student_logp, sampled_logp=sampled_logp, advantage=advantage)
    epsilon_high = epsilon if epsilon_high is None else epsilon_high
    check_number("epsilon", epsilon, lambda radius: 0 <= radius < 1, "a number in [0, 1)")
    check_number("epsilon_high", epsilon_high, lambda radius: radius >= 0, "a number of at least 0")
    student, sampled, advantage = (jnp.asarray(x, jnp.float32) for x in (student_logp, sampled_logp, advantage))
    ratio = jnp.exp(student - jax.lax.stop_gradient(sampled))
    low, high = 1.0 - jnp.asarray(epsilon, jnp.float32), 1.0 + jnp.asarray(epsilon_high, jnp.float32)
    advantage = jax.lax.stop_gradient(advantage)
    return jnp.minimum(ratio * advantage, jnp.clip(ratio, low, high) * advantage)


def k3_divergence(student_logp: ArrayLike, other_logp: ArrayLike) -> jax.Array:
    """`exp(d) - d - 1` with d = log p_other - log p_S: unbiased for KL(S || other) on S's samples, and never negative.

    As GRPO has it (arXiv 2402.03300). Gradient flows to `student_logp` alone; float32. Raises ValueError where shapes
    disagree.
    """
    check_same_shape(student_logp=student_logp, other_logp=other_logp)
    gap = jax.lax.stop_gradient(jnp.asarray(other_logp, jnp.float32)) - jnp.asarray(student_logp, jnp.float32)
    return jnp.expm1(gap) - gap
