"""Llama, SmolLM3, Qwen2, Qwen3 and Olmo-3 in Flax NNX. Modules define the mathematics; parameters live outside them.

They are a plain nested dict whose names are those of the Hugging Face checkpoint, and weights are [out, in] as they
are there. Layers are stacked along a leading axis and scanned, so that compile time does not grow with depth.

Shapes: B rows, S positions, D hidden size, H query heads, G key-value heads, K head_dim, L layers, V vocabulary.
"""

from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from egrsd_jax.model.cache import Cache, write_token
from egrsd_jax.model.config import ModelConfig
from egrsd_jax.model.lora import Adapter, Lora, layer_adapters, layer_keys, refuse_dropout
from egrsd_jax.model.rope import Rotation, rotary, rotate
from egrsd_jax.model.sharding import BATCH, TENSOR, split_rows
from egrsd_jax.ops.attention import attention
from egrsd_jax.ops.cached_attention import CachedRows, cached_attention
from egrsd_jax.ops.prefix_attention import Prefix
from egrsd_jax.ops.products import WEIGHT_PRODUCT, product

Params = dict[str, Any]


class Projection(nnx.Module):
    """y = W x, plus b where it has a bias, plus what an adapter adds where one is given.

    W is [out, in], or, in decoding, [in, out].
    """

    def __init__(self, out_size: int, in_size: int, rngs: nnx.Rngs, std: float, *, bias: bool = False):
        self.weight = nnx.Param(nnx.initializers.normal(std)(rngs.params(), (out_size, in_size), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((out_size,), jnp.float32)) if bias else None
        self.input_first = False

    def __call__(self, x: jax.Array, adapter: Adapter | None) -> jax.Array:
        """x [..., in] -> [..., out]."""
        weight = self.weight[...]
        if self.input_first:  # in the dtype that decoding keeps weights in
            y = product("...i,io->...o", x.astype(weight.dtype), weight, dtype=x.dtype)
        else:
            y = product("...i,oi->...o", x, weight.astype(x.dtype))
        if self.bias is not None:
            y = y + _along_last(self.bias[...].astype(x.dtype), x.ndim)
        return y if adapter is None else y + adapter(x)


class RMSNorm(nnx.Module):
    """Root mean square norm in float32, in float64 of a float64 model.

    Qwen was trained with the result cast back before it is multiplied by the weight, Olmo-3 with the product cast.
    """

    def __init__(self, size: int, config: ModelConfig):
        self.weight = nnx.Param(jnp.ones((size,), jnp.float32))
        self.size, self.eps = size, config.rms_norm_eps
        self.wide = config.architecture.wide_products

    def __call__(self, x: jax.Array) -> jax.Array:
        """x [..., size] -> the same shape and dtype."""
        wide = x.astype(np.promote_types(x.dtype, np.float32))
        inverse = jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + self.eps)
        dtype = wide.dtype if self.wide else x.dtype
        return ((wide * inverse).astype(dtype) * _along_last(self.weight[...].astype(dtype), x.ndim)).astype(x.dtype)


