"""Divergences between teacher and student at every token: over the whole vocabulary, and over K tokens of it.

What the full-vocabulary methods (OPSD, CRISP, SDFT) and the top-k ones (SDPO, EOPD) minimise. Over the whole
vocabulary they come from the two models' hidden states, and neither model's logits are ever held whole.

With p the teacher, q the student and m = beta p + (1 − beta) q, at every position:

    beta = 0        forward KL                 Σ_v p (log p − log q)
    beta = 1        reverse KL                 Σ_v q (log q − log p)
    0 < beta < 1    generalised Jensen-Shannon Σ_v beta p (log p − log m) + (1 − beta) q (log q − log m)

As in GKD (arXiv 2306.13649), whose ends are the two KLs and not the limits of the values in between: those are 0.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.typing import ArrayLike

from egrsd_jax.ops.arguments import check_choice, check_number, check_shapes
from egrsd_jax.ops.vocabulary import (
    Passes,
    Readout,
    VocabularyChunks,
    chunk_logits,
    drop_dead,
    log_sum_exp,
    make_readout,
    over_chunks,
    pull_back,
    vocabulary_passes,
    wanted_gradients,
)

REST = ("bucket", "renormalise")


class ClippedDivergence(NamedTuple):
    """A clipped divergence at every position, and what its clip took out of the gradient, [B, T]; no gradient of those.

    Attributes:
        divergence: of `token_divergence`, nats.
        entries: how many vocabulary entries are at the clip.
        mass: the teacher's probability of these entries together.
    """

    divergence: jax.Array
    entries: jax.Array
    mass: jax.Array


class _Entries(NamedTuple):
    """What vocabulary entries add to the divergence, and its derivative there with respect to the student's log q.

    Where they are counted, also whether the clip binds there, and the teacher's probability where it does.
    """

    share: jax.Array
    slope: jax.Array
    is_clipped: Any = None
    clipped_mass: Any = None


class _Teacher(NamedTuple):
    """What the student is compared with; constants all."""

    readout: Any
    clip: Any


def token_divergence(
    student_hidden_BTD: jax.Array,
    student_head: jax.Array,
    teacher_hidden_BTD: jax.Array,
    teacher_head: jax.Array,
    *,
    beta: float = 0.0,
    clip: ArrayLike | None = None,
    temperature: ArrayLike = 1.0,
    chunk_size: int | None = None,
    vocabulary_axis: int = 1,
) -> jax.Array:
    """Divergence of student and teacher at every position, both softmax(hidden · head / temperature), over all of V.

    `beta` chooses it, as this module's first lines say. `clip` is OPSD's (arXiv 2601.18734): no entry of the sum over
    the vocabulary counts for more than `clip`, and where the limit binds, the entry has no gradient.

    The gradient reaches the student's hidden states and head alone, each in its own dtype, and nothing is computed or
    stored for one that is not asked for (a frozen head). Precision, NaN at positions without a cotangent, and sharding
    are as in `token_scores`: float32 between the products, exactly nothing from either model's hidden states there,
    and each device scanning its own part of both heads. Forward, each model's logits are made twice, backward once.

    Args:
        student_hidden_BTD: the student's final hidden states, floating point.
        student_head: its output head, [D, V].
        teacher_hidden_BTD: the teacher's hidden states at the same positions; its D may be another.
        teacher_head: its head, over the same V. May be the student's own array.
        beta: 0 forward KL, 1 reverse KL, between them a Jensen-Shannon divergence; a Python number, static under jit.
        clip: the most that an entry may count, nats; a positive number, may be traced. None is no limit.
        temperature: divides both models' logits; as in `token_scores`.
        chunk_size: at most so many vocabulary entries of each model at a time; None chooses from the shapes.
        vocabulary_axis: 0 takes both heads as [V, D].

    Returns:
        [B, T] in nats, float32 (float64 where an input is). Without `clip` it is never below 0 by more than rounding
        (1e-6 in float32); where the models agree, it and its gradient are 0 in the same sense.

    Raises:
        ValueError: naming the argument whose shape, dtype or value does not fit.
    """
    readouts = student_hidden_BTD, student_head, teacher_hidden_BTD, teacher_head
    options = {"temperature": temperature, "chunk_size": chunk_size, "vocabulary_axis": vocabulary_axis}
    return _checked_divergence(*readouts, beta=beta, clip=clip, counts=False, **options)[0]


def clipped_divergence(
    student_hidden_BTD: jax.Array,
    student_head: jax.Array,
    teacher_hidden_BTD: jax.Array,
    teacher_head: jax.Array,
    *,
    clip: ArrayLike,
    beta: float = 0.0,
    temperature: ArrayLike = 1.0,
    chunk_size: int | None = None,
    vocabulary_axis: int = 1,
) -> ClippedDivergence:
    """`token_divergence` with a clip, and how much of the vocabulary and of the teacher's mass the clip binds.

    Both are counted in the pass that finds the divergence. Arguments and errors are those of `token_divergence`.
    """
    if clip is None:
        raise ValueError("clip is None; clipped_divergence counts what a clip binds, so give one")
    readouts = student_hidden_BTD, student_head, teacher_hidden_BTD, teacher_head
    options = {"temperature": temperature, "chunk_size": chunk_size, "vocabulary_axis": vocabulary_axis}
    return ClippedDivergence(*_checked_divergence(*readouts, beta=beta, clip=clip, counts=True, **options))


def _checked_divergence(
    student_hidden_BTD,
    student_head,
    teacher_hidden_BTD,
    teacher_head,
    *,
    beta,
    clip,
    counts: bool,
    temperature,
    chunk_size,
    vocabulary_axis,
) -> tuple[jax.Array, ...]:
    """The divergence, and with `counts` the entries that the clip binds and their mass."""
    beta = _check_beta(beta)
    if clip is not None:
        check_number("clip", clip, lambda limit: 0 < limit < math.inf, "a positive finite number, or None")
    student = make_readout(student_hidden_BTD, student_head, temperature, vocabulary_axis, model="student_")
    teacher = make_readout(teacher_hidden_BTD, teacher_head, temperature, vocabulary_axis, model="teacher_")
    _check_pair(student, teacher, vocabulary_axis)
    passes = vocabulary_passes(chunk_size, vocabulary_axis, student, teacher)
    dtype = np.promote_types(student.temperature.dtype, teacher.temperature.dtype)
    student, teacher = (one._replace(temperature=one.temperature.astype(dtype)) for one in (student, teacher))
    clip = None if clip is None else jnp.asarray(clip).astype(dtype)
    return _token_divergence(passes, beta, counts, student, _Teacher(teacher, clip))


# Jitted, so that a call outside of jit compiles once for its shapes and not once a call.
@partial(jax.jit, static_argnums=(0, 1, 2))
def _token_divergence(
    passes: Passes, beta: float, counts: bool, student: Readout, teacher: _Teacher
) -> tuple[jax.Array, ...]:
    student = student._replace(temperature=lax.stop_gradient(student.temperature))
    return _divergence(passes, beta, counts, student, lax.stop_gradient(teacher))


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _divergence(
    passes: Passes, beta: float, counts: bool, student: Readout, teacher: _Teacher
) -> tuple[jax.Array, ...]:
    log_sums = _log_sums(passes.forward, student, teacher)
    return _results(_scan_entries(passes.forward, beta, counts, student, teacher, log_sums))


def _results(total: _Entries) -> tuple[jax.Array, ...]:
    """The divergence, and what was counted, if it was."""
    return (total.share,) if total.is_clipped is None else (total.share, total.is_clipped, total.clipped_mass)


def _divergence_forward(passes, beta, counts, student, teacher):
    wanted = wanted_gradients(student)
    student, teacher = jax.tree.map(lambda primal: primal.value, (student, teacher))
    log_sums = _log_sums(passes.forward, student, teacher)
    total = _scan_entries(passes.forward, beta, counts, student, teacher, log_sums)
    return _results(total), (student, teacher, log_sums, total.slope, wanted)


def _divergence_backward(passes, beta, counts, residuals, bars):
    """∂/∂z_v = slope_v − q_v Σ_u slope_u, from ∂ log q_u / ∂z_v = 1[u=v] − q_v; divided by the temperature."""
    del counts  # what is counted has no gradient
    student, teacher, log_sums, slope_BT, wanted = residuals
    bar_BT = jnp.zeros_like(slope_BT) if isinstance(bars[0], SymbolicZero) else bars[0]
    live_BT = bar_BT != 0
    student, teacher_readout = drop_dead(student, live_BT), drop_dead(teacher.readout, live_BT)
    student_sum, teacher_sum, slope = (jnp.where(live_BT, x, 0)[..., None, None] for x in (*log_sums, slope_BT))
    bar = (bar_BT / student.temperature)[..., None, None]

    def cotangent(logits_BTSW, start, width):
        student_logp = logits_BTSW - student_sum
        teacher_logp = chunk_logits(teacher_readout, passes.backward, start, width) - teacher_sum
        entries = _entries(student_logp, teacher_logp, beta, teacher.clip)
        return bar * (entries.slope - jnp.exp(student_logp) * slope)

    return pull_back(student, passes.backward, wanted, cotangent), None


_divergence.defvjp(_divergence_forward, _divergence_backward, symbolic_zeros=True)


def _log_sums(chunks: VocabularyChunks, student: Readout, teacher: _Teacher) -> tuple[jax.Array, jax.Array]:
    return log_sum_exp(student, chunks), log_sum_exp(teacher.readout, chunks)


def _scan_entries(
    chunks: VocabularyChunks, beta: float, counts: bool, student: Readout, teacher: _Teacher, log_sums
) -> _Entries:
    """The sums over the vocabulary of every entry's share and slope, [B, T], and of what is counted."""
    student_sum, teacher_sum = (log_sum_BT[..., None, None] for log_sum_BT in log_sums)

    def add_chunk(total_BTS, start, width):
        student_logp = chunk_logits(student, chunks, start, width) - student_sum
        teacher_logp = chunk_logits(teacher.readout, chunks, start, width) - teacher_sum
        entries_BTSW = _entries(student_logp, teacher_logp, beta, teacher.clip, counts=counts)
        return jax.tree.map(lambda total, entries: total + jnp.sum(entries, axis=-1), total_BTS, entries_BTSW)

    nothing = jnp.zeros((*student.hidden_BTD.shape[:2], chunks.stripes), student.temperature.dtype)
    total_BTS = over_chunks(chunks, add_chunk, _Entries(*[nothing] * (4 if counts else 2)))
    return jax.tree.map(lambda total: jnp.sum(total, axis=-1), total_BTS)


