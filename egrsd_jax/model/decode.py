"""One token per row against the cache: how completions are sampled.

The parameters are copied to another layout, since a step reads all of them for very little arithmetic: layer by layer,
because a slice of stacked layers is copied in every turn of a loop; as [in, out], which a product with few rows reads
in order; and in the dtype of the products.

B rows, D hidden size, V vocabulary.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
from jax.sharding import NamedSharding, PartitionSpec, Sharding

from egrsd_jax.model.cache import Cache
from egrsd_jax.model.config import ModelConfig
from egrsd_jax.model.decoder import Params, embed, final_norm, head_rows, layer_of, slides
from egrsd_jax.model.lora import Lora, layer_adapters, refuse_dropout
from egrsd_jax.model.rope import rotary
from egrsd_jax.ops.prefix_attention import Prefix


class DecodeWeights(NamedTuple):
    """Parameters as decoding reads them. `layers` and `head_DV` are copies, the others are the model's own.

    The head has the vocabulary's padding, where there is some: what it multiplies has to be cut to V.
    """

    layers: tuple[Params, ...]
    head_DV: Any
    embed_tokens: Params
    norm: Params


def lay_out(params: Params, config: ModelConfig, dtype: str | None = None) -> DecodeWeights:
    """The parameters for `decode`, matrices in `dtype`, by default the model's. The copies take as much memory."""
    shardings, structure = jax.tree.flatten(weights_sharding(params, config)[:2])
    layers, head_DV = _copy_program(config, dtype or config.dtype, structure, tuple(shardings))(params)
    return DecodeWeights(layers, head_DV, params["embed_tokens"], params["norm"])


def abstract_weights(params: Params, config: ModelConfig, dtype: str | None = None) -> DecodeWeights:
    """Shapes, dtypes and shardings of the result of `lay_out`, from those of the parameters."""
    shapes = jax.eval_shape(partial(_laid_out, config=config, dtype=dtype or config.dtype), params)
    layers, head_DV = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        weights_sharding(params, config)[:2],
    )
    return DecodeWeights(layers, head_DV, params["embed_tokens"], params["norm"])


def weights_sharding(params: Params, config: ModelConfig) -> DecodeWeights:
    """Shardings of the result of `lay_out`: those of the parameters, dimension by dimension."""

    def of_layer(leaf: Any) -> Sharding:
        return _sharding(leaf, lambda spec: spec[:0:-1] if leaf.ndim == 3 else spec[1:])

    layer = jax.tree.map(of_layer, params["layers"])
    table = params["embed_tokens" if config.tie_embeddings else "lm_head"]["weight"]
    own = jax.tree.map(lambda leaf: leaf.sharding, (params["embed_tokens"], params["norm"]))
    return DecodeWeights((layer,) * config.num_layers, _sharding(table, lambda spec: spec[::-1]), *own)


def split_adapters(lora: Lora | None, config: ModelConfig) -> list[dict[str, Any]]:
    """Each layer's adapters. Raises ValueError for an adapter with dropout."""
    if lora is None:
        return [{}] * config.num_layers
    refuse_dropout(lora)
    return [
        layer_adapters(lora, jax.tree.map(lambda leaf, i=index: leaf[i], lora.layers))
        for index in range(config.num_layers)
    ]


def split_prefix(prefix: Prefix | None, config: ModelConfig) -> list[Prefix | None]:
    """Each layer's keys and values of a prefix, in the model's dtype."""
    if prefix is None:
        return [None] * config.num_layers
    return [Prefix(*(array[index].astype(config.dtype) for array in prefix)) for index in range(config.num_layers)]


def decode(
    weights: DecodeWeights,
    config: ModelConfig,
    tokens_B: jax.Array,
    cache: Cache,
    adapters: list[dict[str, Any]],
    prefixes: list[Prefix | None],
) -> tuple[jax.Array, Cache]:
    """Reads one token per row, written after the row's own -> (hidden_BD, Cache).

    `adapters` are from `split_adapters`, and `prefixes`, which rows with `cache.before_B` follow, from `split_prefix`.

    Layers are unrolled here and scanned elsewhere: a cache carried through a scan is copied at every layer.
    """
    position_B = cache.before_B + cache.length_B
    rotations = {turns: rotary(position_B, config, turns) for turns in dict.fromkeys(config.turns)}
    x_BD = embed({"embed_tokens": weights.embed_tokens}, config, tokens_B)
    layers = []
    for number, sliding in enumerate(slides(config)):
        layer = layer_of(config, weights.layers[number], input_first=True)
        x_BD, written = layer.token(
            x_BD, rotations[config.turns[number]], cache, number, sliding, adapters[number], prefixes[number]
        )
        layers.append(written)
    cache = cache._replace(layers=tuple(layers), length_B=cache.length_B + 1)
    return final_norm({"norm": weights.norm}, config, x_BD), cache


@cache
def _copy_program(
    config: ModelConfig, dtype: str, structure: Any, shardings: tuple[Sharding, ...]
) -> Callable[[Params], Any]:
    """`_laid_out`, jitted once for a model and its shardings: a new `jit` would compile anew at every update."""
    return jax.jit(
        partial(_laid_out, config=config, dtype=dtype), out_shardings=jax.tree.unflatten(structure, shardings)
    )


def _laid_out(params: Params, config: ModelConfig, dtype: str) -> tuple[tuple[Params, ...], jax.Array]:
    def layer(number: int) -> Params:
        return jax.tree.map(
            lambda leaf: leaf[number].T.astype(dtype) if leaf.ndim == 3 else leaf[number], params["layers"]
        )

    return tuple(layer(number) for number in range(config.num_layers)), head_rows(params, config).T.astype(dtype)


def _sharding(leaf: Any, change: Callable[[tuple], tuple]) -> Sharding:
    """The sharding of an array on a mesh with its dimensions changed; on a single device, that device."""
    if not isinstance(leaf.sharding, NamedSharding):
        return leaf.sharding
    spec = tuple(leaf.sharding.spec)
    spec += (None,) * (leaf.ndim - len(spec))
    return NamedSharding(leaf.sharding.mesh, PartitionSpec(*change(spec)))