class Attention(nnx.Module):
    """Grouped-query attention; queries and keys are normalised before they are turned, where the family does so."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs, std: float = 0.02):
        D, K = config.hidden_size, config.head_dim
        bias = config.architecture.qkv_bias or config.attention_bias
        queries, keys = config.num_heads * K, config.num_kv_heads * K
        self.q_proj = Projection(queries, D, rngs, std, bias=bias)
        self.k_proj = Projection(keys, D, rngs, std, bias=bias)
        self.v_proj = Projection(keys, D, rngs, std, bias=bias)
        self.o_proj = Projection(D, queries, rngs, std, bias=config.attention_bias)
        sizes = {"head": (K, K), "projection": (queries, keys), None: (None, None)}[config.architecture.qk_norm]
        self.q_norm, self.k_norm = (None if size is None else RMSNorm(size, config) for size in sizes)
        self.head_dim = K

    def heads(self, x: jax.Array, rotation: Rotation, adapters: dict[str, Any]):
        """Rotated queries [..., H, K], rotated keys and values [..., G, K] of x [..., D]."""

        def split(projection: Projection, name: str, norm: RMSNorm | None = None) -> jax.Array:
            y = projection(x, adapters.get(name))
            if norm is not None:
                y = norm(y.reshape(*x.shape[:-1], -1, norm.size))
            return y.reshape(*x.shape[:-1], -1, self.head_dim)

        query = rotate(split(self.q_proj, "q_proj", self.q_norm), rotation)
        key = rotate(split(self.k_proj, "k_proj", self.k_norm), rotation)
        return query, key, split(self.v_proj, "v_proj")

    def output(self, y: jax.Array, adapters: dict[str, Any]) -> jax.Array:
        """Heads [..., H, K] joined and projected back to [..., D]."""
        return self.o_proj(y.reshape(*y.shape[:-2], -1), adapters.get("o_proj"))


class Mlp(nnx.Module):
    """SwiGLU."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs, std: float = 0.02):
        D, F = config.hidden_size, config.intermediate_size
        self.gate_proj = Projection(F, D, rngs, std, bias=config.mlp_bias)
        self.up_proj = Projection(F, D, rngs, std, bias=config.mlp_bias)
        self.down_proj = Projection(D, F, rngs, std, bias=config.mlp_bias)

    def __call__(self, x: jax.Array, adapters: dict[str, Any]) -> jax.Array:
        """x [..., D] -> [..., D]."""
        gate = self.gate_proj(x, adapters.get("gate_proj"))
        up = self.up_proj(x, adapters.get("up_proj"))
        return self.down_proj(jax.nn.silu(gate) * up, adapters.get("down_proj"))