def _entries(student_logp, teacher_logp, beta: float, clip, *, counts: bool = False) -> _Entries:
    """Every entry's term of the divergence, its clip, and a part that sums to nothing.

    The two KLs get ±(q − p) added, 0 in the sum over the vocabulary: a common error of all log q, such as the rounding
    of log Σ e^z, then leaves the sum in second order alone, and where q = p the slope is 0 at every entry.
    """
    p, q, log_ratio = jnp.exp(teacher_logp), jnp.exp(student_logp), student_logp - teacher_logp
    if beta == 0:
        term, slope, shift, shift_slope = -p * log_ratio, -p, q - p, q
    elif beta == 1:
        term, slope, shift, shift_slope = q * log_ratio, q * (log_ratio + 1), p - q, -q
    else:
        term, slope = _jensen_shannon(p, q, log_ratio, beta)
        shift = shift_slope = jnp.zeros((), term.dtype)
    counted = ()
    if clip is not None:
        is_active = term < clip
        slope = jnp.where(is_active, slope, 0)
        term = jnp.minimum(term, clip)
        counted = (jnp.where(is_active, 0, jnp.ones_like(p)), jnp.where(is_active, 0, p)) if counts else ()
    return _Entries(term + shift, slope + shift_slope, *counted)


def _jensen_shannon(p, q, log_ratio, beta: float) -> tuple[jax.Array, jax.Array]:
    """beta p log(p/m) + (1 − beta) q log(q/m), and its derivative (1 − beta) q log(q/m) with respect to log q.

    log m is measured from the larger of log p and log q, so nothing overflows, and where they are equal both results
    are exactly 0. With w the weight of the smaller one: log m = log larger + log(1 + w (smaller/larger − 1)).
    """
    distance = jnp.abs(log_ratio)
    weight = jnp.where(log_ratio > 0, beta, 1 - beta)
    above_larger = jnp.log1p(weight * jnp.expm1(-distance))
    term = -((beta * p + (1 - beta) * q) * above_larger + weight * jnp.minimum(p, q) * distance)
    return term, -(1 - beta) * q * (above_larger + jnp.maximum(-log_ratio, 0))


