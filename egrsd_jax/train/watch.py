"""How training went, as far as a teacher depends on it: when a copy of the student is earned, when a teacher retires.

The rules are after CGTR (arXiv 2606.03532), a teacher that is refreshed where reward rose and completions did not grow,
and RetireOPD (arXiv 2609.20784), which drops a teacher once the student no longer comes closer to it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from egrsd_jax.objective.settings import TeacherSettings, WeightSettings

GAP_DECAY = 0.9  # of the running mean of |delta|, whose least value is watched


class Watch(NamedTuple):
    """Float32 scalars, part of the checkpoint.

    Attributes:
        reward, length: sums over the steps since the last decision on a copy, of each step's mean.
        steps: how many steps those are.
        earned_reward, earned_length: means of the period before the last copy that was earned; of the first period
            before one was; length is infinite until then.
        gap: running mean of |delta|, nats; infinite before the first step.
        least_gap: its least value.
        stalled: steps since that.
        retired: 1 once the teacher has retired.
    """

    reward: jax.Array
    length: jax.Array
    steps: jax.Array
    earned_reward: jax.Array
    earned_length: jax.Array
    gap: jax.Array
    least_gap: jax.Array
    stalled: jax.Array
    retired: jax.Array


class Seen(NamedTuple):
    """What a step adds: means of its rewards, of its completions' lengths in tokens, and of |delta| in nats."""

    reward: jax.Array
    length: jax.Array
    gap: jax.Array


def first_watch() -> Watch:
    """Before the first step."""
    zero, infinite = jnp.float32(0.0), jnp.float32(jnp.inf)
    return Watch(zero, zero, zero, zero, infinite, infinite, infinite, zero, zero)


def next_watch(watch: Watch, step: Seen, settings: TeacherSettings) -> tuple[Watch, jax.Array]:
    """The watch after a step, and whether the step earned the teacher a copy of the student, a bool scalar.

    Every `teacher_every` steps the period's mean reward and length are compared with those of the last copy's period:
    more reward and at most 1 + `teacher_growth` times the length earn one. The first period only sets the mark.
    """
    reward, length, steps = watch.reward + step.reward, watch.length + step.length, watch.steps + 1
    due = steps >= settings.teacher_every
    mean_reward, mean_length = reward / steps, length / steps
    is_first = jnp.isinf(watch.earned_length)
    longest = jnp.where(is_first, 0.0, watch.earned_length) * (1 + settings.teacher_growth)
    earned = due & ~is_first & (mean_reward > watch.earned_reward) & (mean_length <= longest)
    marks = due & (is_first | earned)
    gap = jnp.where(jnp.isinf(watch.gap), step.gap, GAP_DECAY * watch.gap + (1 - GAP_DECAY) * step.gap)
    stalled = jnp.where(gap < watch.least_gap, 0.0, watch.stalled + 1)
    patience = settings.retire_after if isinstance(settings, WeightSettings) else 0
    retired = jnp.maximum(watch.retired, (stalled >= patience).astype(jnp.float32)) if patience else watch.retired
    after = Watch(
        reward=jnp.where(due, 0.0, reward),
        length=jnp.where(due, 0.0, length),
        steps=jnp.where(due, 0.0, steps),
        earned_reward=jnp.where(marks, mean_reward, watch.earned_reward),
        earned_length=jnp.where(marks, mean_length, watch.earned_length),
        gap=gap,
        least_gap=jnp.minimum(gap, watch.least_gap),
        stalled=stalled,
        retired=retired,
    )
    return after, earned
