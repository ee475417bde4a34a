"""Log-probability and entropy of every token from hidden states and the output head, one vocabulary chunk at a time.

Teacher and student pass through here between the model's forward and the objective. How the vocabulary is cut, and
what that holds in memory, is in `vocabulary`.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.typing import ArrayLike

from egrsd_jax.ops.vocabulary import (
    Passes,
    Readout,
    VocabularyChunks,
    add_to_pool,
    check_token_ids,
    drop_dead,
    head_chunk,
    logits_from,
    look_up,
    make_readout,
    narrow_token_ids,
    over_chunks,
    places_in_chunk,
    pool_together,
    pull_back,
    softmax_pool,
    vocabulary_passes,
    wanted_gradients,
    weigh_entries,
)


class TokenScores(NamedTuple):
    """What one forward pass gives for each target token: its log-probability and the entropy at its position, both in
    nats."""

    logp_BT: jax.Array
    entropy_BT: jax.Array


def token_scores(
    hidden_BTD: jax.Array,
    head_DV: jax.Array,
    targets_BT: jax.Array,
    *,
    temperature: ArrayLike = 1.0,
    chunk_size: int | None = None,
    vocabulary_axis: int = 1,
) -> TokenScores:
    """Log-probability of each target and entropy under p = softmax(hidden · head / temperature), over all V entries.

        log p(y) = z_y − log Σ_v e^(z_v)        ∂ log p(y) / ∂z_v = 1[v=y] − p_v
        H = −Σ_v p_v log p_v                    ∂H / ∂z_v = −p_v (log p_v + H)

    Matrix products take the inputs as they are (bf16 stays bf16, and the backward pass rounds ∂z to it) and accumulate
    in float32; everything between them is float32. Gradients reach `hidden_BTD` and `head_DV`, each in its own dtype.
    One that is not asked for (a frozen head) is neither computed nor stored, and where then log p alone is
    differentiated, its gradient is gathered in the forward pass and no logits are made a second time. A position with
    zero cotangents adds exactly nothing, whatever its hidden state holds, NaN included, and no position reaches
    another's scores.

    Sharding (automatic axes): a vocabulary over 2, 4, 8 or 16 devices (and chunks of at least as many entries) stays
    where it is. Each device scans its own part, at the price of two [B, T] reductions forward, and, where hidden states
    are differentiated, of a reduction of the [B, T, D] gradient for every chunk. Over another number of devices, or
    with D sharded, the scores are the same and each chunk of the head is gathered in its turn. The head's gradient is
    sharded as the caller constrains it: constrain it to the head's own sharding.

    Args:
        hidden_BTD: final hidden states, floating point.
        head_DV: output head, floating point.
        targets_BT: token ids. One outside [0, V) gets log p = NaN, and the entropy that its position has.
        temperature: divides the logits; a positive number, or a scalar array, traced or not, whose value is not
            checked. No gradient flows to it.
        chunk_size: at most so many vocabulary entries at a time; None chooses from the shapes.
        vocabulary_axis: 0 takes the head as [V, D], the way embeddings and Hugging Face heads are stored. As its
            transpose [D, V] it is correct too, but XLA on CPU then makes a copy of it.

    Returns:
        TokenScores of two [B, T] arrays in nats, float32 (float64 for float64 inputs). The entropy is never negative
        and log p never positive, by construction and not by clamping.

    Raises:
        ValueError: naming the argument whose shape, dtype or value does not fit.
    """
    readout = make_readout(hidden_BTD, head_DV, temperature, vocabulary_axis)
    check_token_ids(hidden_BTD, targets_BT=targets_BT)
    passes = vocabulary_passes(chunk_size, vocabulary_axis, readout)
    return _token_scores(passes, readout, narrow_token_ids(targets_BT, passes.forward))


# Jitted, so that a call outside of jit compiles once for its shapes and not once a call.
@partial(jax.jit, static_argnums=0)
def _token_scores(passes: Passes, readout: Readout, targets_BT) -> TokenScores:
    return _scores(passes, readout._replace(temperature=lax.stop_gradient(readout.temperature)), targets_BT)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _scores(passes: Passes, readout: Readout, targets_BT) -> TokenScores:
    return _scan_scores(passes.forward, readout, targets_BT).scores


def _scores_forward(passes, readout, targets_BT):
    wants_hidden, wants_head = wanted = wanted_gradients(readout)
    readout, targets_BT = jax.tree.map(lambda primal: primal.value, (readout, targets_BT))
    hidden_alone = wants_hidden.size > wants_head.size
    scan = _scan_scores(passes.forward, readout, targets_BT, with_others=hidden_alone)
    return scan.scores, (readout, targets_BT, scan, wanted)


def _scores_backward(passes, residuals, cotangents):
    readout, targets_BT, scan, wanted = residuals
    logp_bar, entropy_bar = (None if isinstance(bar, SymbolicZero) else bar / readout.temperature for bar in cotangents)
    live_BT = jnp.zeros(targets_BT.shape, bool)
    for bar in (logp_bar, entropy_bar):
        live_BT = live_BT if bar is None else live_BT | (bar != 0)
    if scan.others_BTD.size and logp_bar is not None and entropy_bar is None:
        pull_BTD = _target_less_mean(passes.forward, readout.head, targets_BT, scan.scores.logp_BT, scan.others_BTD)
        hidden_bar = logp_bar[..., None] * pull_BTD
        return Readout(jnp.where(live_BT[..., None], hidden_bar, 0).astype(readout.hidden_BTD.dtype), None, None), None
    log_sum_BT, entropy_BT = (jnp.where(live_BT, x, 0) for x in (scan.log_sum_BT, scan.scores.entropy_BT))

    def cotangent(logits_BTSW, start, width):
        is_target = _is_target(targets_BT, passes.backward, start, width)
        return _logit_cotangent(logits_BTSW, is_target, log_sum_BT, entropy_BT, logp_bar, entropy_bar)

    return pull_back(drop_dead(readout, live_BT), passes.backward, wanted, cotangent), None


_scores.defvjp(_scores_forward, _scores_backward, symbolic_zeros=True)


class _Scan(NamedTuple):
    """What one pass over the vocabulary finds: the scores, and what the backward pass needs of it.

    log Σ_v e^(z_v), from which every p_v is found again; and, where it was asked for, Σ p_v head_v over all entries but
    the target, from which the gradient of log p is found without any p_v. Elsewhere that is an array of size 0, since
    residuals have one structure, as `Wanted` says.
    """

    scores: TokenScores
    log_sum_BT: jax.Array
    others_BTD: jax.Array


def _scan_scores(chunks: VocabularyChunks, readout: Readout, targets_BT, *, with_others: bool = False) -> _Scan:
    def add_chunk(carry, start, width):
        pool_BTS, target_BTS, others = carry
        entries = head_chunk(readout.head, chunks, start, width)
        logits_BTSW = logits_from(readout, entries, chunks)
        place_BTS1 = places_in_chunk(targets_BT[..., None], chunks, start, width)
        target_BTS += look_up(logits_BTSW, place_BTS1)[..., 0]
        joined_BTS = add_to_pool(pool_BTS, logits_BTSW)
        if others is not None:
            others = add_others(others, joined_BTS, logits_BTSW, entries, start, width)
        return joined_BTS, target_BTS, others

    def add_others(others, pool_BTS, logits_BTSW, entries, start, width):
        """Measured from the highest logit so far, as the pools are."""
        before_BT, others_BTD = others
        peak_BT = jnp.max(pool_BTS.peak, axis=-1)
        is_target = _is_target(targets_BT, chunks, start, width)
        mass_BTSW = jnp.where(is_target, 0, jnp.exp(logits_BTSW - peak_BT[..., None, None]))
        part_BTD = weigh_entries(mass_BTSW, readout, entries, chunks)
        return peak_BT, others_BTD * jnp.exp(before_BT - peak_BT)[..., None] + part_BTD

    stripes, dtype = (*targets_BT.shape, chunks.stripes), readout.temperature.dtype
    pools = softmax_pool(stripes, dtype, lean=True)
    no_others = (jnp.max(pools.peak, axis=-1), jnp.zeros(readout.hidden_BTD.shape, dtype)) if with_others else None
    pool_BTS, target_BTS, others = over_chunks(chunks, add_chunk, (pools, jnp.zeros(stripes, dtype), no_others))

    pool = pool_together(pool_BTS)
    log_mass = jnp.log(pool.mass)
    in_vocabulary = (targets_BT >= 0) & (targets_BT < chunks.stripes * chunks.stripe_size)
    target_logit = jnp.where(in_vocabulary, jnp.sum(target_BTS, axis=-1), jnp.nan)
    scores = TokenScores((target_logit - pool.peak) - log_mass, log_mass - pool.lean / pool.mass)
    others_BTD = jnp.zeros(0, dtype) if others is None else others[1] / pool.mass[..., None]
    return _Scan(scores, pool.peak + log_mass, others_BTD)


def _target_less_mean(chunks: VocabularyChunks, head, targets_BT, logp_BT, others_BTD) -> jax.Array:
    """head_y − Σ_v p_v head_v as (1 − p_y) head_y − Σ_{v≠y} p_v head_v, [B, T, D].

    The target stays out of the sum, whose weights are rounded for the product: where it is nearly certain, head_y less
    p_y head_y would be that rounding and little else.
    """
    target_BTD = jnp.take(head, targets_BT, axis=chunks.axis, mode="clip").astype(logp_BT.dtype)
    if chunks.axis:
        target_BTD = jnp.moveaxis(target_BTD, 0, 2)
    rest_BT = jnp.where(jnp.isnan(logp_BT), 0, -jnp.expm1(logp_BT))  # NaN: the target is none of the vocabulary
    return rest_BT[..., None] * target_BTD - others_BTD


def _logit_cotangent(logits_BTSW, is_target, log_sum_BT, entropy_BT, logp_bar, entropy_bar) -> jax.Array:
    """1[v=y] · logp_bar − p_v (logp_bar + (log p_v + H) entropy_bar); a cotangent that is None is zero."""
    logp = logits_BTSW - log_sum_BT[..., None, None]
    weight = jnp.zeros((), logp.dtype)
    if entropy_bar is not None:
        weight = (logp + entropy_BT[..., None, None]) * entropy_bar[..., None, None]
    if logp_bar is None:
        return -jnp.exp(logp) * weight
    logp_bar = logp_bar[..., None, None]
    return jnp.where(is_target, logp_bar, 0) - jnp.exp(logp) * (logp_bar + weight)


def _is_target(targets_BT, chunks: VocabularyChunks, start, width: int) -> jax.Array:
    """Whether a chunk's entry is the position's target, [B, T, S, W]."""
    first_S = jnp.arange(chunks.stripes, dtype=jnp.int32) * chunks.stripe_size
    entry_SW = first_S[:, None] + (start + jnp.arange(width, dtype=jnp.int32))[None, :]
    return targets_BT[..., None, None] == entry_SW[None, None]
