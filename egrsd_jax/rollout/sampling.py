"""How one token is sampled from logits: greedy, temperature, top-k, top-p, min-p. Rules are arrays: none recompiles.

B rows, V vocabulary, C candidates, the likeliest tokens.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

CANDIDATES = 64  # likeliest tokens that are ranked; a rule that needs more is applied without a ranking
GROUP = 32  # neighbours in the vocabulary whose largest logits are compared before any token is ranked
BLOCK = 512  # tokens whose probabilities are added up first when the whole vocabulary is sampled from


class SamplingRules(NamedTuple):
    """How each row is sampled, arrays of shape [B]. Rules apply in this order, as in transformers.

    temperature: divides the logits; 0 takes the most likely token.
    top_k: only the k most likely tokens; 0 is no limit.
    top_p: the fewest of these, most likely first, whose probability reaches p; 1 is no limit.
    min_p: of these, only tokens at least min_p times as likely as the most likely one; 0 is no limit.
    """

    temperature: Any
    top_k: Any
    top_p: Any
    min_p: Any


def sample_tokens(keys_B: jax.Array, logit_BV: jax.Array, rules: SamplingRules) -> jax.Array:
    """One token per row, int32 [B]. Each row has its own key and depends on no other row.

    The likeliest 64 tokens are ranked, and where these are all that a row's rules can keep, which they nearly always
    are, the row is sampled from them. For other rows bisection finds which tokens their rules keep. Both are exact, but
    for tokens exactly as likely as the last one that top_k or top_p keeps: the second way keeps them all.
    """
    uniform_B2 = jax.vmap(lambda key: jax.random.uniform(key, (2,)))(keys_B)
    limited_B = (rules.top_k > 0) | (rules.top_p < 1) | (rules.min_p > 0) | (rules.temperature <= 0)
    nothing = jnp.zeros_like(limited_B, jnp.int32), jnp.zeros_like(limited_B)
    token_B, done_B = jax.lax.cond(
        jnp.any(limited_B), lambda: _sample_ranked(uniform_B2[:, 0], logit_BV, rules), lambda: nothing
    )
    done_B &= limited_B
    return jax.lax.cond(
        jnp.all(done_B),
        lambda: token_B,
        lambda: jnp.where(done_B, token_B, _sample_any(uniform_B2, logit_BV, rules, limited_B & ~done_B)),
    )


def _sample_ranked(uniform_B: jax.Array, logit_BV: jax.Array, rules: SamplingRules) -> tuple[jax.Array, jax.Array]:
    """A token among the likeliest ones, and whether these are all that the row's rules keep."""
    V = logit_BV.shape[1]
    C = min(CANDIDATES, V)
    logit_BC, token_BC = _likeliest(logit_BV, C)
    weight_BC = _weights(logit_BC, rules)
    rank_C, by_rank_B = jnp.arange(C)[None, :], rules.top_k > 0
    weight_BC = jnp.where((rank_C < rules.top_k[:, None]) | ~by_rank_B[:, None], weight_BC, 0.0)
    reached_BC = jnp.cumsum(weight_BC, axis=1)
    by_share_B = ~by_rank_B & (rules.top_p < 1)
    total_B = jax.lax.cond(
        jnp.any(by_share_B), lambda: jnp.sum(_weights(logit_BV, rules), axis=1), lambda: reached_BC[:, -1]
    )
    wanted_B = rules.top_p * jnp.where(by_share_B, total_B, reached_BC[:, -1])
    kept_BC = (reached_BC - weight_BC < wanted_B[:, None]) & (weight_BC >= rules.min_p[:, None])
    kept_BC = (kept_BC & (rules.temperature > 0)[:, None]) | (rank_C == 0)  # the most likely token always stays
    complete_B = (rules.top_k <= C) & by_rank_B
    complete_B |= by_share_B & (reached_BC[:, -1] >= wanted_B)
    complete_B |= ~by_rank_B & (weight_BC[:, -1] < rules.min_p)  # what is not ranked is less likely still
    complete_B |= (rules.temperature <= 0) | (C == V)
    index_B = _first_beyond(uniform_B, jnp.where(kept_BC, weight_BC, 0.0))
    return jnp.take_along_axis(token_BC, index_B[:, None], axis=1)[:, 0], complete_B


