"""From graded completions to advantages: the length-shaped reward, its running moments, and whitening by them.

It comes between the grader and the losses. A step whitens with the moments of the earlier steps and joins them after
its gradient step: `whiten` first, `update_moments` last.

Outside `jit` every operation on a `jax.Array` is a program of its own, which has to be compiled. Of NumPy arrays,
rewards and merged moments are therefore computed in NumPy, to the same bits.
"""

from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from egrsd_jax.ops.arguments import check_choice, check_number, check_same_shape, check_shapes, check_static_int


class RunningMoments(NamedTuple):
    """All rewards so far, as three float32 scalars; part of the checkpoint.

    Attributes:
        count: how many rewards (a float, so that the formulas need no casts).
        mean: their mean; 0 before the first.
        m2: the sum of their squared distances from that mean.
    """

    count: jax.Array
    mean: jax.Array
    m2: jax.Array


def shaped_reward(
    correct_B: ArrayLike, length_B: ArrayLike, *, max_length: ArrayLike, beta: ArrayLike = 0.5
) -> jax.Array:
    """Reward of each completion: `1 + beta (1 - length / max_length)` if it is correct, else 0 (arXiv 2605.13255).

    Args:
        correct_B: non-zero where the answer is correct; zero where it is wrong, cut off or missing.
        length_B: completion lengths in tokens, the end-of-turn token included. A rollout never writes more than
            `max_length`; a longer one is not clamped, and its length bonus would be negative.
        max_length: the cap on completion tokens, > 0.
        beta: weight of the length bonus, >= 0.

    Returns:
        reward_B in float32: 0, or between 1 (at the cap) and 1 + beta; a NumPy array where all arguments are NumPy's.

    Raises:
        ValueError: `max_length`, `beta` or the shapes are not as above.
    """
    check_same_shape(correct_B=correct_B, length_B=length_B)
    check_number("max_length", max_length, lambda tokens: tokens > 0, "a number of tokens above 0")
    check_number("beta", beta, lambda weight: weight >= 0, "a number >= 0")
    xp = _namespace(correct_B, length_B, max_length, beta)
    # XLA turns a division by a scalar into this product, which rounds differently: NumPy is to give the same bits.
    share = xp.asarray(length_B).astype(np.float32) * (xp.float32(1.0) / xp.asarray(max_length, np.float32))
    reward = 1.0 + xp.asarray(beta, np.float32) * (1.0 - share)
    return xp.where(xp.asarray(correct_B).astype(bool), reward, xp.float32(0.0))


def init_moments() -> RunningMoments:
    """The moments of no rewards at all. Three arrays of their own, so that a step may donate each."""
    return RunningMoments(count=jnp.float32(0.0), mean=jnp.float32(0.0), m2=jnp.float32(0.0))


def _namespace(*values: Any) -> ModuleType:
    """The module that computes with these: `jax.numpy` where any is a `jax.Array`, traced or not, else NumPy."""
    return jnp if any(isinstance(value, jax.Array) for value in values) else np


def _in_float32(moments: RunningMoments) -> RunningMoments:
    """The moments as float32 arrays, also where a checkpoint or a caller holds plain numbers."""
    xp = _namespace(*moments)
    return RunningMoments(*(xp.asarray(moment, np.float32) for moment in moments))


def update_moments(moments: RunningMoments, reward_B: ArrayLike) -> RunningMoments:
    """The moments with a batch of rewards merged in (Chan, Golub and LeVeque's parallel form of Welford's update).

    Any split of the same rewards into batches gives the same moments. Under `jit` the batch is the global one, so
    the statistics are those of all hosts.

    Raises:
        ValueError: `reward_B` is not a vector.
    """
    return merge_moments(moments, batch_moments(reward_B))


def batch_moments(reward_B: ArrayLike) -> RunningMoments:
    """The moments of one batch of rewards alone.

    Raises:
        ValueError: `reward_B` is not a vector.
    """
    check_shapes(reward_B=reward_B)
    reward_B = jnp.asarray(reward_B).astype(jnp.float32)
    count = jnp.float32(reward_B.size)
    mean = jnp.sum(reward_B) / jnp.maximum(count, 1.0)
    return RunningMoments(count, mean, m2=jnp.sum(jnp.square(reward_B - mean)))


def merge_moments(earlier: RunningMoments, batch: RunningMoments) -> RunningMoments:
    """The moments of the rewards of both; NumPy's where both are NumPy's."""
    xp = _namespace(*earlier, *batch)
    earlier, batch = _in_float32(earlier), _in_float32(batch)
    count = earlier.count + batch.count
    batch_share = batch.count / xp.maximum(count, xp.float32(1.0))
    distance = batch.mean - earlier.mean
    return RunningMoments(
        count=count,
        mean=earlier.mean + distance * batch_share,
        m2=earlier.m2 + batch.m2 + xp.square(distance) * earlier.count * batch_share,
    )


