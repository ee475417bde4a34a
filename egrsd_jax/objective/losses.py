"""The ratio weight w, which methods share, and the losses of EGRSD and GRPO as public functions of plain arrays.

The trainer's losses of all methods are in `methods`; a test compares the two. Gradient flows through the student's
log-probabilities alone; everything that weighs them is a constant.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from egrsd_jax.objective.gate import gate
from egrsd_jax.objective.metrics import advantage_metrics, gate_metrics, ratio_metrics
from egrsd_jax.ops.arguments import check_choice, check_number, check_shapes
from egrsd_jax.ops.masked import REDUCTIONS, fill_padding, is_real, reduce_tokens


def direction_ratio(delta_BT: jax.Array, advantage_B: jax.Array) -> jax.Array:
    """`exp(sign(A) delta)` before clipping; 1 where A is 0, also for an infinite delta (0 * inf would be NaN)."""
    direction_B1 = jnp.sign(advantage_B)[:, None]
    return jnp.exp(direction_B1 * jnp.where(direction_B1 == 0, 0.0, delta_BT))


def _clip_ratio(ratio_BT: jax.Array, epsilon: ArrayLike) -> jax.Array:
    """The ratio clipped to [1 - epsilon, 1 + epsilon]."""
    check_number("epsilon", epsilon, lambda radius: 0 <= radius <= 1, "a number in [0, 1]")
    epsilon = jnp.asarray(epsilon, jnp.float32)
    return jnp.clip(ratio_BT, 1.0 - epsilon, 1.0 + epsilon)


def ratio_weight(
    student_logp_BT: ArrayLike, teacher_logp_BT: ArrayLike, advantage_B: ArrayLike, *, epsilon: ArrayLike = 0.2
) -> jax.Array:
    """Magnitude of each token's update: `clip(exp(sign(A) (log p_T - log p_S)), 1 - eps, 1 + eps)` (arXiv 2605.13255).

    Where the reward calls for more of a token, tokens that the teacher likes better than the student count more; where
    it calls for less, those that the teacher likes less do.

    Args:
        student_logp_BT: student's log-probability of each completion token, nats.
        teacher_logp_BT: the teacher's, which has read the reference solution.
        advantage_B: each completion's advantage; only its sign matters, and 0 gives weight 1.
        epsilon: radius of the clip, in [0, 1], may be traced.

    Returns:
        w_BT in float32, without a gradient. There is no mask here: what padding holds is what its own entries give,
        and `egrsd_loss` sets it to 0.

    Raises:
        ValueError: shapes disagree, or `epsilon` is out of its range.
    """
    check_shapes(student_logp_BT=student_logp_BT, teacher_logp_BT=teacher_logp_BT, advantage_B=advantage_B)
    student_BT, teacher_BT, advantage_B = (
        jax.lax.stop_gradient(jnp.asarray(array).astype(jnp.float32))
        for array in (student_logp_BT, teacher_logp_BT, advantage_B)
    )
    return _clip_ratio(direction_ratio(teacher_BT - student_BT, advantage_B), epsilon)


def _fill_empty_rows(advantage_B: ArrayLike, mask_BT: ArrayLike) -> jax.Array:
    """The advantages, 0 for sequences without a token: those pad the batch, and theirs may be anything."""
    return fill_padding(advantage_B, jnp.any(is_real(mask_BT), axis=1))


def egrsd_loss(
    student_logp_BT: ArrayLike,
    teacher_logp_BT: ArrayLike,
    teacher_entropy_BT: ArrayLike,
    advantage_B: ArrayLike,
    mask_BT: ArrayLike,
    *,
    gamma: ArrayLike,
    window: int = 0,
    epsilon: ArrayLike = 0.2,
    floor: ArrayLike = 0.1,
    scope: str = "batch",
    denominator: str = "raw",
    reduction: str = "token",
    vocab_size: ArrayLike | None = None,
    entropy_max: ArrayLike | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The loss of EGRSD (window 0) and CL-EGRSD: `-mean(sg[A w omega] log p_S)` (arXiv 2605.13255).

    w is `ratio_weight`, omega is `entropy_gate`; on masked-out positions both are 0. `gamma=0` is the direction-aware
    baseline. A micro-batch needs the whole batch's `entropy_max` (`entropy_maximum`), and its loss the share
    `reduction_count` of it.

    Args:
        student_logp_BT: student's log-probability of each completion token, nats; the only input with a gradient.
        teacher_logp_BT: the teacher's, nats.
        teacher_entropy_BT: the teacher's entropy over the whole vocabulary, nats.
        advantage_B: each completion's advantage.
        mask_BT: non-zero on completion tokens; every input may hold anything elsewhere, NaN included.
        gamma: strength of the gate in [0, 1], may be traced.
        window: lookahead in tokens, static.
        epsilon: radius of the ratio's clip, in [0, 1], may be traced.
        floor: the gate's least weight, in [0, 1].
        scope: the gate's maximum over the `batch`, each `sequence`, or `log_vocab`.
        denominator: that maximum before (`raw`) or after (`lookahead`) the lookahead.
        reduction: mean over all tokens (`token`), or over sequences of each one's mean (`sequence`).
        vocab_size: needed by `log_vocab`.
        entropy_max: H_max in nats where it was computed elsewhere, with scope `batch`.

    Returns:
        The loss and its metrics, float32 scalars; a batch without a token has loss 0. The metrics are those of
        `advantage_metrics`, `ratio_metrics` and `gate_metrics`.

    Raises:
        ValueError: shapes disagree, or an argument is not one of the above.
    """
    check_shapes(
        student_logp_BT=student_logp_BT,
        teacher_logp_BT=teacher_logp_BT,
        teacher_entropy_BT=teacher_entropy_BT,
        advantage_B=advantage_B,
        mask_BT=mask_BT,
    )
    check_choice("reduction", reduction, REDUCTIONS)
    logp_BT = fill_padding(student_logp_BT, mask_BT)
    entropy_BT = jax.lax.stop_gradient(fill_padding(teacher_entropy_BT, mask_BT))
    advantage_B = jax.lax.stop_gradient(_fill_empty_rows(advantage_B, mask_BT))
    delta_BT = jax.lax.stop_gradient(fill_padding(teacher_logp_BT, mask_BT) - logp_BT)

    ratio_BT = direction_ratio(delta_BT, advantage_B)
    weight_BT = fill_padding(_clip_ratio(ratio_BT, epsilon), mask_BT)
    confidence = gate(
        entropy_BT,
        mask_BT,
        gamma=gamma,
        window=window,
        floor=floor,
        scope=scope,
        denominator=denominator,
        vocab_size=vocab_size,
        entropy_max=entropy_max,
    )

    coefficient_BT = jax.lax.stop_gradient(advantage_B[:, None] * weight_BT * confidence.omega_BT)
    loss = reduce_tokens(-coefficient_BT * logp_BT, mask_BT, reduction)
    metrics = {
        **advantage_metrics(advantage_B, mask_BT),
        **ratio_metrics(delta_BT, ratio_BT, mask_BT, epsilon=epsilon),
        **gate_metrics(confidence.omega_BT, entropy_BT, mask_BT, confidence.normaliser),
    }
    return loss, jax.lax.stop_gradient(metrics)


