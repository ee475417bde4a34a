"""The scalars that a step logs about its rollouts and its loss: rewards, signs of advantages, clipping, the gate.

Every function is pure and works under `jit`; shares and means over nothing are 0. Token statistics are over completion
tokens, sequence statistics over sequences that have any.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from egrsd_jax.objective.reward import RunningMoments, running_std
from egrsd_jax.ops.arguments import check_shapes
from egrsd_jax.ops.masked import fill_padding, is_real, masked_count, masked_mean, masked_min


def advantage_metrics(advantage_B: ArrayLike, mask_BT: ArrayLike) -> dict[str, jax.Array]:
    """How much data a loss saw, and the balance of signs in it.

    Returns:
        `tokens` and `sequences`, counts; `advantage_positive`, `advantage_negative`, `advantage_zero`, the shares of
        sequences by the sign of their advantage.
    """
    check_shapes(advantage_B=advantage_B, mask_BT=mask_BT)
    present_B = jnp.any(is_real(mask_BT), axis=1)
    advantage_B = fill_padding(advantage_B, present_B)
    return {
        "tokens": masked_count(mask_BT),
        "sequences": masked_count(present_B),
        "advantage_positive": masked_mean(advantage_B > 0, present_B),
        "advantage_negative": masked_mean(advantage_B < 0, present_B),
        "advantage_zero": masked_mean(advantage_B == 0, present_B),
    }


def ratio_metrics(
    delta_BT: ArrayLike, ratio_BT: ArrayLike, mask_BT: ArrayLike, *, epsilon: ArrayLike
) -> dict[str, jax.Array]:
    """How far teacher and student are apart on the completion's tokens, and how often the clip binds.

    Args:
        delta_BT: `log p_T - log p_S`, nats.
        ratio_BT: `exp(sign(A) delta)` before the clip.
        mask_BT: non-zero on completion tokens.
        epsilon: radius of the clip.

    Returns:
        `delta_mean` and `delta_abs_mean` in nats; `weight_clipped_low` and `weight_clipped_high`, the shares of
        tokens whose ratio is below 1 - epsilon and above 1 + epsilon.
    """
    check_shapes(delta_BT=delta_BT, ratio_BT=ratio_BT, mask_BT=mask_BT)
    epsilon = jnp.asarray(epsilon, jnp.float32)
    ratio_BT = fill_padding(ratio_BT, mask_BT, 1.0)
    return {
        "delta_mean": masked_mean(delta_BT, mask_BT),
        "delta_abs_mean": masked_mean(jnp.abs(fill_padding(delta_BT, mask_BT)), mask_BT),
        "weight_clipped_low": masked_mean(ratio_BT < 1.0 - epsilon, mask_BT),
        "weight_clipped_high": masked_mean(ratio_BT > 1.0 + epsilon, mask_BT),
    }


def gate_metrics(
    omega_BT: ArrayLike, entropy_BT: ArrayLike, mask_BT: ArrayLike, normaliser: jax.Array
) -> dict[str, jax.Array]:
    """The gate's weights, and the entropy they were computed from.

    Returns:
        `gate_mean` and `gate_min` (1 without a token); `entropy_mean` in nats, before the lookahead; `entropy_max`,
        what entropy was divided by in nats: H_max, the largest one where each sequence has its own, or log|V|.
    """
    check_shapes(omega_BT=omega_BT, entropy_BT=entropy_BT, mask_BT=mask_BT)
    return {
        "gate_mean": masked_mean(omega_BT, mask_BT),
        "gate_min": masked_min(omega_BT, mask_BT, initial=1.0),
        "entropy_mean": masked_mean(entropy_BT, mask_BT),
        "entropy_max": jnp.max(normaliser, initial=0.0),
    }


def clip_metrics(
    entries_BT: ArrayLike, mass_BT: ArrayLike, mask_BT: ArrayLike, *, vocab_size: int
) -> dict[str, jax.Array]:
    """How much of a divergence its clip leaves without a gradient of its own.

    Args:
        entries_BT: vocabulary entries at the clip.
        mass_BT: the teacher's probability of those.
        mask_BT: non-zero on completion tokens.
        vocab_size: entries of the vocabulary.

    Returns:
        `clipped_entries_share`, of all entries of all tokens; `clipped_mass_share`, the teacher's probability on them,
        mean over tokens; `clipped_tokens_share`, of tokens with an entry at the clip.
    """
    check_shapes(entries_BT=entries_BT, mass_BT=mass_BT, mask_BT=mask_BT)
    entries_BT = fill_padding(entries_BT, mask_BT)
    return {
        "clipped_entries_share": masked_mean(entries_BT, mask_BT) / vocab_size,
        "clipped_mass_share": masked_mean(mass_BT, mask_BT),
        "clipped_tokens_share": masked_mean(entries_BT > 0, mask_BT),
    }


def contrast_metrics(modulation_BT: ArrayLike, mask_BT: ArrayLike) -> dict[str, jax.Array]:
    """How far a contrast moves advantages.

    Args:
        modulation_BT: what it adds to each token's; 0 at tokens that keep theirs.
        mask_BT: non-zero on completion tokens.

    Returns:
        `modulated_share`, of tokens whose advantage is moved; `modulation_mean`, the mean of what is added, 0 included.
    """
    check_shapes(modulation_BT=modulation_BT, mask_BT=mask_BT)
    modulation_BT = fill_padding(modulation_BT, mask_BT)
    return {
        "modulated_share": masked_mean(modulation_BT != 0, mask_BT),
        "modulation_mean": masked_mean(modulation_BT, mask_BT),
    }


def entropy_metrics(student_BT: ArrayLike, teacher_BT: ArrayLike | None, mask_BT: ArrayLike) -> dict[str, jax.Array]:
    """How unsure the student is, and how much more the teacher.

    Args:
        student_BT: the student's entropy at each token, nats.
        teacher_BT: the teacher's; None without one.
        mask_BT: non-zero on completion tokens.

    Returns:
        `student_entropy_mean`, and with a teacher `entropy_gap_mean`, the mean of H_T - H_S; nats.
    """
    check_shapes(student_BT=student_BT, mask_BT=mask_BT)
    metrics = {"student_entropy_mean": masked_mean(student_BT, mask_BT)}
    if teacher_BT is not None:
        gap_BT = fill_padding(teacher_BT, mask_BT) - fill_padding(student_BT, mask_BT)
        metrics["entropy_gap_mean"] = masked_mean(gap_BT, mask_BT)
    return metrics


def end_metrics(
    student_BT: ArrayLike, teacher_BT: ArrayLike | None, ends_BT: ArrayLike, mask_BT: ArrayLike
) -> dict[str, jax.Array]:
    """How likely an end of turn is, where a completion continued and where it ended.

    Args:
        student_BT: probability under the student that the completion ends at the token: of all tokens that end one.
        teacher_BT: the same under the teacher; None without one.
        ends_BT: non-zero where the token is such an end.
        mask_BT: non-zero on completion tokens.

    Returns:
        `end_mass_student` and `end_mass_teacher`, means over the tokens that end nothing, and the same with `_at_end`
        over those that do.
    """
    check_shapes(student_BT=student_BT, ends_BT=ends_BT, mask_BT=mask_BT)
    ended_BT, continued_BT = is_real(mask_BT) & is_real(ends_BT), is_real(mask_BT) & ~is_real(ends_BT)
    metrics = {}
    for whose, mass_BT in (("student", student_BT), ("teacher", teacher_BT)):
        if mass_BT is not None:
            metrics[f"end_mass_{whose}"] = masked_mean(mass_BT, continued_BT)
            metrics[f"end_mass_{whose}_at_end"] = masked_mean(mass_BT, ended_BT)
    return metrics


def rollout_metrics(
    reward_B: ArrayLike,
    verified_B: ArrayLike,
    cut_off_B: ArrayLike,
    length_B: ArrayLike,
    moments: RunningMoments,
    *,
    ddof: int = 0,
) -> dict[str, jax.Array]:
    """What a step's rollouts earned, and the running statistics that whiten it.

    Args:
        reward_B: rewards.
        verified_B: non-zero where the answer is correct.
        cut_off_B: non-zero where the completion reached the cap before its end-of-turn token.
        length_B: tokens of each completion.
        moments: of the earlier steps, those that `whiten` took.
        ddof: of the running deviation, as in `whiten`.

    Returns:
        `reward_mean`, `reward_running_mean`, `reward_running_std`, `verified_share`, `cut_off_share`, and
        `completion_length_mean` in tokens.

    Raises:
        ValueError: shapes disagree, or `ddof` is neither 0 nor 1.
    """
    check_shapes(reward_B=reward_B, verified_B=verified_B, cut_off_B=cut_off_B, length_B=length_B)
    everyone_B = jnp.ones(np.shape(reward_B), bool)
    return {
        "reward_mean": masked_mean(reward_B, everyone_B),
        "reward_running_mean": jnp.asarray(moments.mean, jnp.float32),
        "reward_running_std": running_std(moments, ddof=ddof),
        "verified_share": masked_mean(is_real(verified_B), everyone_B),
        "cut_off_share": masked_mean(is_real(cut_off_B), everyone_B),
        "completion_length_mean": masked_mean(length_B, everyone_B),
    }
