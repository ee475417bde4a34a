"""Log-probability and entropy of every token from hidden states and the output head, one vocabulary chunk at a time.

Teacher and student pass through here between the model's forward and the objective. A dense float32 logits tensor of
32 × 1,024 tokens over 151,936 entries is 20 GB; this file never holds more than a chunk of it, in either direction.

Shapes: B sequences, T positions, D hidden size, V vocabulary; S stripes of the vocabulary, W entries of each in a
chunk, C = S · W entries in a chunk.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.typing import ArrayLike

from egrsd_jax.ops.arguments import check_choice, check_number, check_shapes, check_static_int

# Logits a chunk may hold where the caller does not say. Forward, 2^23 float32 are 32 MB, about a large last-level
# cache. Backward takes fewer and wider chunks: XLA on CPU (jax 0.10) passes over the whole of a bf16 head's gradient
# each time that a chunk is written into it. The floor keeps the products wide where there are many tokens.
_FORWARD_LOGITS = 2**23
_BACKWARD_LOGITS = 2**25
_NARROWEST_CHUNK = 2048

# The vocabulary is cut into this many contiguous stripes (fewer where it does not divide), and a chunk takes a few
# entries of each. A vocabulary sharded over 2, 4, 8 or 16 devices is cut between stripes: every device scans its own.
_MOST_STRIPES = 16


class TokenScores(NamedTuple):
    """What one forward says of each target token: log-probability and the entropy where it stood, both in nats."""

    logp_BT: jax.Array
    entropy_BT: jax.Array


class VocabularyChunks(NamedTuple):
    """How V = stripes · stripe_size entries along the head's `axis` are visited: `width` of every stripe at a time."""

    axis: int
    stripes: int
    stripe_size: int
    width: int

    @property
    def subscripts(self) -> str:
        """The head's axes for einsum: d hidden size, c vocabulary entries."""
        return "dc" if self.axis else "cd"