def top_k_divergence(student_logp_BTK: jax.Array, teacher_logp_BTK: jax.Array, *, beta: float, rest: str) -> jax.Array:
    """Divergence over K tokens of every position, whose log-probabilities over the whole vocabulary are given.

    `rest` says what becomes of the others. With `bucket` their mass is one more entry, as in SDPO (arXiv 2601.20802).
    With `renormalise` both models are restricted to the K tokens, as in EOPD (arXiv 2603.07079).

    The bucket's mass is 1 − Σ_k e^(log p_k), which float32 knows to about 2^-23 and which rounding may bring below 0.
    Under that one mass (the dtype's epsilon) it counts as that mass, without a gradient, for each model alike.

    Args:
        student_logp_BTK: the student's log-probabilities of K different tokens, nats, finite; has the gradient.
        teacher_logp_BTK: the teacher's of the same tokens; a constant.
        beta: as in `token_divergence`; a Python number, static under jit.
        rest: `bucket` or `renormalise`.

    Returns:
        [B, T] in nats, float32 (float64 where an input is). A position with a zero cotangent gets gradient exactly 0,
        whatever it holds, NaN included. Where the models agree, the divergence and its gradient are 0.

    Raises:
        ValueError: naming the argument whose shape, dtype or value does not fit.
    """
    beta = _check_beta(beta)
    check_choice("rest", rest, REST)
    check_shapes(student_logp_BTK=student_logp_BTK, teacher_logp_BTK=teacher_logp_BTK)
    for name, array in (("student_logp_BTK", student_logp_BTK), ("teacher_logp_BTK", teacher_logp_BTK)):
        if not jnp.issubdtype(array.dtype, jnp.floating) or array.shape[-1] == 0:
            raise ValueError(f"{name} must be floating with K >= 1; it is {array.dtype} of shape {array.shape}")
    dtype = np.promote_types(np.promote_types(student_logp_BTK.dtype, teacher_logp_BTK.dtype), np.float32)
    teacher_logp_BTK = lax.stop_gradient(teacher_logp_BTK)
    return _top_k_divergence(beta, rest, student_logp_BTK.astype(dtype), teacher_logp_BTK.astype(dtype))


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _top_k_divergence(beta: float, rest: str, student_logp_BTK, teacher_logp_BTK) -> jax.Array:
    student_logp, teacher_logp = (_with_rest(logp, rest) for logp in (student_logp_BTK, teacher_logp_BTK))
    return jnp.sum(_entries(student_logp, teacher_logp, beta, None).share, axis=-1)