def _likeliest(logit_BV: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """The `count` largest logits of each row, largest first, and their tokens.

    They are in the `count` groups of neighbours whose own largest are largest, so few logits are ranked.
    """
    B, V = logit_BV.shape
    if count * GROUP >= V:
        logit_BC, token_BC = jax.lax.top_k(logit_BV, count)
        return logit_BC, token_BC
    logit_BNG = jnp.pad(logit_BV, ((0, 0), (0, -V % GROUP)), constant_values=-jnp.inf).reshape(B, -1, GROUP)
    group_BC = jax.lax.top_k(jnp.max(logit_BNG, axis=2), count)[1]
    near_BM = jnp.take_along_axis(logit_BNG, group_BC[:, :, None], axis=1).reshape(B, count * GROUP)
    logit_BC, index_BC = jax.lax.top_k(near_BM, count)
    return logit_BC, jnp.take_along_axis(group_BC, index_BC // GROUP, axis=1) * GROUP + index_BC % GROUP


def _sample_any(uniform_B2: jax.Array, logit_BV: jax.Array, rules: SamplingRules, limited_B: jax.Array) -> jax.Array:
    """A token of the whole vocabulary: first its block, then its position in it."""
    weight_BV = _weights(logit_BV, rules)
    weight_BV = jax.lax.cond(
        jnp.any(limited_B),
        lambda: jnp.where(limited_B[:, None], _limited(logit_BV, weight_BV, rules), weight_BV),
        lambda: weight_BV,
    )
    B, V = weight_BV.shape
    size = min(BLOCK, V)
    weight_BNK = jnp.pad(weight_BV, ((0, 0), (0, -V % size))).reshape(B, -1, size)
    block_B = _first_beyond(uniform_B2[:, 0], jnp.sum(weight_BNK, axis=2))
    inside_BK = jnp.take_along_axis(weight_BNK, block_B[:, None, None], axis=1)[:, 0]
    return block_B * size + _first_beyond(uniform_B2[:, 1], inside_BK)


def _weights(logit_BN: jax.Array, rules: SamplingRules) -> jax.Array:
    """Probabilities but for a factor: 1 for the most likely token of each row."""
    temperature_B = jnp.where(rules.temperature > 0, rules.temperature, 1.0)
    return jnp.exp((logit_BN - jnp.max(logit_BN, axis=1, keepdims=True)) / temperature_B[:, None])


def _first_beyond(uniform_B: jax.Array, weight_BN: jax.Array) -> jax.Array:
    """The first index where the running sum of weights exceeds `uniform` times their total: each index with
    probability proportional to its weight; never one of weight 0."""
    reached_BN = jnp.cumsum(weight_BN, axis=1)
    index_B = jnp.sum(reached_BN <= (uniform_B * reached_BN[:, -1])[:, None], axis=1)
    last_B = weight_BN.shape[1] - 1 - jnp.argmax(weight_BN[:, ::-1] > 0, axis=1)
    return jnp.minimum(index_B, last_B).astype(jnp.int32)


def _limited(logit_BV: jax.Array, weight_BV: jax.Array, rules: SamplingRules) -> jax.Array:
    """`weight_BV` with 0 for every token that a row's rules leave out."""
    order_BV = _ordered(logit_BV)
    limit_B = jnp.where(rules.top_k > 0, jnp.minimum(rules.top_k, logit_BV.shape[1]), logit_BV.shape[1])
    least_B = _bisect(order_BV, jnp.ones_like(weight_BV), limit_B.astype(jnp.float32))
    weight_BV = jnp.where(order_BV >= least_B[:, None], weight_BV, 0.0)
    wanted_B = rules.top_p * jnp.sum(weight_BV, axis=1)
    least_B = jnp.where(rules.top_p < 1, _bisect(order_BV, weight_BV, wanted_B), jnp.iinfo(jnp.int32).min)
    return jnp.where((order_BV >= least_B[:, None]) & (weight_BV >= rules.min_p[:, None]), weight_BV, 0.0)


def _bisect(order_BV: jax.Array, amount_BV: jax.Array, wanted_B: jax.Array) -> jax.Array:
    """The largest integer that tokens of together at least the wanted amount reach, bit by bit from the highest."""

    def closer(number: jax.Array, least_B: jax.Array) -> jax.Array:
        higher_B = least_B + (jnp.int32(1) << (31 - number))  # the first step wraps round from the least to 0
        amount_B = jnp.sum(jnp.where(order_BV >= higher_B[:, None], amount_BV, 0.0), axis=1)
        return jnp.where(amount_B >= wanted_B, higher_B, least_B)

    return jax.lax.fori_loop(0, 32, closer, jnp.full(len(wanted_B), jnp.iinfo(jnp.int32).min, jnp.int32))


def _ordered(x: jax.Array) -> jax.Array:
    """int32 numbers in the order of float32 ones: their bits, those behind a minus sign turned round."""
    bits = jax.lax.bitcast_convert_type(x, jnp.int32)
    return jnp.where(bits < 0, bits ^ jnp.int32(0x7FFFFFFF), bits)
