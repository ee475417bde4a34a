"""Qwen3 in Flax NNX. Modules define the mathematics; parameters live outside them, in a plain nested dict.

The names in that dict are those of the Hugging Face checkpoint, and weights lie as [out, in] as they do there. Layers
are stacked along a leading axis and scanned, so that compile time does not grow with depth.

Shapes: B rows, S positions, D hidden size, H query heads, G key-value heads, K head_dim, L layers, V vocabulary.
"""

from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from egrsd_jax.model.cache import Cache, cache_from_prefill, write_slot
from egrsd_jax.model.config import ModelConfig
from egrsd_jax.model.lora import Lora
from egrsd_jax.ops.attention import attention, cached_attention

Params = dict[str, Any]


class Projection(nnx.Module):
    """y = W x, plus scale · B A x where an adapter is given."""

    def __init__(self, out_size: int, in_size: int, rngs: nnx.Rngs, std: float):
        self.weight = nnx.Param(nnx.initializers.normal(std)(rngs.params(), (out_size, in_size), jnp.float32))

    def __call__(self, x: jax.Array, adapter: dict[str, jax.Array] | None, scale: float) -> jax.Array:
        """x [..., in] -> [..., out]."""
        y = _times(x, self.weight[...])
        if adapter is None:
            return y
        return y + jnp.asarray(scale, x.dtype) * _times(_times(x, adapter["a"]), adapter["b"])


class RMSNorm(nnx.Module):
    """Root mean square norm in float32, cast back, then times the weight: the order in which Qwen3 was trained."""

    def __init__(self, size: int, eps: float):
        self.weight = nnx.Param(jnp.ones((size,), jnp.float32))
        self.eps = eps

    def __call__(self, x: jax.Array) -> jax.Array:
        """x [..., size] -> the same shape and dtype."""
        wide = x.astype(jnp.float32)
        inverse = jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + self.eps)
        weight = self.weight[...].astype(x.dtype)
        return (wide * inverse).astype(x.dtype) * jnp.expand_dims(weight, range(x.ndim - 1))


class Attention(nnx.Module):
    """Grouped-query attention with a norm on each head's query and key before the rotary embedding."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs, std: float = 0.02):
        D, K = config.hidden_size, config.head_dim
        self.q_proj = Projection(config.num_heads * K, D, rngs, std)
        self.k_proj = Projection(config.num_kv_heads * K, D, rngs, std)
        self.v_proj = Projection(config.num_kv_heads * K, D, rngs, std)
        self.o_proj = Projection(D, config.num_heads * K, rngs, std)
        self.q_norm = RMSNorm(K, config.rms_norm_eps)
        self.k_norm = RMSNorm(K, config.rms_norm_eps)
        self.head_dim = K

    def heads(self, x: jax.Array, rotation: tuple[jax.Array, jax.Array], adapters: dict[str, Any], scale: float):
        """Rotated queries [..., H, K], rotated keys and values [..., G, K] of x [..., D]."""

        def split(projection: Projection, name: str) -> jax.Array:
            y = projection(x, adapters.get(name), scale)
            return y.reshape(*y.shape[:-1], -1, self.head_dim)

        query = rotate(self.q_norm(split(self.q_proj, "q_proj")), rotation)
        key = rotate(self.k_norm(split(self.k_proj, "k_proj")), rotation)
        return query, key, split(self.v_proj, "v_proj")

    def output(self, y: jax.Array, adapters: dict[str, Any], scale: float) -> jax.Array:
        """Heads [..., H, K] joined and projected back to [..., D]."""
        return self.o_proj(y.reshape(*y.shape[:-2], -1), adapters.get("o_proj"), scale)


class Mlp(nnx.Module):
    """SwiGLU."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs, std: float = 0.02):
        D, F = config.hidden_size, config.intermediate_size
        self.gate_proj = Projection(F, D, rngs, std)
        self.up_proj = Projection(F, D, rngs, std)
        self.down_proj = Projection(D, F, rngs, std)

    def __call__(self, x: jax.Array, adapters: dict[str, Any], scale: float) -> jax.Array:
        """x [..., D] -> [..., D]."""
        gate = self.gate_proj(x, adapters.get("gate_proj"), scale)
        up = self.up_proj(x, adapters.get("up_proj"), scale)
        return self.down_proj(jax.nn.silu(gate) * up, adapters.get("down_proj"), scale)