def _top_k_forward(beta, rest, student_logp_BTK, teacher_logp_BTK):
    return _top_k_divergence(beta, rest, student_logp_BTK, teacher_logp_BTK), (student_logp_BTK, teacher_logp_BTK)


def _top_k_backward(beta, rest, residuals, bar_BT):
    # A position without a cotangent may hold NaN: it leaves before any arithmetic, for a certain distribution.
    uniform = -math.log(residuals[0].shape[-1] + 1)
    student_logp_BTK, teacher_logp_BTK = (jnp.where((bar_BT != 0)[..., None], logp, uniform) for logp in residuals)
    student_logp, pull = jax.vjp(partial(_with_rest, rest=rest), student_logp_BTK)
    entries = _entries(student_logp, _with_rest(teacher_logp_BTK, rest), beta, None)
    return (*pull(bar_BT[..., None] * entries.slope), None)


_top_k_divergence.defvjp(_top_k_forward, _top_k_backward)


def _with_rest(logp_BTK, rest: str) -> jax.Array:
    """Log-probabilities that sum to one: [B, T, K+1] with the bucket in the last place, or [B, T, K]."""
    log_mass_BT1 = jax.nn.logsumexp(logp_BTK, axis=-1, keepdims=True)
    if rest == "renormalise":
        return logp_BTK - log_mass_BT1
    most = math.log1p(-jnp.finfo(logp_BTK.dtype).eps)
    log_mass_BT1 = jnp.where(log_mass_BT1 > most, most, log_mass_BT1)
    return jnp.concatenate([logp_BTK, jnp.log(-jnp.expm1(log_mass_BT1))], axis=-1)


def _check_beta(beta: Any) -> float:
    if not isinstance(beta, int | float | np.floating) or isinstance(beta, bool) or not 0 <= beta <= 1:
        raise ValueError(f"beta must be a Python number in [0, 1] (static under jit); got {beta!r}")
    return float(beta)


def _check_pair(student: Readout, teacher: Readout, vocabulary_axis: int) -> None:
    """Check that the two models have the same positions and the same vocabulary."""
    positions, teacher_positions = student.hidden_BTD.shape[:2], teacher.hidden_BTD.shape[:2]
    if positions != teacher_positions:
        raise ValueError(
            f"teacher_hidden_BTD has B and T {teacher_positions} and student_hidden_BTD {positions}; they must agree"
        )
    vocabulary, teacher_vocabulary = student.head.shape[vocabulary_axis], teacher.head.shape[vocabulary_axis]
    if vocabulary != teacher_vocabulary:
        raise ValueError(
            f"teacher_head has {teacher_vocabulary} vocabulary entries (axis {vocabulary_axis}) and student_head has "
            f"{vocabulary}; they must agree"
        )
