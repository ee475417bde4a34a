"""The likeliest tokens of every position, and the log-probabilities of given ones, one vocabulary chunk at a time.

What the top-k methods (SDPO, EOPD) need of the two models: the K tokens are chosen once, by either model, and both are
asked for their log-probabilities. How the vocabulary is cut, and what that holds in memory, is in `vocabulary`.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from jax.typing import ArrayLike

from egrsd_jax.ops.arguments import check_static_int
from egrsd_jax.ops.vocabulary import (
    Passes,
    Readout,
    VocabularyChunks,
    add_to_pool,
    check_token_ids,
    chunk_logits,
    drop_dead,
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
)


def top_tokens(
    hidden_BTD: jax.Array, head_DV: jax.Array, k: int, *, chunk_size: int | None = None, vocabulary_axis: int = 1
) -> jax.Array:
    """The k likeliest tokens of every position, likeliest first, and of equal logits the lower id first.

    Every stripe of the vocabulary keeps its own k likeliest so far, so a sharded vocabulary stays where it is until the
    stripes' [B, T, S, k] are ranked together at the end.

    Args:
        hidden_BTD: final hidden states, floating point.
        head_DV: output head, floating point.
        k: how many, at most V; a Python int, static under jit.
        chunk_size: at most so many vocabulary entries at a time; None chooses from the shapes.
        vocabulary_axis: 0 takes the head as [V, D].

    Returns:
        ids_BTK, int32, without a gradient.

    Raises:
        ValueError: naming the argument whose shape, dtype or value does not fit.
    """
    readout = make_readout(hidden_BTD, head_DV, 1.0, vocabulary_axis)
    k = check_static_int("k", k, 1)
    if k > head_DV.shape[vocabulary_axis]:
        raise ValueError(f"k must be at most the {head_DV.shape[vocabulary_axis]} vocabulary entries; got {k}")
    # The backward pass's wide chunks: every chunk costs a ranking of the best so far, whatever its width.
    chunks = vocabulary_passes(chunk_size, vocabulary_axis, readout).backward
    return _top_tokens(chunks, k, lax.stop_gradient(readout))


# Jitted, so that a call outside of jit compiles once for its shapes and not once a call.
@partial(jax.jit, static_argnums=(0, 1))
def _top_tokens(chunks: VocabularyChunks, k: int, readout: Readout) -> jax.Array:
    def add_chunk(best, start, width):
        logit_BTSK, entry_BTSK = best
        # The best so far come first: they are of lower ids, and of equals the first is taken.
        rivals_BTSN = jnp.concatenate([logit_BTSK, chunk_logits(readout, chunks, start, width)], axis=-1)
        logit_BTSK, rank_BTSK = _top_k(rivals_BTSN, k)
        kept_BTSK = jnp.take_along_axis(entry_BTSK, jnp.minimum(rank_BTSK, k - 1), axis=-1)
        return logit_BTSK, jnp.where(rank_BTSK < k, kept_BTSK, rank_BTSK - k + start)

    shape = (*readout.hidden_BTD.shape[:2], chunks.stripes, k)
    # With k <= V the last ranking has enough real tokens, and none of these stays in it.
    nobody = jnp.full(shape, -jnp.inf, readout.temperature.dtype), jnp.zeros(shape, jnp.int32)
    logit_BTSK, entry_BTSK = over_chunks(chunks, add_chunk, nobody)

    first_S = jnp.arange(chunks.stripes, dtype=jnp.int32) * chunks.stripe_size
    logit_BT1N, id_BT1N = (
        x.reshape(*shape[:2], 1, chunks.stripes * k) for x in (logit_BTSK, entry_BTSK + first_S[None, None, :, None])
    )
    _, rank_BT1K = _top_k(logit_BT1N, k)
    return jnp.take_along_axis(id_BT1N, rank_BT1K, axis=-1)[:, :, 0]


@partial(custom_partitioning, static_argnums=(1,))
def _top_k(logit_BTSN, k: int) -> tuple[jax.Array, jax.Array]:
    """`lax.top_k` of every row on its own device: left alone, XLA (jax 0.10) gathers all rows onto every device."""
    largest_BTSK, rank_BTSK = lax.top_k(logit_BTSN, k)
    return largest_BTSK, rank_BTSK


def _top_k_of_a_part(k, mesh, operands, results):
    del results
    rows = NamedSharding(mesh, P(*operands[0].sharding.spec[:3]))
    return mesh, lambda logit_BTSN: tuple(lax.top_k(logit_BTSN, k)), (rows, rows), (rows,)


_top_k.def_partition(
    partition=_top_k_of_a_part,
    sharding_rule="b t s n -> b t s k, b t s k",
    need_replication_factors=("n", "k"),
)


def token_logps(
    hidden_BTD: jax.Array,
    head_DV: jax.Array,
    ids_BTK: jax.Array,
    *,
    temperature: ArrayLike = 1.0,
    chunk_size: int | None = None,
    vocabulary_axis: int = 1,
) -> jax.Array:
    """Log-probability over the whole vocabulary of K given tokens at every position.

        log p(y_k) = z_(y_k) − log Σ_v e^(z_v)        ∂ log p(y_k) / ∂z_v = 1[v=y_k] − p_v

    Precision, gradients, positions without a cotangent and sharding are as in `token_scores`. In addition to a chunk of
    logits it holds S · K of them per position, S at most 16 stripes: no more than the chunk for K up to 128.

    Args:
        hidden_BTD: final hidden states, floating point.
        head_DV: output head, floating point.
        ids_BTK: token ids; one may occur in a row twice. One outside [0, V) gets NaN.
        temperature: divides the logits; as in `token_scores`.
        chunk_size: at most so many vocabulary entries at a time; None chooses from the shapes.
        vocabulary_axis: 0 takes the head as [V, D].

    Returns:
        logp_BTK in nats, float32 (float64 for float64 inputs), never positive.

    Raises:
        ValueError: naming the argument whose shape, dtype or value does not fit.
    """
    readout = make_readout(hidden_BTD, head_DV, temperature, vocabulary_axis)
    check_token_ids(hidden_BTD, ids_BTK=ids_BTK)
    passes = vocabulary_passes(chunk_size, vocabulary_axis, readout)
    return _token_logps(passes, readout, narrow_token_ids(ids_BTK, passes.forward))


@partial(jax.jit, static_argnums=0)
def _token_logps(passes: Passes, readout: Readout, ids_BTK) -> jax.Array:
    return _logps(passes, readout._replace(temperature=lax.stop_gradient(readout.temperature)), ids_BTK)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _logps(passes: Passes, readout: Readout, ids_BTK) -> jax.Array:
    logp_BTK, _ = _scan_logps(passes.forward, readout, ids_BTK)
    return logp_BTK


def _logps_forward(passes, readout, ids_BTK):
    wanted = wanted_gradients(readout)
    readout, ids_BTK = jax.tree.map(lambda primal: primal.value, (readout, ids_BTK))
    logp_BTK, log_sum_BT = _scan_logps(passes.forward, readout, ids_BTK)
    return logp_BTK, (readout, ids_BTK, log_sum_BT, wanted)


def _logps_backward(passes, residuals, bar_BTK):
    """∂/∂z_v = Σ_k bar_k (1[v=y_k] − p_v), divided by the temperature."""
    readout, ids_BTK, log_sum_BT, wanted = residuals
    live_BT = jnp.any(bar_BTK != 0, axis=-1)
    log_sum = jnp.where(live_BT, log_sum_BT, 0)[..., None, None]
    bar_BTK = bar_BTK / readout.temperature
    bar = jnp.sum(bar_BTK, axis=-1)[..., None, None]

    def cotangent(logits_BTSW, start, width):
        place_BTSK = places_in_chunk(ids_BTK, passes.backward, start, width)
        return _add_at(-bar * jnp.exp(logits_BTSW - log_sum), place_BTSK, bar_BTK[:, :, None])

    return pull_back(drop_dead(readout, live_BT), passes.backward, wanted, cotangent), None


_logps.defvjp(_logps_forward, _logps_backward, symbolic_zeros=True)


def _scan_logps(chunks: VocabularyChunks, readout: Readout, ids_BTK) -> tuple[jax.Array, jax.Array]:
    """The log-probabilities, and the log Σ e^z of every position."""

    def add_chunk(carry, start, width):
        pool_BTS, given_BTSK = carry
        logits_BTSW = chunk_logits(readout, chunks, start, width)
        place_BTSK = places_in_chunk(ids_BTK, chunks, start, width)
        return add_to_pool(pool_BTS, logits_BTSW), given_BTSK + look_up(logits_BTSW, place_BTSK)

    stripes, dtype = (*ids_BTK.shape[:2], chunks.stripes), readout.temperature.dtype
    empty = softmax_pool(stripes, dtype), jnp.zeros((*stripes, ids_BTK.shape[2]), dtype)
    pool_BTS, given_BTSK = over_chunks(chunks, add_chunk, empty)

    pool = pool_together(pool_BTS)
    log_mass = jnp.log(pool.mass)
    in_vocabulary = (ids_BTK >= 0) & (ids_BTK < chunks.stripes * chunks.stripe_size)
    given_BTK = jnp.where(in_vocabulary, jnp.sum(given_BTSK, axis=2), jnp.nan)
    return (given_BTK - pool.peak[..., None]) - log_mass[..., None], pool.peak + log_mass


@partial(jnp.vectorize, signature="(w),(k),(k)->(w)")
def _add_at(row_W, place_K, value_K) -> jax.Array:
    """The row with each value added at its place, also where a place comes twice; one past the end is left out."""
    return row_W.at[place_K].add(value_K, mode="drop")