class Layer(nnx.Module):
    """One pre-norm decoder layer, for a whole sequence or for one token against its cache."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs, std: float = 0.02):
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config, rngs, std)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = Mlp(config, rngs, std)

    def sequence(self, x_BSD, rotation, mask_BS, adapters, scale):
        """x_BSD -> (y_BSD, keys_BSGK, values_BSGK)."""
        attend = adapters.get("self_attn", {})
        query, key, value = self.self_attn.heads(self.input_layernorm(x_BSD), rotation, attend, scale)
        x_BSD = x_BSD + self.self_attn.output(attention(query, key, value, mask_BS), attend, scale)
        x_BSD = x_BSD + self.mlp(self.post_attention_layernorm(x_BSD), adapters.get("mlp", {}), scale)
        return x_BSD, key, value

    def token(self, x_BD, rotation, keys, values, valid_BS, slot, adapters, scale):
        """x_BD -> (y_BD, keys, values), this token's key and value written into `slot` of the cache."""
        attend = adapters.get("self_attn", {})
        query, key, value = self.self_attn.heads(self.input_layernorm(x_BD), rotation, attend, scale)
        keys, values = write_slot(keys, values, key, value, slot)
        x_BD = x_BD + self.self_attn.output(cached_attention(query, keys, values, valid_BS), attend, scale)
        x_BD = x_BD + self.mlp(self.post_attention_layernorm(x_BD), adapters.get("mlp", {}), scale)
        return x_BD, keys, values


def init_params(key: jax.Array, config: ModelConfig, *, std: float = 0.02) -> Params:
    """Random float32 parameters: normal with standard deviation `std` (Qwen3 started from 0.02), norms 1."""
    embed_key, head_key, layers_key = jax.random.split(key, 3)
    size = (config.vocab_size, config.hidden_size)

    def layer(layer_key: jax.Array) -> Params:
        return nnx.to_pure_dict(nnx.split(Layer(config, nnx.Rngs(layer_key), std))[1])

    params: Params = {
        "embed_tokens": {"weight": std * jax.random.normal(embed_key, size)},
        "layers": jax.vmap(layer)(jax.random.split(layers_key, config.num_layers)),
        "norm": {"weight": jnp.ones((config.hidden_size,), jnp.float32)},
    }
    if not config.tie_embeddings:
        params["lm_head"] = {"weight": std * jax.random.normal(head_key, size)}
    return params


def abstract_params(config: ModelConfig, dtype: str = "float32") -> Params:
    """Shapes of the parameters without their numbers."""
    shapes = jax.eval_shape(partial(init_params, config=config), jax.random.key(0))
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), shapes)


def forward(
    params: Params,
    config: ModelConfig,
    tokens_BS: jax.Array,
    *,
    positions: jax.Array | None = None,
    mask: jax.Array | None = None,
    lora: Lora | None = None,
) -> jax.Array:
    """Final hidden states, normalised, [B, S, D] in `config.dtype`; `output_head` makes logits of them.

    `mask` [B, S] is True on real tokens; positions count them, so that padding on the left costs nothing. With `mask`
    None every token counts, which is right for padding on the right as well: no real token looks at what follows it.
    """
    return _sequence(params, config, tokens_BS, positions, mask, lora, keep_cache=False)[0]


def prefill(
    params: Params,
    config: ModelConfig,
    tokens_BS: jax.Array,
    mask_BS: jax.Array,
    *,
    slots: int,
    lora: Lora | None = None,
):
    """Reads prompts padded on the right -> (hidden_BSD, Cache with room for `slots` tokens)."""
    hidden_BSD, kept = _sequence(params, config, tokens_BS, None, None, lora, keep_cache=True)
    assert kept is not None
    keys, values = kept
    return hidden_BSD, cache_from_prefill(keys, values, mask_BS, slots)


