"""Log-probability and entropy of every token from hidden states and the output head, a chunk of the vocabulary at a time.

Teacher and student pass through here between the model's forward and the objective. A dense float32 logits tensor of
32 × 1,024 tokens over 151,936 entries is 20 GB; this file never holds more than a chunk of it, in either direction.

Shapes: B sequences, T positions, D hidden size, V vocabulary; S stripes of the vocabulary, W entries of each in a chunk.
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

# A chunk of 2^21 float32 logits is 8 MB: what its passes (maximum, exponential, sums) read and write stays in a CPU's
# cache. The floor keeps the matrix products wide where there are many tokens.
_LOGITS_A_CHUNK = 2**23
_NARROWEST_CHUNK = 2048

# The vocabulary is cut into this many contiguous stripes (fewer where it does not divide), and a chunk takes a few
# entries of each. A vocabulary sharded over 2, 4, 8 or 16 devices is cut between stripes, so every device scans its own.
_MOST_STRIPES = 16


class TokenScores(NamedTuple):
    """What one forward says of each target token: log-probability and the entropy where it stood, both in nats."""

    logp_BT: jax.Array
    entropy_BT: jax.Array


class VocabularyChunks(NamedTuple):
    """How V = stripes · stripe_size entries are visited: `width` entries of every stripe at a time."""

    stripes: int
    stripe_size: int
    width: int


class _Pool(NamedTuple):
    """Softmax statistics of a set of logits z: max z, Σ e^(z−max), Σ (z−max) e^(z−max).

    Two pools over disjoint sets make the pool of their union, so the order of the chunks does not matter. Measuring
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
    temperature: jax.Array | float = 1.0,
    chunk_size: int | None = None,
) -> TokenScores:
    """Log-probability of each target and entropy under p = softmax(hidden · head / temperature), over all V entries.

        log p(y) = z_y − log Σ_v e^(z_v)        ∂ log p(y) / ∂z_v = 1[v=y] − p_v
        H = −Σ_v p_v log p_v                    ∂H / ∂z_v = −p_v (log p_v + H)

    Matrix products take the inputs as they are (bf16 stays bf16) and accumulate in float32; everything between them is
    float32. Gradients reach `hidden_BTD` and `head_DV`, each in its own dtype. The one that is not differentiated (a
    frozen head) costs nothing: it is neither computed nor stored. A position with zero cotangents contributes
    exactly nothing, whatever its hidden state holds, NaN included, and no position reaches another one's result.

    Sharding: batch and vocabulary may be sharded (automatic axes). A vocabulary over 2, 4, 8 or 16 devices is never
    gathered: each device scans its own part, and pays one reduction of B·T statistics forward and, backward, one of
    the B·T·D hidden gradient a chunk. Over another number of devices the result is the same, at the price of a gather.

    Args:
      hidden_BTD: final hidden states, floating point.
      head_DV: output head, floating point.
      targets_BT: token ids. One outside [0, V) gets log p = NaN, and the entropy that its position has.
      temperature: divides the logits; a positive scalar, which may be traced. No gradient flows to it.
      chunk_size: at most so many vocabulary entries at a time; None chooses from the shapes.

    Returns:
      TokenScores of two [B, T] arrays in nats, float32 (float64 for float64 inputs). The entropy is never negative and
      log p never positive.

    Raises:
      ValueError: naming the argument whose shape, dtype or value does not fit.
    """
    _check_arrays(hidden_BTD, head_DV, targets_BT)
    _check_temperature(temperature)
    batch, length, _ = hidden_BTD.shape
    chunks = vocabulary_chunks(batch * length, head_DV.shape[1], chunk_size)
    accumulator = np.promote_types(_operand_dtype(hidden_BTD, head_DV), np.float32)
    targets_BT = targets_BT.astype(jnp.int32)
    return _token_scores(hidden_BTD, head_DV, targets_BT, jnp.asarray(temperature, accumulator), chunks)


