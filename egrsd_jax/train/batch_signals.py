"""From the scores of a whole batch to the signals that a method's loss reads, and what the step adds to the history."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from egrsd_jax.objective.gate import agreement_factor
from egrsd_jax.objective.importance import importance_weight
from egrsd_jax.objective.settings import GateSettings, MethodSettings
from egrsd_jax.objective.signals import Signals
from egrsd_jax.ops.masked import fill_padding, masked_mean
from egrsd_jax.train.watch import Seen


class CompletionInputs(NamedTuple):
    """What a step takes of every completion in addition to its tokens, [B] and [B, T]; see `Signals`."""

    advantage_B: Any
    weight_B: Any
    demonstration_B: Any
    sampled_logp_BT: Any
    reward_B: Any = None  # for a teacher that depends on it


class BatchScores(NamedTuple):
    """What is computed of the whole batch before the gradient, [B, T]; None where the method has no use for it."""

    teacher_logp: Any = None
    teacher_entropy: Any = None
    teacher_hidden: Any = None  # [B T, D], for a divergence over more than the sampled token
    student_entropy: Any = None
    lowest: Any = None
    modulation: Any = None
    split: Any = None
    initial_logp: Any = None
    teacher_end: Any = None  # probability that the completion ends at the token; for logs
    version_logp: Any = None  # under the older student that sampled the completions
    gate: Any = None
    gate_signal: Any = None  # what it reads, where that is not the teacher's entropy


def batch_signals(
    settings: MethodSettings,
    inputs: CompletionInputs,
    batch_scores: BatchScores,
    entropy_threshold,
    retired,
    step,
    mask_BT,
    numbers,
) -> Signals:
    """The batch's signals with padding wherever `mask_BT` is False; `numbers` are those of the student."""

    def filled(array_BT):
        return None if array_BT is None else fill_padding(array_BT, mask_BT)

    student_logp_BT = fill_padding(numbers["student_logp_BT"], mask_BT)
    version_logp_BT, importance_BT = filled(batch_scores.version_logp), None
    if version_logp_BT is not None and settings.importance != "none":
        kind, cap = settings.importance, settings.importance_cap
        weight_BT = importance_weight(student_logp_BT, version_logp_BT, mask_BT, kind=kind, cap=cap)
        importance_BT = jnp.where(step > 0, weight_BT, 1.0)  # the first step's completions are the student's own
    signals = Signals(
        mask_BT=mask_BT,
        student_logp_BT=student_logp_BT,
        sampled_logp_BT=fill_padding(inputs.sampled_logp_BT, mask_BT),
        advantage_B=inputs.advantage_B,
        weight_B=inputs.weight_B,
        demonstration_B=inputs.demonstration_B,
        step=step,
        teacher_logp_BT=filled(batch_scores.teacher_logp),
        teacher_entropy_BT=filled(batch_scores.teacher_entropy),
        gate_BT=batch_scores.gate,
        gate_signal_BT=filled(batch_scores.gate_signal),
        divergence_BT=filled(numbers.get("divergence_BT")),
        clipped_entries_BT=filled(numbers.get("clipped_entries_BT")),
        clipped_mass_BT=filled(numbers.get("clipped_mass_BT")),
        student_entropy_BT=filled(batch_scores.student_entropy),
        student_entropy_threshold=entropy_threshold,
        lowest_BT=filled(batch_scores.lowest),
        modulation_BT=filled(batch_scores.modulation),
        split_BT=filled(batch_scores.split),
        initial_logp_BT=filled(batch_scores.initial_logp),
        version_logp_BT=version_logp_BT,
        importance_BT=importance_BT,
    )
    if isinstance(settings, GateSettings) and settings.agreement != 1:
        factor_BT = agreement_factor(signals.delta_BT, signals.advantage_B, settings.agreement)
        signals = signals._replace(gate_BT=signals.gate_BT * factor_BT)
    if retired is None:
        return signals
    # Without an opinion, delta is 0 and so w 1; without a gate, omega is 1.
    own_BT = jax.lax.stop_gradient(signals.student_logp_BT)
    signals = signals._replace(teacher_logp_BT=jnp.where(retired, own_BT, signals.teacher_logp_BT))
    if signals.gate_BT is None:
        return signals
    return signals._replace(gate_BT=jnp.where(retired, signals.mask_BT.astype(jnp.float32), signals.gate_BT))


def step_progress(inputs: CompletionInputs, signals: Signals) -> Seen:
    """What the step adds to how training went: of all its completions that count."""
    counts_B = jnp.any(signals.mask_BT, axis=1)
    return Seen(
        reward=masked_mean(inputs.reward_B, counts_B),
        length=masked_mean(jnp.sum(signals.mask_BT, axis=1, dtype=jnp.float32), counts_B),
        gap=masked_mean(jnp.abs(signals.delta_BT), signals.mask_BT),
    )