def decode(
    params: Params,
    config: ModelConfig,
    tokens_B: jax.Array,
    positions_B: jax.Array,
    cache: Cache,
    slot: jax.Array,
    *,
    lora: Lora | None = None,
):
    """Reads one token a row -> (hidden_BD, Cache). `slot` is where this token goes, the same in every row.

    Layers are unrolled here and scanned elsewhere: a cache carried through a scan is copied at every layer.
    """
    valid_BS = jax.lax.dynamic_update_index_in_dim(cache.valid_BS, jnp.ones_like(tokens_B, dtype=bool), slot, axis=1)
    x_BD = _embed(params, config, tokens_B)
    rotation = rotary(positions_B, config)
    keys, values = list(cache.keys), list(cache.values)
    for index in range(config.num_layers):
        weights, adapters = jax.tree.map(lambda leaf, i=index: leaf[i], _stacked(params, lora))
        x_BD, keys[index], values[index] = _layer(config, weights).token(
            x_BD, rotation, keys[index], values[index], valid_BS, slot, adapters, _scale(lora)
        )
    return _final_norm(params, config, x_BD), Cache(tuple(keys), tuple(values), valid_BS)


def output_head(params: Params, config: ModelConfig) -> jax.Array:
    """The output head [D, V]: the embedding itself where the two are tied."""
    return params["embed_tokens" if config.tie_embeddings else "lm_head"]["weight"].T


def rotary(positions: jax.Array, config: ModelConfig) -> tuple[jax.Array, jax.Array]:
    """cos and sin [..., 1, K/2] of the rotary embedding, in `config.dtype`, for positions [...] (arXiv 2104.09864)."""
    fraction = jnp.arange(0, config.head_dim, 2, dtype=jnp.float32) / config.head_dim
    frequency = 1.0 / jnp.asarray(config.rope_theta, jnp.float32) ** fraction
    angle = positions[..., None, None].astype(jnp.float32) * jnp.expand_dims(frequency, range(positions.ndim + 1))
    return jnp.cos(angle).astype(config.dtype), jnp.sin(angle).astype(config.dtype)


def rotate(x: jax.Array, rotation: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Turns the first half of each head against its second half by the given angles."""
    cos, sin = rotation
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def _sequence(params, config, tokens_BS, positions, mask, lora, *, keep_cache: bool):
    """Hidden states of whole sequences, and where asked for every layer's keys and values [L, B, S, G, K]."""
    if positions is None:
        every = jnp.ones(tokens_BS.shape, bool) if mask is None else mask.astype(bool)
        positions = jnp.maximum(jnp.cumsum(every, axis=1) - 1, 0)
    rotation = rotary(positions, config)

    def body(x_BSD, stacked):
        weights, adapters = stacked
        x_BSD, key, value = _layer(config, weights).sequence(x_BSD, rotation, mask, adapters, _scale(lora))
        return x_BSD, (key, value) if keep_cache else None

    body = jax.checkpoint(body, prevent_cse=False) if config.rematerialise else body
    x_BSD, kept = jax.lax.scan(body, _embed(params, config, tokens_BS), _stacked(params, lora))
    return _final_norm(params, config, x_BSD), kept


def _stacked(params: Params, lora: Lora | None) -> tuple[Params, Params]:
    """All layers' weights and adapters, stacked along their first axis."""
    return params["layers"], {} if lora is None else lora.layers


def _scale(lora: Lora | None) -> float:
    return 0.0 if lora is None else lora.scale


def _layer(config: ModelConfig, weights: Params) -> Layer:
    """One layer's module over its own weights."""
    return nnx.merge(_layer_definition(config), weights)


@cache
def _layer_definition(config: ModelConfig):
    return nnx.split(nnx.eval_shape(lambda: Layer(config, nnx.Rngs(0))))[0]


def _embed(params: Params, config: ModelConfig, tokens: jax.Array) -> jax.Array:
    return jnp.take(params["embed_tokens"]["weight"], tokens, axis=0).astype(config.dtype)


def _final_norm(params: Params, config: ModelConfig, x: jax.Array) -> jax.Array:
    norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
    norm.weight = nnx.Param(params["norm"]["weight"])
    return norm(x)


def _times(x: jax.Array, weight_oi: jax.Array) -> jax.Array:
    return jnp.einsum("...i,oi->...o", x, weight_oi.astype(x.dtype))