class _Pool(NamedTuple):
    """Softmax statistics of a set of logits z: max z, Σ e^(z−max), Σ (z−max) e^(z−max).

    Pools of disjoint sets make the pool of their union, so chunks and stripes may be pooled in any order. Measuring
    from the maximum keeps mass ≥ 1 and lean ≤ 0 in floating point too: H = log mass − lean/mass is never negative, and
    no large terms cancel in it.
    """

    peak: jax.Array
    mass: jax.Array | float
    lean: jax.Array | float


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
    One that is not asked for (a frozen head) is neither computed nor stored. A position with zero cotangents adds
    exactly nothing, whatever its hidden state holds, NaN included, and no position reaches another's scores.

    Sharding (automatic axes): a vocabulary over 2, 4, 8 or 16 devices (and chunks of at least as many entries) stays
    where it is. Each device scans its own part, at the price of two [B, T] reductions forward, and of a reduction of
    the [B, T, D] hidden gradient for every chunk backward. Over another number of devices, or with D sharded, the
    scores are the same and each chunk of the head is gathered in its turn. The head's gradient lies as the caller
    constrains it: constrain it to the head's own sharding.

    Args:
        hidden_BTD: final hidden states, floating point.
        head_DV: output head, floating point.
        targets_BT: token ids. One outside [0, V) gets log p = NaN, and the entropy that its position has.
        temperature: divides the logits; a positive number, or a scalar array, traced or not, whose value is not
            checked. No gradient flows to it.
        chunk_size: at most so many vocabulary entries at a time; None chooses from the shapes.
        vocabulary_axis: 0 takes the head as [V, D], the way embeddings and Hugging Face heads lie in memory. As its
            transpose [D, V] it is right too, but XLA on CPU then makes a copy of it.

    Returns:
        TokenScores of two [B, T] arrays in nats, float32 (float64 for float64 inputs). The entropy is never negative
        and log p never positive, by construction and not by clamping.

    Raises:
        ValueError: naming the argument whose shape, dtype or value does not fit.
    """
    _check_arrays(hidden_BTD, head_DV, targets_BT, vocabulary_axis)
    check_number("temperature", temperature, lambda t: 0 < t < math.inf, "a positive finite number")
    tokens = math.prod(targets_BT.shape)
    forward, backward = (
        vocabulary_chunks(tokens, head_DV.shape[vocabulary_axis], chunk_size, logits=logits, axis=vocabulary_axis)
        for logits in (_FORWARD_LOGITS, _BACKWARD_LOGITS)
    )
    accumulator = np.promote_types(_operand_dtype(hidden_BTD, head_DV), np.float32)
    targets_BT = targets_BT.astype(jnp.int32)
    return _token_scores(forward, backward, hidden_BTD, head_DV, targets_BT, jnp.asarray(temperature, accumulator))


def vocabulary_chunks(
    tokens: int, vocab_size: int, chunk_size: int | None, *, logits: int = _FORWARD_LOGITS, axis: int = 1
) -> VocabularyChunks:
    """Cut the vocabulary into chunks of at most `chunk_size` entries; None: of about so many logits for all tokens."""
    if chunk_size is None:
        chunk_size = max(logits // max(tokens, 1), _NARROWEST_CHUNK)
    chunk_size = check_static_int("chunk_size", chunk_size, 1)
    most_stripes = min(_MOST_STRIPES, 2 ** (chunk_size.bit_length() - 1))
    stripes = math.gcd(vocab_size, most_stripes)  # of a power of two: the largest power of two that divides V
    stripe_size = vocab_size // stripes
    return VocabularyChunks(axis, stripes, stripe_size, min(chunk_size // stripes, stripe_size))


# Jitted, so that a call outside of jit compiles once for its shapes and not once a call.
@partial(jax.jit, static_argnums=(0, 1))
def _token_scores(forward, backward, hidden_BTD, head, targets_BT, temperature) -> TokenScores:
    return _scores(forward, backward, hidden_BTD, head, targets_BT, lax.stop_gradient(temperature))


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _scores(forward, backward, hidden_BTD, head, targets_BT, temperature) -> TokenScores:
    del backward
    scores, _ = _scan_scores(forward, hidden_BTD, head, targets_BT, temperature)
    return scores


def _scores_forward(forward, backward, hidden_BTD, head, targets_BT, temperature):
    del backward
    arguments = (hidden_BTD.value, head.value, targets_BT.value, temperature.value)
    scores, log_sum_BT = _scan_scores(forward, *arguments)
    # Which gradients are wanted is known while tracing; the residuals carry it as the presence of an empty tuple.
    wanted = tuple(() if argument.perturbed else None for argument in (hidden_BTD, head))
    return scores, (arguments, log_sum_BT, scores.entropy_BT, wanted)


def _scores_backward(forward, chunks, residuals, cotangents):
    del forward
    (hidden_BTD, head, targets_BT, temperature), log_sum_BT, entropy_BT, wanted = residuals
    wants_hidden, wants_head = (want is not None for want in wanted)
    logp_bar, entropy_bar = (None if isinstance(bar, SymbolicZero) else bar / temperature for bar in cotangents)
    # A position without cotangents may hold NaN, and 0 · NaN is NaN: it leaves as zeros before any product.
    live_BT = jnp.zeros(targets_BT.shape, bool)
    for bar in (logp_bar, entropy_bar):
        live_BT = live_BT if bar is None else live_BT | (bar != 0)
    hidden_BTD = jnp.where(live_BT[..., None], hidden_BTD, 0)
    log_sum_BT, entropy_BT = (jnp.where(live_BT, x, 0) for x in (log_sum_BT, entropy_BT))
    hidden_DBT = jnp.moveaxis(hidden_BTD, 2, 0)  # turned once, and not by every chunk's product

    def add_chunk(gradients, start, width):
        hidden_bar, head_bar = gradients
        head_chunk = _head_chunk(head, chunks, start, width)
        logits = _chunk_logits(hidden_BTD, head_chunk, chunks, temperature)
        is_target = _is_target(targets_BT, chunks, start, width)
        logits_bar = _logit_cotangent(logits, is_target, log_sum_BT, entropy_BT, logp_bar, entropy_bar)
        logits_bar = logits_bar.astype(_operand_dtype(hidden_BTD, head))
        if wants_hidden:
            hidden_bar += _product(f"btc,{chunks.subscripts}->btd", logits_bar, head_chunk)
        if wants_head:
            part = _product(f"dbt,btc->{chunks.subscripts}", hidden_DBT, logits_bar).astype(head.dtype)
            part = part.reshape(_striped_shape(part, chunks))
            head_bar = lax.dynamic_update_slice_in_dim(head_bar, part, start, axis=chunks.axis + 1)
        return hidden_bar, head_bar

    hidden_bar = jnp.zeros(hidden_BTD.shape, temperature.dtype) if wants_hidden else None
    head_bar = jnp.zeros(_striped_shape(head, chunks), head.dtype) if wants_head else None
    hidden_bar, head_bar = _over_chunks(chunks, add_chunk, (hidden_bar, head_bar))
    return (
        None if hidden_bar is None else hidden_bar.astype(hidden_BTD.dtype),
        None if head_bar is None else head_bar.reshape(head.shape),
        None,
        None,
    )


_scores.defvjp(_scores_forward, _scores_backward, symbolic_zeros=True)


def _scan_scores(chunks, hidden_BTD, head, targets_BT, temperature) -> tuple[TokenScores, jax.Array]:
    """The scores, and the log Σ e^z of every position, from which the backward pass finds every p_v again."""

    def add_chunk(carry, start, width):
        pool, target_BTS = carry
        logits = _chunk_logits(hidden_BTD, _head_chunk(head, chunks, start, width), chunks, temperature)
        logits_BTSW = logits.reshape(*targets_BT.shape, chunks.stripes, width)
        chunk = _pool(_Pool(peak=logits_BTSW, mass=1.0, lean=0.0))  # one logit is a pool: its own maximum, mass 1
        pool = _pool(jax.tree.map(lambda *two: jnp.stack(two, axis=-1), pool, chunk))
        return pool, target_BTS + _logit_at_target(logits_BTSW, targets_BT, chunks, start)

    nothing = jnp.zeros((*targets_BT.shape, chunks.stripes), temperature.dtype)
    # Lower than any logit, yet finite: −inf would make 0 · −inf of the empty pool's lean.
    lowest = jnp.full_like(nothing, jnp.finfo(temperature.dtype).min / 2)
    pool, target_BTS = _over_chunks(chunks, add_chunk, (_Pool(lowest, nothing, nothing), nothing))

    pool = _pool(pool)
    log_mass = jnp.log(pool.mass)
    in_vocabulary = (targets_BT >= 0) & (targets_BT < chunks.stripes * chunks.stripe_size)
    target_logit = jnp.where(in_vocabulary, jnp.sum(target_BTS, axis=-1), jnp.nan)
    scores = TokenScores((target_logit - pool.peak) - log_mass, log_mass - pool.lean / pool.mass)
    return scores, pool.peak + log_mass


def _pool(pools: _Pool) -> _Pool:
    """Pool the pools along the last axis into one."""
    peak = jnp.max(pools.peak, axis=-1)
    fall = pools.peak - peak[..., None]
    scale = jnp.exp(fall)
    return _Pool(
        peak=peak,
        mass=jnp.sum(pools.mass * scale, axis=-1),
        # A dot product: as a product and its sum, XLA on CPU (jax 0.10) takes several times as long.
        lean=jnp.vecdot(pools.lean + pools.mass * fall, scale, precision=lax.Precision.HIGHEST),
    )


def _logit_at_target(logits_BTSW, targets_BT, chunks: VocabularyChunks, start) -> jax.Array:
    """The target's logit in the stripe that holds it, 0 in the others and where this chunk lacks it, [B, T, S]."""
    stripe_BT, entry_BT = jnp.divmod(targets_BT, chunks.stripe_size)
    place_BT = entry_BT - start
    here_BT = (place_BT >= 0) & (place_BT < logits_BTSW.shape[-1])
    here_BTS = here_BT[..., None] & (stripe_BT[..., None] == jnp.arange(chunks.stripes, dtype=jnp.int32)[None, None])
    place_BT11 = jnp.where(here_BT, place_BT, 0)[..., None, None]
    # A look-up within each stripe, so that no stripe's logits leave the device that holds it.
    return jnp.where(here_BTS, jnp.take_along_axis(logits_BTSW, place_BT11, axis=-1)[..., 0], 0)


