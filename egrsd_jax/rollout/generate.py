"""Prompts to completions in one compiled program: prefill, then decode until every row has stopped.

B rows, P prompt positions, T completion positions, V vocabulary.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from egrsd_jax.model.cache import Cache
from egrsd_jax.model.config import ModelConfig
from egrsd_jax.model.lora import Lora
from egrsd_jax.model.qwen3 import decode, output_head, prefill
from egrsd_jax.rollout.sampling import SamplingRules, sample_tokens


class Drawn(NamedTuple):
    """Sampled tokens and the policy's own log-probabilities of them (of the whole distribution, before any rule)."""

    tokens_BT: jax.Array
    logp_BT: jax.Array
    length_B: jax.Array  # tokens, the stop token included
    stopped_B: jax.Array  # False where the length limit ended it


class _Loop(NamedTuple):
    step: jax.Array
    hidden_BD: jax.Array
    cache: Cache
    drawn: Drawn


@partial(jax.jit, static_argnames=("config", "max_new_tokens"))
def generate(
    params: dict[str, Any],
    lora: Lora | None,
    prompts_BP: jax.Array,
    prompt_length_B: jax.Array,
    key_data_BW: jax.Array,
    rules: SamplingRules,
    stop_ids: jax.Array,
    score_temperature: jax.Array,
    *,
    config: ModelConfig,
    max_new_tokens: int,
) -> Drawn:
    """Completions of at most `max_new_tokens` tokens for prompts padded on the right.

    `key_data_BW` is the raw data of one random key a row. Token t is drawn with `fold_in(key, t)`, so that a row
    depends on nothing but its own prompt, key and rules. A row of length 0 is not a prompt and stops at once.
    Log-probabilities are of logits / score_temperature.
    """
    B, P = prompts_BP.shape
    mask_BP = jnp.arange(P)[None, :] < prompt_length_B[:, None]
    hidden_BPD, cache = prefill(params, config, prompts_BP, mask_BP, slots=P + max_new_tokens, lora=lora)
    last = jnp.maximum(prompt_length_B - 1, 0)
    keys_B = jax.random.wrap_key_data(key_data_BW)
    head_DV = output_head(params, config)

    def unfinished(loop: _Loop) -> jax.Array:
        return (loop.step < max_new_tokens) & ~jnp.all(loop.drawn.stopped_B)

    def advance(loop: _Loop) -> _Loop:
        logit_BV = jnp.einsum(
            "bd,dv->bv", loop.hidden_BD, head_DV.astype(config.dtype), preferred_element_type=jnp.float32
        )
        keys_now = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys_B, loop.step)
        token_B = sample_tokens(keys_now, logit_BV, rules)
        logp_BV = jax.nn.log_softmax(logit_BV / score_temperature)
        logp_B = jnp.take_along_axis(logp_BV, token_B[:, None], axis=1)[:, 0]
        drawn = _record(loop.drawn, loop.step, token_B, logp_B, stop_ids)
        hidden_BD, cache = decode(
            params, config, token_B, prompt_length_B + loop.step, loop.cache, P + loop.step, lora=lora
        )
        return _Loop(loop.step + 1, hidden_BD, cache, drawn)

    start = _Loop(
        step=jnp.int32(0),
        hidden_BD=jnp.take_along_axis(hidden_BPD, last[:, None, None], axis=1)[:, 0],
        cache=cache,
        drawn=Drawn(
            tokens_BT=jnp.zeros((B, max_new_tokens), jnp.int32),
            logp_BT=jnp.zeros((B, max_new_tokens), jnp.float32),
            length_B=jnp.zeros(B, jnp.int32),
            stopped_B=prompt_length_B == 0,
        ),
    )
    return jax.lax.while_loop(unfinished, advance, start).drawn


def _record(drawn: Drawn, step: jax.Array, token_B: jax.Array, logp_B: jax.Array, stop_ids: jax.Array) -> Drawn:
    """`drawn` with one more token in every row that has not stopped."""
    running_B = ~drawn.stopped_B
    write = partial(jax.lax.dynamic_update_index_in_dim, index=step, axis=1)
    return Drawn(
        tokens_BT=write(drawn.tokens_BT, jnp.where(running_B, token_B, 0)),
        logp_BT=write(drawn.logp_BT, jnp.where(running_B, logp_B, 0.0)),
        length_B=drawn.length_B + running_B.astype(jnp.int32),
        stopped_B=drawn.stopped_B | jnp.any(token_B[:, None] == stop_ids[None, :], axis=1),
    )