def running_std(moments: RunningMoments, *, ddof: int = 0) -> jax.Array:
    """Standard deviation of all rewards so far: `sqrt(m2 / (count - ddof))`; 0 while there are no more than `ddof`.

    Args:
        moments: of the rewards so far.
        ddof: 0 for the population's, 1 for the sample's (the paper does not say which).

    Raises:
        ValueError: another `ddof`.
    """
    check_choice("ddof", ddof, (0, 1))
    count, _, m2 = _in_float32(moments)
    freedom = count - ddof
    return jnp.where(freedom > 0, jnp.sqrt(m2 / jnp.maximum(freedom, 1.0)), 0.0)


def whiten(
    reward_B: ArrayLike,
    moments: RunningMoments,
    step: ArrayLike,
    *,
    warmup_steps: ArrayLike = 10,
    warmup_baseline: ArrayLike = 0.5,
    min_std: ArrayLike = 1e-6,
    ddof: int = 0,
) -> jax.Array:
    """Advantage of each completion against the rewards of all earlier steps: `(r - mean) / std` (arXiv 2605.13255).

    While `step < warmup_steps` it is `r - warmup_baseline`. After that, where `std < min_std` (all earlier rewards
    equal) it is `r - mean`: dividing by a floor would blow up on the first success.

    Args:
        reward_B: this step's rewards.
        moments: of the earlier steps' rewards only, gathered from step 0 on.
        step: gradient steps done before this one, from 0.
        warmup_steps: how many steps use the fixed baseline, >= 0.
        warmup_baseline: that baseline.
        min_std: the smallest deviation to divide by, > 0.
        ddof: 0 for the population's deviation, 1 for the sample's.

    Returns:
        advantage_B in float32.

    Raises:
        ValueError: a number is out of its range, or `reward_B` is not a vector.
    """
    check_shapes(reward_B=reward_B)
    check_number("step", step, lambda steps: steps >= 0, "a step number >= 0")
    check_number("warmup_steps", warmup_steps, lambda steps: steps >= 0, "a number of steps >= 0")
    check_number("warmup_baseline", warmup_baseline, lambda baseline: abs(baseline) < float("inf"), "a finite number")
    check_number("min_std", min_std, lambda deviation: deviation > 0, "a number above 0")
    reward_B = jnp.asarray(reward_B).astype(jnp.float32)
    std = running_std(moments, ddof=ddof)
    scale = jnp.where(std < jnp.asarray(min_std, jnp.float32), 1.0, std)
    whitened_B = (reward_B - _in_float32(moments).mean) / scale
    warmup_B = reward_B - jnp.asarray(warmup_baseline, jnp.float32)
    return jnp.where(jnp.asarray(step, jnp.int32) < jnp.asarray(warmup_steps, jnp.int32), warmup_B, whitened_B)


def group_advantage(
    reward_B: ArrayLike, group_size: int, *, epsilon: ArrayLike = 1e-4, normalise_std: bool = True
) -> jax.Array:
    """Advantage of each completion within its group: `(r - mean_G) / (std_G + epsilon)`, the group form of GRPO.

    Args:
        reward_B: rewards; each `group_size` consecutive rows answer one problem.
        group_size: completions per problem, at least 2: one alone would always have advantage 0.
        epsilon: added to the group's population standard deviation, > 0.
        normalise_std: divide by the deviation; False leaves `r - mean_G`, as Dr.GRPO does.

    Returns:
        advantage_B in float32; exactly 0 throughout a group of equal rewards, so that no sign is read from rounding.

    Raises:
        ValueError: `group_size` is below 2 or does not divide B, `epsilon` is not above 0, or the rewards are not a
            vector.
    """
    check_shapes(reward_B=reward_B)
    group_size = check_static_int("group_size", group_size, 2)
    check_number("epsilon", epsilon, lambda small: small > 0, "a number above 0")
    reward_B = jnp.asarray(reward_B).astype(jnp.float32)
    if reward_B.size % group_size:
        raise ValueError(f"group_size must divide the {reward_B.size} rewards of reward_B; got {group_size}")
    reward_GN = reward_B.reshape(-1, group_size)
    # Measured from the group's first reward, equal rewards are zeros, and the mean of zeros has no rounding.
    shifted_GN = reward_GN - reward_GN[:, :1]
    centred_GN = shifted_GN - jnp.mean(shifted_GN, axis=1, keepdims=True)
    if normalise_std:
        std_G1 = jnp.sqrt(jnp.mean(jnp.square(centred_GN), axis=1, keepdims=True))
        centred_GN = centred_GN / (std_G1 + jnp.asarray(epsilon, jnp.float32))
    return centred_GN.reshape(reward_B.shape)