def vocabulary_chunks(tokens: int, vocab_size: int, chunk_size: int | None) -> VocabularyChunks:
    """Cut the vocabulary into chunks of at most `chunk_size` entries, or of a size that suits this many tokens."""
    if chunk_size is None:
        chunk_size = max(_LOGITS_A_CHUNK // max(tokens, 1), _NARROWEST_CHUNK)
    elif isinstance(chunk_size, bool) or not isinstance(chunk_size, int | np.integer) or chunk_size < 1:
        raise ValueError(f"chunk_size must be a positive integer or None, got {chunk_size!r}")
    most_stripes = min(_MOST_STRIPES, 2 ** (int(chunk_size).bit_length() - 1))
    stripes = math.gcd(vocab_size, most_stripes)  # most_stripes is a power of two, so the largest that divides V
    stripe_size = vocab_size // stripes
    return VocabularyChunks(stripes, stripe_size, min(int(chunk_size) // stripes, stripe_size))


@partial(jax.jit, static_argnums=4)
def _token_scores(hidden_BTD, head_DV, targets_BT, temperature, chunks: VocabularyChunks) -> TokenScores:
    return _scores(chunks, hidden_BTD, head_DV, targets_BT, lax.stop_gradient(temperature))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _scores(chunks, hidden_BTD, head_DV, targets_BT, temperature) -> TokenScores:
    scores, _ = _scan_scores(chunks, hidden_BTD, head_DV, targets_BT, temperature)
    return scores


def _scan_scores(chunks, hidden_BTD, head_DV, targets_BT, temperature) -> tuple[TokenScores, jax.Array]:
    """The scores, and log Σ e^z of every position, from which the backward pass finds every p_v again."""

    def add_chunk(carry, start, width):
        pool, target_BTS = carry
        logits = _chunk_logits(hidden_BTD, _head_chunk(head_DV, chunks, start, width), temperature)
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
    entropy_BT = log_mass - pool.lean / pool.mass
    return TokenScores((target_logit - pool.peak) - log_mass, entropy_BT), pool.peak + log_mass


def _pool(pools: _Pool) -> _Pool:
    """Pool the pools along the last axis into one."""
    peak = jnp.max(pools.peak, axis=-1)
    fall = pools.peak - peak[..., None]
    scale = jnp.exp(fall)
    return _Pool(
        peak=peak,
        mass=jnp.sum(pools.mass * scale, axis=-1),
        # A dot product: XLA on CPU takes six times as long over the same multiplication and sum.
        lean=jnp.vecdot(pools.lean + pools.mass * fall, scale, precision=lax.Precision.HIGHEST),
    )


def _scores_forward(chunks, hidden_BTD, head_DV, targets_BT, temperature):
    arguments = (hidden_BTD.value, head_DV.value, targets_BT.value, temperature.value)
    scores, log_sum_BT = _scan_scores(chunks, *arguments)
    # Whether a gradient is wanted is known while tracing; residuals carry it as the presence of an empty tuple.
    wanted = tuple(() if argument.perturbed else None for argument in (hidden_BTD, head_DV))
    return scores, (arguments, log_sum_BT, scores.entropy_BT, wanted)


def _scores_backward(chunks, residuals, cotangents):
    (hidden_BTD, head_DV, targets_BT, temperature), log_sum_BT, entropy_BT, wanted = residuals
    wants_hidden, wants_head = (want is not None for want in wanted)
    logp_bar, entropy_bar = (None if isinstance(bar, SymbolicZero) else bar / temperature for bar in cotangents)
    # A position without cotangents may hold NaN, and 0 · NaN is NaN: it leaves as zeros before any product.
    live = jnp.zeros(targets_BT.shape, bool)
    for bar in (logp_bar, entropy_bar):
        live = live if bar is None else live | (bar != 0)
    hidden_BTD = jnp.where(live[..., None], hidden_BTD, 0)
    log_sum_BT, entropy_BT = (jnp.where(live, x, 0) for x in (log_sum_BT, entropy_BT))
    operand = _operand_dtype(hidden_BTD, head_DV)
    hidden_DBT = jnp.moveaxis(hidden_BTD, 2, 0)

    def add_chunk(gradients, start, width):
        hidden_bar, head_bar = gradients
        head_DC = _head_chunk(head_DV, chunks, start, width)
        logits = _chunk_logits(hidden_BTD, head_DC, temperature)
        is_target = _is_target(targets_BT, chunks, start, width)
        logits_bar = _logit_cotangent(logits, is_target, log_sum_BT, entropy_BT, logp_bar, entropy_bar).astype(operand)
        if wants_hidden:
            hidden_bar += _product("btc,dc->btd", logits_bar, head_DC)
        if wants_head:
            part_DC = _product("dbt,btc->dc", hidden_DBT, logits_bar).astype(head_DV.dtype)
            part_DSW = part_DC.reshape(-1, chunks.stripes, width)
            head_bar = lax.dynamic_update_slice_in_dim(head_bar, part_DSW, start, axis=2)
        return hidden_bar, head_bar

    hidden_bar = jnp.zeros(hidden_BTD.shape, temperature.dtype) if wants_hidden else None
    head_bar = jnp.zeros(_striped_shape(head_DV, chunks), head_DV.dtype) if wants_head else None
    hidden_bar, head_bar = _over_chunks(chunks, add_chunk, (hidden_bar, head_bar))
    return (
        hidden_bar.astype(hidden_BTD.dtype) if wants_hidden else None,
        head_bar.reshape(head_DV.shape) if wants_head else None,
        None,
        None,
    )


def _logit_cotangent(logits, is_target, log_sum_BT, entropy_BT, logp_bar, entropy_bar) -> jax.Array:
    """1[v=y] · logp_bar − p_v (logp_bar + (log p_v + H) entropy_bar); a cotangent that is None is zero."""
    logp = logits - log_sum_BT[..., None]
    weight = jnp.zeros((), logits.dtype)
    if entropy_bar is not None:
        weight = (logp + entropy_BT[..., None]) * entropy_bar[..., None]
    if logp_bar is None:
        return -jnp.exp(logp) * weight
    logp_bar = logp_bar[..., None]
    return jnp.where(is_target, logp_bar, 0) - jnp.exp(logp) * (logp_bar + weight)


_scores.defvjp(_scores_forward, _scores_backward, symbolic_zeros=True)


def _over_chunks(chunks: VocabularyChunks, step: Callable[[Any, Any, int], Any], carry: Any) -> Any:
    """Fold `step(carry, start, width)` over every stripe's entries; the first chunk takes what does not divide."""
    rest, first = divmod(chunks.stripe_size, chunks.width)
    if first:
        carry = step(carry, 0, first)
    return lax.fori_loop(0, rest, lambda i, carry: step(carry, first + i * chunks.width, chunks.width), carry)


def _striped_shape(head_DV, chunks: VocabularyChunks) -> tuple[int, int, int]:
    return head_DV.shape[0], chunks.stripes, chunks.stripe_size


def _head_chunk(head_DV, chunks: VocabularyChunks, start, width: int) -> jax.Array:
    """Columns start..start+width of every stripe, [D, C] with C = S · W."""
    # XLA on CPU slices bf16 as float32 and would hoist that cast, of the whole head, out of the loop. The barrier ties
    # the head to this turn of it.
    head_DV, start = lax.optimization_barrier((head_DV, start))
    striped_DSK = head_DV.reshape(_striped_shape(head_DV, chunks))
    return lax.dynamic_slice_in_dim(striped_DSK, start, width, axis=2).reshape(head_DV.shape[0], -1)


def _logit_at_target(logits_BTSW, targets_BT, chunks: VocabularyChunks, start) -> jax.Array:
    """The target's logit in the stripe that holds it, 0 in the others and where this chunk lacks it, [B, T, S]."""
    stripe_BT, entry_BT = jnp.divmod(targets_BT, chunks.stripe_size)
    place_BT = entry_BT - start
    width = logits_BTSW.shape[-1]
    here_BT = (place_BT >= 0) & (place_BT < width)
    here_BTS = here_BT[..., None] & (stripe_BT[..., None] == jnp.arange(chunks.stripes, dtype=jnp.int32)[None, None])
    place_BT11 = jnp.where(here_BT, place_BT, 0)[..., None, None]
    return jnp.where(here_BTS, jnp.take_along_axis(logits_BTSW, place_BT11, axis=-1)[..., 0], 0)


def _is_target(targets_BT, chunks: VocabularyChunks, start, width: int) -> jax.Array:
    """Whether a chunk's entry is the position's target, [B, T, C]."""
    first_S = jnp.arange(chunks.stripes, dtype=jnp.int32) * chunks.stripe_size
    entry_SW = first_S[:, None] + (start + jnp.arange(width, dtype=jnp.int32))[None, :]
    return targets_BT[..., None] == entry_SW.reshape(1, 1, -1)


def _chunk_logits(hidden_BTD, head_DC, temperature) -> jax.Array:
    return _product("btd,dc->btc", hidden_BTD, head_DC) / temperature


def _product(subscripts: str, left, right) -> jax.Array:
    """A matrix product that takes its operands as they are and accumulates in float32 (float64 in float64)."""
    operand = _operand_dtype(left, right)
    accumulator = np.promote_types(operand, np.float32)
    return jnp.einsum(subscripts, left.astype(operand), right.astype(operand), preferred_element_type=accumulator)


def _operand_dtype(left, right) -> np.dtype:
    return np.promote_types(left.dtype, right.dtype)


def _check_arrays(hidden_BTD, head_DV, targets_BT) -> None:
    if hidden_BTD.ndim != 3 or not jnp.issubdtype(hidden_BTD.dtype, jnp.floating):
        raise ValueError(f"hidden_BTD must be floating point of shape [B, T, D], got {_described(hidden_BTD)}")
    if head_DV.ndim != 2 or head_DV.shape[1] == 0 or not jnp.issubdtype(head_DV.dtype, jnp.floating):
        raise ValueError(f"head_DV must be floating point of shape [D, V], V > 0, got {_described(head_DV)}")
    if head_DV.shape[0] != hidden_BTD.shape[2]:
        raise ValueError(
            f"head_DV must have the hidden size D of hidden_BTD first, got {_described(head_DV)} "
            f"for hidden_BTD {_described(hidden_BTD)}"
        )
    if targets_BT.shape != hidden_BTD.shape[:2] or not jnp.issubdtype(targets_BT.dtype, jnp.integer):
        raise ValueError(
            f"targets_BT must be integers of shape [B, T] = {list(hidden_BTD.shape[:2])}, got {_described(targets_BT)}"
        )


def _check_temperature(temperature) -> None:
    if jnp.ndim(temperature) != 0:
        raise ValueError(f"temperature must be a scalar, got shape {list(jnp.shape(temperature))}")
    if not isinstance(temperature, jax.core.Tracer) and not 0 < float(temperature) < math.inf:
        raise ValueError(f"temperature must be positive and finite, got {float(temperature)}")


def _described(array) -> str:
    return f"{array.dtype}{list(array.shape)}"
