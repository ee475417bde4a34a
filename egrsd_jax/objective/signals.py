"""What a method's token loss is given: the numbers of a step's completions, B of them with T positions each."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Signals(NamedTuple):
    """The numbers of a step's completions, [B, T] or [B], float32; None where the method did not ask for them.

    Padding of every array [B, T] holds 0. `student_logp` and `divergence` carry the student's gradient.
    """

    mask_BT: jax.Array  # bool
    student_logp_BT: jax.Array
    sampled_logp_BT: jax.Array  # the sampler's own, of the policy that wrote the completion
    advantage_B: jax.Array
    weight_B: jax.Array  # how much each completion counts (PACED); 1 elsewhere
    demonstration_B: jax.Array  # bool: the completion is the teacher's (GATES)
    step: jax.Array  # gradient steps before this one
    teacher_logp_BT: Any = None
    teacher_entropy_BT: Any = None
    gate_BT: Any = None
    gate_signal_BT: Any = None  # what the gate reads, where that is not the teacher's entropy
    divergence_BT: Any = None
    clipped_entries_BT: Any = None  # vocabulary entries at the divergence's clip
    clipped_mass_BT: Any = None  # the teacher's probability of those
    student_entropy_BT: Any = None
    student_entropy_threshold: Any = None  # that the kept share of the step's tokens reaches (REOPOLD), a scalar
    lowest_BT: Any = None  # what a token counts where the lowest share of the step's counts alone; a mean of 1
    modulation_BT: Any = None  # what a contrast adds to the advantage (RLCSD), a constant
    split_BT: Any = None  # what a token counts where those that it moves and the others are averaged apart
    initial_logp_BT: Any = None  # log-probabilities under the initial model and the student's prompt
    version_logp_BT: Any = None  # under the older student that sampled the completions, where rollout.ahead has one
    importance_BT: Any = None  # what corrects for it, a constant

    @property
    def delta_BT(self) -> jax.Array:
        """log p_T - log p_S, nats, a constant."""
        return jax.lax.stop_gradient(self.teacher_logp_BT - self.student_logp_BT)

    @property
    def advantage_BT(self) -> jax.Array:
        """Every token has its completion's advantage, times how much the completion counts."""
        return (self.weight_B * self.advantage_B)[:, None] * jnp.ones_like(self.student_logp_BT)
