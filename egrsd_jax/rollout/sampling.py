"""How one token is drawn from logits: greedy, temperature, top-k, top-p, min-p. Rules are arrays: none recompiles."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


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


def candidate_count(vocab_size: int, *, top_k: int, top_p: float, min_p: float) -> int:
    """How many of the most likely tokens such rules can reach; 0 where they need no ranking at all."""
    if top_k > 0:
        return min(top_k, vocab_size)
    return vocab_size if top_p < 1 or min_p > 0 else 0


def sample_tokens(keys_B: jax.Array, logit_BV: jax.Array, rules: SamplingRules, *, candidates: int) -> jax.Array:
    """One token a row, int32 [B]; `candidates` from `candidate_count` is static. Each row has a key of its own."""
    draw = _draw_ranked if candidates else _draw_any
    return jax.vmap(lambda key, logit, rule: draw(key, logit, rule, candidates))(keys_B, logit_BV, rules)


def _draw_any(key: jax.Array, logit_V: jax.Array, rule: SamplingRules, _: int) -> jax.Array:
    drawn = jax.random.categorical(key, logit_V / _divisor(rule.temperature))
    return jnp.where(rule.temperature > 0, drawn, jnp.argmax(logit_V)).astype(jnp.int32)


def _draw_ranked(key: jax.Array, logit_V: jax.Array, rule: SamplingRules, candidates: int) -> jax.Array:
    logit_C, token_C = jax.lax.top_k(logit_V, candidates)  # most likely first
    logit_C = logit_C / _divisor(rule.temperature)
    rank_C = jnp.arange(candidates)
    kept_C = (rank_C < rule.top_k) | (rule.top_k == 0)
    probability_C = jax.nn.softmax(jnp.where(kept_C, logit_C, -jnp.inf))
    before_C = jnp.cumsum(probability_C) - probability_C
    kept_C &= before_C < rule.top_p
    kept_C &= probability_C >= rule.min_p * probability_C[0]
    kept_C |= rank_C == 0  # the most likely token always stays
    drawn = jax.random.categorical(key, jnp.where(kept_C, logit_C, -jnp.inf))
    return token_C[jnp.where(rule.temperature > 0, drawn, 0)].astype(jnp.int32)


def _divisor(temperature: jax.Array) -> jax.Array:
    return jnp.where(temperature > 0, temperature, jnp.ones_like(temperature))