class Layer(nnx.Module):
    """One decoder layer, for a whole sequence or for one token against its cache."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs, std: float = 0.02):
        architecture = config.architecture
        self.self_attn = Attention(config, rngs, std)
        self.mlp = Mlp(config, rngs, std)
        for name in (architecture.attention_norm, architecture.mlp_norm):
            setattr(self, name, RMSNorm(config.hidden_size, config))
        self.window = config.sliding_window if config.sliding_layers else None
        self.architecture, self.attention = architecture, config.attention

    def sequence(self, x_BSD, rotation, segment_BS, sliding, adapters, prefix=None, position_BS=None):
        """x_BSD -> (y_BSD, keys_BSGK, values_BSGK). `sliding` says whether this layer looks through the window."""
        query, key, value = self._heads(x_BSD, rotation, adapters)
        options = {"implementation": self.attention, "row_axes": BATCH, "head_axis": TENSOR}
        look = partial(attention, prefix=prefix, position_BS=position_BS, **options)
        if self.window is None:
            y = look(query, key, value, segment_BS)
        else:
            y = jax.lax.cond(sliding, partial(look, window=self.window), look, query, key, value, segment_BS)
        return self._add(x_BSD, y, adapters), key, value

    def token(self, x_BD, rotation, cache: Cache, number: int, sliding: bool, adapters, prefix: Prefix | None):
        """x_BD -> (y_BD, LayerCache) of the layer `number`, this token's key and value behind each row's own tokens."""
        query, key, value = self._heads(x_BD, rotation, adapters)
        layer = write_token(cache.layers[number], key, value, cache.length_B)
        rows = CachedRows(layer.keys, layer.values, cache.length_B + 1, layer.key_scales, layer.value_scales)
        y = cached_attention(
            query,
            rows if prefix is None else rows._replace(prefix=prefix, before_B=cache.before_B),
            window=self.window if sliding else None,
            implementation=self.attention,
            row_axes=BATCH,
            head_axis=TENSOR,
        )
        return self._add(x_BD, y, adapters), layer

    def _heads(self, x, rotation, adapters):
        norm = getattr(self, self.architecture.attention_norm)
        inputs = x if self.architecture.norms_after else norm(x)
        return self.self_attn.heads(inputs, rotation, adapters.get("self_attn", {}))

    def _add(self, x, y, adapters):
        """The residual x, attention's output added to it, then the MLP's."""
        architecture = self.architecture
        attention_norm, mlp_norm = getattr(self, architecture.attention_norm), getattr(self, architecture.mlp_norm)
        y = self.self_attn.output(y, adapters.get("self_attn", {}))
        mlp = partial(self.mlp, adapters=adapters.get("mlp", {}))
        if architecture.norms_after:
            x = x + attention_norm(y)
            return x + mlp_norm(mlp(x))
        x = x + y
        return x + mlp(mlp_norm(x))


def init_params(key: jax.Array, config: ModelConfig, *, std: float = 0.02) -> Params:
    """Random float32 parameters: normal with standard deviation `std` (Qwen3 started from 0.02), norms 1."""
    embed_key, head_key, layers_key = jax.random.split(key, 3)

    def table(key: jax.Array) -> jax.Array:
        rows = std * jax.random.normal(key, (config.vocab_size, config.hidden_size))
        return jnp.pad(rows, ((0, config.vocabulary_padding), (0, 0)))

    def layer(layer_key: jax.Array) -> Params:
        return nnx.to_pure_dict(nnx.split(Layer(config, nnx.Rngs(layer_key), std))[1])

    params: Params = {
        "embed_tokens": {"weight": table(embed_key)},
        "layers": jax.vmap(layer)(jax.random.split(layers_key, config.num_layers)),
        "norm": {"weight": jnp.ones((config.hidden_size,), jnp.float32)},
    }
    if not config.tie_embeddings:
        params["lm_head"] = {"weight": table(head_key)}
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
    segments: jax.Array | None = None,
    lora: Lora | None = None,
    prefix: Prefix | None = None,
) -> jax.Array:
    """Final hidden states, normalised, [B, S, D] in `config.dtype`; `output_head` makes logits of them.

    `mask` [B, S] is True on real tokens, which are contiguous; positions count them, so that padding on the left
    costs nothing. With `mask` None every token counts, which is correct for padding on the right as well: no real token
    attends to what follows it. Instead of a mask, `segments` [B, S] numbers the sequences that share a row, each
    contiguous: none attends to another, and positions count from the start of each. `lora` with a key drops out parts
    of the adapter's inputs; see `Lora`. Raises ValueError for a mask and segments at once.
    """
    if mask is not None:
        if segments is not None:
            raise ValueError("forward takes a mask or segments, not both; number padding as a segment of its own")
        segments = mask.astype(jnp.int32)
    return _sequence(params, config, tokens_BS, positions, segments, lora, prefix, keep_cache=False)[0]


def prefill(
    params: Params,
    config: ModelConfig,
    tokens_NP: jax.Array,
    length_N: jax.Array,
    *,
    lora: Lora | None = None,
    prefix: Prefix | None = None,
):
    """Reads N prompts padded on the right -> (last_ND, keys_LNPGK, values_LNPGK).

    `last_ND` are the final hidden states of the prompts' last tokens; a prompt of length 0 is none and gives anything.
    Of prompts that follow a prefix, keys and values are those of the tokens after it.
    """
    refuse_dropout(lora)
    hidden_NPD, kept = _sequence(params, config, tokens_NP, None, None, lora, prefix, keep_cache=True)
    assert kept is not None
    last_N = jnp.maximum(length_N - 1, 0)
    return jnp.take_along_axis(hidden_NPD, last_N[:, None, None], axis=1)[:, 0], *kept


def read_prefix(params: Params, config: ModelConfig, tokens: Sequence[int], *, lora: Lora | None = None) -> Prefix:
    """Keys and values of tokens that many sequences begin with, differentiable. Raises ValueError for dropout."""
    refuse_dropout(lora)
    _, kept = _sequence(
        params, config, jnp.asarray([*tokens], jnp.int32)[None], None, None, lora, None, keep_cache=True
    )
    assert kept is not None
    return Prefix(*(array_L1CGK[:, 0].swapaxes(1, 2) for array_L1CGK in kept))


def output_head(params: Params, config: ModelConfig) -> jax.Array:
    """The output head [D, V]: the embedding itself where the two are tied."""
    return head_rows(params, config)[: config.vocab_size].T


def pad_vocabulary(params: Params, config: ModelConfig) -> Params:
    """The tables of V rows among these parameters with the padding that `config` says; an adapter has none."""

    def padded(name: str, part: Any) -> Any:
        if name not in ("embed_tokens", "lm_head"):
            return part
        return {"weight": jnp.pad(part["weight"], ((0, config.vocabulary_padding), (0, 0)))}

    return {name: padded(name, part) for name, part in params.items()}


def head_rows(params: Params, config: ModelConfig) -> jax.Array:
    """The output head as it is stored, [V, D], with its padding after the V-th row where it has some."""
    return params["embed_tokens" if config.tie_embeddings else "lm_head"]["weight"]


def _sequence(params, config, tokens_BS, positions, segments, lora, prefix, *, keep_cache: bool):
    """Hidden states of whole sequences, and where asked for every layer's keys and values [L, B, S, G, K]."""
    if positions is None:
        counted = jnp.broadcast_to(jnp.arange(tokens_BS.shape[1]), tokens_BS.shape)
        positions = counted if segments is None else segment_positions(segments)
        positions = positions + (0 if prefix is None else prefix.length)
    kinds = tuple(dict.fromkeys(config.turns))
    rotations = [rotary(positions, config, turns) for turns in kinds]

    def body(x_BSD, stacked):
        weights, layers, keys, sliding, turns, before = stacked
        rotation = jax.tree.map(partial(jax.lax.select_n, turns), *rotations) if len(kinds) > 1 else rotations[0]
        adapters = layer_adapters(lora, layers, keys)
        layer = layer_of(config, weights)
        x_BSD, key, value = layer.sequence(x_BSD, rotation, segments, sliding, adapters, before, positions)
        return x_BSD, (key, value) if keep_cache else None

    keys, sliding = layer_keys(lora, *tokens_BS.shape), jnp.asarray(slides(config))
    turns = jnp.asarray([kinds.index(turns) for turns in config.turns], jnp.int32)
    stacked = params["layers"], _adapters(lora), keys, sliding, turns, prefix
    x_BSD, kept = jax.lax.scan(_rematerialised(body, config), split_rows(embed(params, config, tokens_BS)), stacked)
    return final_norm(params, config, x_BSD), kept