def _logit_cotangent(logits, is_target, log_sum_BT, entropy_BT, logp_bar, entropy_bar) -> jax.Array:
    """1[v=y] · logp_bar − p_v (logp_bar + (log p_v + H) entropy_bar); a cotangent that is None is zero."""
    logp = logits - log_sum_BT[..., None]
    weight = jnp.zeros((), logits.dtype)
    if entropy_bar is not None:
        weight = (logp + entropy_BT[..., None]) * entropy_bar[..., None]
    if logp_bar is None:
        return -jnp.exp(logp) * weight
    return jnp.where(is_target, logp_bar[..., None], 0) - jnp.exp(logp) * (logp_bar[..., None] + weight)


def _over_chunks(chunks: VocabularyChunks, step: Callable[[Any, Any, int], Any], carry: Any) -> Any:
    """Fold `step(carry, start, width)` over every stripe's entries; the first chunk takes what does not divide."""
    rest, first = divmod(chunks.stripe_size, chunks.width)
    if first:
        carry = step(carry, 0, first)
    return lax.fori_loop(0, rest, lambda i, carry: step(carry, first + i * chunks.width, chunks.width), carry)


def _head_chunk(head, chunks: VocabularyChunks, start, width: int) -> jax.Array:
    """Entries start..start+width of every stripe: [D, C], or [C, D] where the vocabulary comes first."""
    # XLA on CPU (jax 0.10) slices bf16 as float32, and would hoist that cast, of the whole head, out of the loop. The
    # barrier ties the head to this turn of it.
    head, start = lax.optimization_barrier((head, start))
    striped = lax.dynamic_slice_in_dim(head.reshape(_striped_shape(head, chunks)), start, width, axis=chunks.axis + 1)
    hidden_size = head.shape[1 - chunks.axis]
    return striped.reshape((hidden_size, -1) if chunks.axis else (-1, hidden_size))


