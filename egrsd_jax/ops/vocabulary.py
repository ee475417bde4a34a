"""The vocabulary in chunks: the logits of a few thousand entries at a time, their softmax, and the way back from them.

`scores`, `divergences` and `top_tokens` are built on this file. A dense float32 logits tensor of 32 × 1,024 tokens over
151,936 entries is 20 GB; nothing here ever holds more than a chunk of it, in either direction.

Shapes: B sequences, T positions, D hidden size, V vocabulary, K tokens asked for at a position; S stripes of the
vocabulary, W entries of each in a chunk, C = S · W entries in a chunk.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from egrsd_jax.ops.arguments import check_choice, check_number, check_shapes, check_static_int
from egrsd_jax.ops.products import product

# What a chunk may hold where the caller does not say: so many logits (tokens × C), and so many elements of the head
# (D × C), which are the more where there are fewer tokens than hidden units. Forward, 2^23 float32 are 32 MB, about a
# large last-level cache. Backward takes fewer and wider chunks: XLA on CPU (jax 0.10) passes over the whole of a bf16
# head's gradient each time that a chunk is written into it. The floor keeps the products wide where there are many
# tokens.
_FORWARD_ELEMENTS = 2**23
_BACKWARD_ELEMENTS = 2**25
_NARROWEST_CHUNK = 2048

# The vocabulary is cut into this many contiguous stripes (fewer where it does not divide), and a chunk takes a few
# entries of each. A vocabulary sharded over 2, 4, 8 or 16 devices is cut between stripes: every device scans its own.
_MOST_STRIPES = 16

# Whether hidden states and head are to be differentiated. This is known while tracing, and residuals, which are arrays,
# carry it as a size, 1 or 0. A structure would not do: JAX (0.10) keeps one for all derivatives of a jitted function,
# and reads the residuals of an earlier one by that of the latest. Gradients then come out as zeros.
Wanted = tuple[jax.Array, ...]


class Readout(NamedTuple):
    """Where one model's logits come from: z = hidden_BTD · head / temperature. The head is [D, V], or [V, D]."""

    hidden_BTD: Any
    head: Any
    temperature: Any

    @property
    def operand_dtype(self) -> np.dtype:
        """What the matrix products take: the wider of hidden states' and head's."""
        return np.promote_types(self.hidden_BTD.dtype, self.head.dtype)


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


class Passes(NamedTuple):
    """The chunks of the forward pass and those of the backward pass."""

    forward: VocabularyChunks
    backward: VocabularyChunks


class Pool(NamedTuple):
    """Softmax statistics of a set of logits z: max z, Σ e^(z−max) and, unless None, Σ (z−max) e^(z−max).

    Pools of disjoint sets make the pool of their union, so chunks and stripes may be pooled in any order. Measuring
    from the maximum keeps mass ≥ 1 and lean ≤ 0 in floating point too: H = log mass − lean/mass is never negative, and
    no large terms cancel in it.
    """

    peak: Any
    mass: Any
    lean: Any


def make_readout(
    hidden_BTD: jax.Array, head: jax.Array, temperature: ArrayLike, vocabulary_axis: int, *, model: str = ""
) -> Readout:
    """Check one model's arguments and put them together; the temperature takes the dtype that results have.

    Raises:
        ValueError: naming the argument, with the prefix `model`, whose shape, dtype or value does not fit.
    """
    check_choice("vocabulary_axis", vocabulary_axis, (0, 1))
    hidden_name = f"{model}hidden_BTD"
    head_name = f"{model}head_DV" if vocabulary_axis else f"{model}head_VD"
    check_shapes(**{hidden_name: hidden_BTD, head_name: head})
    for name, array in ((hidden_name, hidden_BTD), (head_name, head)):
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise ValueError(f"{name} must be floating; its dtype is {array.dtype}")
    if head.shape[vocabulary_axis] == 0:
        raise ValueError(f"{head_name} must have at least one vocabulary entry; its shape is {head.shape}")
    check_number("temperature", temperature, lambda t: 0 < t < math.inf, "a positive finite number")
    readout = Readout(hidden_BTD, head, temperature)
    return readout._replace(temperature=jnp.asarray(temperature, np.promote_types(readout.operand_dtype, np.float32)))