def segment_positions(segment_BS: jax.Array) -> jax.Array:
    """How many positions of its own segment come before each: int32 [B, S], for segments that are contiguous."""
    index_BS = jnp.broadcast_to(jnp.arange(segment_BS.shape[1], dtype=jnp.int32), segment_BS.shape)
    starts_BS = jnp.pad(segment_BS[:, 1:] != segment_BS[:, :-1], ((0, 0), (1, 0)))
    return index_BS - jax.lax.cummax(jnp.where(starts_BS, index_BS, 0), axis=1)


def _rematerialised(body, config: ModelConfig):
    """`body` whose backward pass computes again what `config.rematerialise` names."""
    if config.rematerialise == "none":
        return body
    keep_products = jax.checkpoint_policies.save_only_these_names(WEIGHT_PRODUCT)
    return jax.checkpoint(body, prevent_cse=False, policy=keep_products if config.rematerialise == "dots" else None)


def slides(config: ModelConfig) -> tuple[bool, ...]:
    """Whether each layer looks through the window."""
    return config.sliding_layers or (False,) * config.num_layers


def _adapters(lora: Lora | None) -> Params:
    """All layers' adapters, stacked along their first axis."""
    return {} if lora is None else lora.layers


def layer_of(config: ModelConfig, weights: Params, *, input_first: bool = False) -> Layer:
    """One layer's module over its own weights, matrices as [out, in] or, with `input_first`, as [in, out]."""
    return nnx.merge(_layer_definition(config, input_first), weights)


@cache
def _layer_definition(config: ModelConfig, input_first: bool):
    def make() -> Layer:
        layer = Layer(config, nnx.Rngs(0))
        for _, module in nnx.iter_graph(layer):
            if isinstance(module, Projection):
                module.input_first = input_first
        return layer

    return nnx.split(nnx.eval_shape(make))[0]


def embed(params: Params, config: ModelConfig, tokens: jax.Array) -> jax.Array:
    """Embeddings of token ids, [..., D]."""
    return jnp.take(params["embed_tokens"]["weight"], tokens, axis=0).astype(config.dtype)


def final_norm(params: Params, config: ModelConfig, x: jax.Array) -> jax.Array:
    """The norm behind the last layer."""
    norm = RMSNorm(config.hidden_size, config)
    norm.weight = nnx.Param(params["norm"]["weight"])
    return norm(x)


def _along_last(vector: jax.Array, ndim: int) -> jax.Array:
    """A vector with leading axes of size 1, so that it multiplies or adds along the last of `ndim`."""
    return jnp.expand_dims(vector, range(ndim - 1))