def grpo_loss(
    student_logp_BT: ArrayLike, advantage_B: ArrayLike, mask_BT: ArrayLike, *, reduction: str = "token"
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The loss without a teacher: `-mean(sg[A] log p_S)`, strictly on-policy, so without a ratio to clip.

    This is `egrsd_loss` with w and omega both 1: the paper's GRPO with a whitened advantage, the usual one with
    `group_advantage`.

    Args:
        student_logp_BT: student's log-probability of each completion token, nats; the only input with a gradient.
        advantage_B: each completion's advantage.
        mask_BT: non-zero on completion tokens; both inputs may hold anything elsewhere.
        reduction: mean over all tokens (`token`), or over sequences of each one's mean (`sequence`).

    Returns:
        The loss, 0 for a batch without a token, and `advantage_metrics`; float32 scalars.

    Raises:
        ValueError: shapes disagree, or another reduction.
    """
    check_shapes(student_logp_BT=student_logp_BT, advantage_B=advantage_B, mask_BT=mask_BT)
    check_choice("reduction", reduction, REDUCTIONS)
    advantage_B = jax.lax.stop_gradient(_fill_empty_rows(advantage_B, mask_BT))
    loss = reduce_tokens(-advantage_B[:, None] * fill_padding(student_logp_BT, mask_BT), mask_BT, reduction)
    return loss, advantage_metrics(advantage_B, mask_BT)