def _striped_shape(head, chunks: VocabularyChunks) -> tuple[int, ...]:
    """The shape of a head, or of a chunk of one, with its vocabulary axis split into stripes."""
    before, after = head.shape[: chunks.axis], head.shape[chunks.axis + 1 :]
    return (*before, chunks.stripes, head.shape[chunks.axis] // chunks.stripes, *after)


def _is_target(targets_BT, chunks: VocabularyChunks, start, width: int) -> jax.Array:
    """Whether a chunk's entry is the position's target, [B, T, C]."""
    first_S = jnp.arange(chunks.stripes, dtype=jnp.int32) * chunks.stripe_size
    entry_SW = first_S[:, None] + (start + jnp.arange(width, dtype=jnp.int32))[None, :]
    return targets_BT[..., None] == entry_SW.reshape(1, 1, -1)


def _chunk_logits(hidden_BTD, head_chunk, chunks: VocabularyChunks, temperature) -> jax.Array:
    return _product(f"btd,{chunks.subscripts}->btc", hidden_BTD, head_chunk) / temperature


def _product(subscripts: str, left, right) -> jax.Array:
    """A matrix product that takes its operands as they are and accumulates in float32 (float64 in float64)."""
    operand = _operand_dtype(left, right)
    accumulator = np.promote_types(operand, np.float32)
    return jnp.einsum(subscripts, left.astype(operand), right.astype(operand), preferred_element_type=accumulator)


def _operand_dtype(left, right) -> np.dtype:
    return np.promote_types(left.dtype, right.dtype)


def _check_arrays(hidden_BTD, head, targets_BT, vocabulary_axis: int) -> None:
    check_choice("vocabulary_axis", vocabulary_axis, (0, 1))
    head_name = "head_DV" if vocabulary_axis else "head_VD"
    check_shapes(hidden_BTD=hidden_BTD, **{head_name: head}, targets_BT=targets_BT)
    for name, array, kind in (
        ("hidden_BTD", hidden_BTD, jnp.floating),
        (head_name, head, jnp.floating),
        ("targets_BT", targets_BT, jnp.integer),
    ):
        if not jnp.issubdtype(array.dtype, kind):
            raise ValueError(f"{name} must be {kind.__name__}; its dtype is {array.dtype}")
    if head.shape[vocabulary_axis] == 0:
        raise ValueError(f"{head_name} must have at least one vocabulary entry; its shape is {head.shape}")