def check_token_ids(hidden_BTD: jax.Array, **ids: jax.Array) -> None:
    """Check that token ids are integers and share their B and T with the hidden states; else a ValueError."""
    check_shapes(hidden_BTD=hidden_BTD, **ids)
    for name, array in ids.items():
        if not jnp.issubdtype(array.dtype, jnp.integer):
            raise ValueError(f"{name} must be integer; its dtype is {array.dtype}")


def narrow_token_ids(ids: jax.Array, chunks: VocabularyChunks) -> jax.Array:
    """Token ids as int32, those below 0 and from V on as -1 and V: an int64 of 2^32 must not become token 0."""
    return jnp.clip(ids.astype(int), -1, chunks.stripes * chunks.stripe_size).astype(jnp.int32)


def vocabulary_chunks(
    tokens: int,
    hidden_size: int,
    vocab_size: int,
    chunk_size: int | None,
    *,
    elements: int = _FORWARD_ELEMENTS,
    axis: int = 1,
) -> VocabularyChunks:
    """Cut the vocabulary into chunks of at most `chunk_size` entries; None: of about so many `elements` at most.

    They are counted in a chunk of logits for all tokens and in a chunk of the head, whichever is the larger.
    """
    if chunk_size is None:
        chunk_size = max(elements // max(tokens, hidden_size, 1), _NARROWEST_CHUNK)
    chunk_size = check_static_int("chunk_size", chunk_size, 1)
    most_stripes = min(_MOST_STRIPES, 2 ** (chunk_size.bit_length() - 1))
    stripes = math.gcd(vocab_size, most_stripes)  # of a power of two: the largest power of two that divides V
    stripe_size = vocab_size // stripes
    return VocabularyChunks(axis, stripes, stripe_size, min(chunk_size // stripes, stripe_size))


def vocabulary_passes(chunk_size: int | None, axis: int, *readouts: Readout) -> Passes:
    """The chunks to visit these readouts in, which hold their logits and heads of a chunk at the same time."""
    tokens = sum(math.prod(readout.hidden_BTD.shape[:2]) for readout in readouts)
    hidden_size = sum(readout.hidden_BTD.shape[2] for readout in readouts)
    vocab_size = readouts[0].head.shape[axis]
    return Passes(
        *(
            vocabulary_chunks(tokens, hidden_size, vocab_size, chunk_size, elements=elements, axis=axis)
            for elements in (_FORWARD_ELEMENTS, _BACKWARD_ELEMENTS)
        )
    )


def over_chunks(chunks: VocabularyChunks, step: Callable[[Any, Any, int], Any], carry: Any) -> Any:
    """Fold `step(carry, start, width)` over every stripe's entries; the first chunk takes what does not divide."""
    rest, first = divmod(chunks.stripe_size, chunks.width)
    if first:
        carry = step(carry, 0, first)
    return lax.fori_loop(0, rest, lambda i, carry: step(carry, first + i * chunks.width, chunks.width), carry)


def chunk_logits(readout: Readout, chunks: VocabularyChunks, start, width: int) -> jax.Array:
    """Logits of entries start..start+width of every stripe, [B, T, S, W], in the temperature's dtype."""
    return logits_from(readout, head_chunk(readout.head, chunks, start, width), chunks)


def head_chunk(head, chunks: VocabularyChunks, start, width: int) -> jax.Array:
    """Entries start..start+width of every stripe: [D, C], or [C, D] where the vocabulary comes first."""
    # XLA on CPU (jax 0.10) slices bf16 as float32, and would hoist that cast, of the whole head, out of the loop. The
    # barrier ties the head to this turn of it.
    head, start = lax.optimization_barrier((head, start))
    striped = lax.dynamic_slice_in_dim(head.reshape(_striped_shape(head, chunks)), start, width, axis=chunks.axis + 1)
    entries, hidden_size = chunks.stripes * width, head.shape[1 - chunks.axis]
    return striped.reshape((hidden_size, entries) if chunks.axis else (entries, hidden_size))


def logits_from(readout: Readout, head_chunk, chunks: VocabularyChunks) -> jax.Array:
    """Logits of a `head_chunk`, [B, T, S, W], in the temperature's dtype."""
    logits_BTC = _product(f"btd,{chunks.subscripts}->btc", readout.hidden_BTD, head_chunk)
    logits_BTC = logits_BTC.astype(readout.temperature.dtype) / readout.temperature
    # Not -1, here and elsewhere: of no tokens at all it says nothing.
    return logits_BTC.reshape(*logits_BTC.shape[:2], chunks.stripes, logits_BTC.shape[2] // chunks.stripes)


def weigh_entries(weight_BTSW, readout: Readout, head_chunk, chunks: VocabularyChunks) -> jax.Array:
    """Σ over a chunk's entries of weight · head entry, [B, T, D]; weights are rounded to what the products take."""
    weight_BTC = _join_stripes(weight_BTSW).astype(readout.operand_dtype)
    return _product(f"btc,{chunks.subscripts}->btd", weight_BTC, head_chunk).astype(readout.temperature.dtype)


def softmax_pool(shape: tuple[int, ...], dtype, *, lean: bool = False) -> Pool:
    """Pools of no logits at all."""
    nothing = jnp.zeros(shape, dtype)
    # Lower than any logit, yet finite: −inf would make 0 · −inf of the empty pool's lean.
    return Pool(jnp.full_like(nothing, jnp.finfo(dtype).min / 2), nothing, nothing if lean else None)


def add_to_pool(pool_BTS: Pool, logits_BTSW: jax.Array) -> Pool:
    """The pools with a chunk's logits joined to them."""
    # One logit is a pool: its own maximum, mass 1.
    chunk_BTS = pool_together(Pool(logits_BTSW, mass=1.0, lean=None if pool_BTS.lean is None else 0.0))
    return pool_together(jax.tree.map(lambda *two: jnp.stack(two, axis=-1), pool_BTS, chunk_BTS))


def pool_together(pools: Pool) -> Pool:
    """Pool the pools along the last axis into one."""
    peak = jnp.max(pools.peak, axis=-1)
    fall = pools.peak - peak[..., None]
    scale = jnp.exp(fall)
    lean = pools.lean
    if lean is not None:
        # A dot product: as a product and its sum, XLA on CPU (jax 0.10) takes several times as long.
        lean = jnp.vecdot(lean + pools.mass * fall, scale, precision=lax.Precision.HIGHEST)
    return Pool(peak, jnp.sum(pools.mass * scale, axis=-1), lean)


def log_sum_exp(readout: Readout, chunks: VocabularyChunks) -> jax.Array:
    """log Σ_v e^(z_v) of every position, [B, T]."""

    def add_chunk(pool_BTS, start, width):
        return add_to_pool(pool_BTS, chunk_logits(readout, chunks, start, width))

    stripes = (*readout.hidden_BTD.shape[:2], chunks.stripes)
    pool = pool_together(over_chunks(chunks, add_chunk, softmax_pool(stripes, readout.temperature.dtype)))
    return pool.peak + jnp.log(pool.mass)


def places_in_chunk(ids_BTK, chunks: VocabularyChunks, start, width: int) -> jax.Array:
    """The index of each id in each stripe of a chunk, [B, T, S, K]; `width`, past the end, in a stripe without it."""
    stripe_BTK, entry_BTK = jnp.divmod(ids_BTK, chunks.stripe_size)
    place_BTK = entry_BTK - start
    here_BTK = (place_BTK >= 0) & (place_BTK < width)
    stripes_S = jnp.arange(chunks.stripes, dtype=jnp.int32)
    here_BTSK = here_BTK[:, :, None] & (stripe_BTK[:, :, None] == stripes_S[None, None, :, None])
    return jnp.where(here_BTSK, place_BTK[:, :, None], width)


def look_up(logits_BTSW, place_BTSK) -> jax.Array:
    """The logits at the places of `places_in_chunk`, 0 at those past the end, [B, T, S, K].

    A look-up within each stripe, so that no stripe's logits leave the device that holds it.
    """
    return jnp.take_along_axis(logits_BTSW, place_BTSK, axis=-1, mode="fill", fill_value=0)


def wanted_gradients(readout: Readout) -> Wanted:
    """Which of hidden states and head a custom VJP with symbolic zeros is asked to differentiate."""
    return tuple(jnp.zeros(int(argument.perturbed), bool) for argument in (readout.hidden_BTD, readout.head))


def drop_dead(readout: Readout, live_BT: jax.Array) -> Readout:
    """The readout with zeros for the hidden states of positions without a cotangent.

    They may hold NaN, and 0 · NaN is NaN: they leave before any product.
    """
    return readout._replace(hidden_BTD=jnp.where(live_BT[..., None], readout.hidden_BTD, 0))


def pull_back(
    readout: Readout,
    chunks: VocabularyChunks,
    wanted: Wanted,
    cotangent: Callable[[jax.Array, Any, int], jax.Array],
) -> Readout:
    """Gradients of hidden states and head, each in its own dtype, from those of the logits, made chunk by chunk.

    Args:
        readout: where the logits come from.
        chunks: how to visit them.
        wanted: `wanted_gradients`; one that is not wanted is neither computed nor stored, and None in the result.
        cotangent: `(logits_BTSW, start, width)` -> ∂/∂(hidden · head) of that chunk, so divided by the temperature.
            It is rounded to the operands' dtype for the products.
    """
    wants_hidden, wants_head = (want.size > 0 for want in wanted)
    hidden_BTD, head, temperature = readout
    hidden_ND = _join_tokens(hidden_BTD)

    def add_chunk(gradients, start, width):
        hidden_bar, head_bar = gradients
        entries = head_chunk(head, chunks, start, width)
        logits_bar = cotangent(logits_from(readout, entries, chunks), start, width).astype(readout.operand_dtype)
        if wants_hidden:
            hidden_bar += weigh_entries(logits_bar, readout, entries, chunks)
        if wants_head:
            # Of tokens in one row: XLA on CPU (jax 0.10) turns a copy of the chunk around where B and T are apart.
            pair = {"d": hidden_ND, "c": _join_tokens(_join_stripes(logits_bar))}
            first, second = chunks.subscripts
            part = _product(f"n{first},n{second}->{first}{second}", pair[first], pair[second]).astype(head.dtype)
            part = part.reshape(_striped_shape(part, chunks))
            head_bar = lax.dynamic_update_slice_in_dim(head_bar, part, start, axis=chunks.axis + 1)
        return hidden_bar, head_bar

    hidden_bar = jnp.zeros(hidden_BTD.shape, temperature.dtype) if wants_hidden else None
    head_bar = jnp.zeros(_striped_shape(head, chunks), head.dtype) if wants_head else None
    hidden_bar, head_bar = over_chunks(chunks, add_chunk, (hidden_bar, head_bar))
    return Readout(
        None if hidden_bar is None else hidden_bar.astype(hidden_BTD.dtype),
        None if head_bar is None else head_bar.reshape(head.shape),
        None,
    )


def _join_stripes(x_BTSW) -> jax.Array:
    """A chunk's entries in one row, [B, T, C]."""
    B, T, S, W = x_BTSW.shape
    return x_BTSW.reshape(B, T, S * W)


def _join_tokens(x_BTX) -> jax.Array:
    """All positions of all sequences one after the other, [B · T, X]."""
    B, T, X = x_BTX.shape
    return x_BTX.reshape(B * T, X)


def _striped_shape(head, chunks: VocabularyChunks) -> tuple[int, ...]:
    """The shape of a head, or of a chunk of one, with its vocabulary axis split into stripes."""
    before, after = head.shape[: chunks.axis], head.shape[chunks.axis + 1 :]
    return (*before, chunks.stripes, head.shape[chunks.axis] // chunks.stripes, *after)


def _product(subscripts: str, left, right) -> jax.Array:
    """A matrix product that takes its operands as they are and accumulates in float32 (float64 in float64)."""
    operand = np.promote_types(left.dtype, right.dtype)
    accumulator = np.promote_types(operand, np.float32)
    return product(subscripts, left.astype(operand), right.astype(operand), dtype=accumulator)
