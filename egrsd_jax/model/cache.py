"""The key-value cache of decoding: each row's own tokens, and each row as long as it is.

B rows, S positions (the capacity), G key-value heads, K head_dim; R rows that begin, P positions of their prompts.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from egrsd_jax.model.config import ModelConfig

CACHE_DTYPES = ("float32", "bfloat16", "int8")
POSITION_AXES = (3, 2, 2, 2)  # where positions are counted in keys, values and their scales


class LayerCache(NamedTuple):
    """One layer's keys [B, G, K, S] and values [B, G, S, K], so that both products of a step read memory in order.

    In int8 each token's key and value of a head have a scale, [B, G, S] in float32; else the scales are None.
    """

    keys: Any
    values: Any
    key_scales: Any = None
    value_scales: Any = None


class Cache(NamedTuple):
    """All layers, how many tokens each row holds, and how many of a prefix come before them, which no row holds.

    The two numbers are int32 [B].
    """

    layers: tuple[LayerCache, ...]
    length_B: Any
    before_B: Any

    @property
    def capacity(self) -> int:
        """Tokens of each row that there is room for."""
        return self.layers[0].values.shape[2]


def empty_cache(config: ModelConfig, rows: int, capacity: int, dtype: str) -> Cache:
    """A cache without tokens, in float32, bfloat16 or int8. Raises ValueError for another dtype."""
    if dtype not in CACHE_DTYPES:
        raise ValueError(f"the cache's dtype is {dtype!r}; it must be one of {', '.join(CACHE_DTYPES)}")
    G, K = config.num_kv_heads, config.head_dim

    def layer() -> LayerCache:
        keys, values = jnp.zeros((rows, G, K, capacity), dtype), jnp.zeros((rows, G, capacity, K), dtype)
        if dtype != "int8":
            return LayerCache(keys, values)
        return LayerCache(keys, values, jnp.zeros((rows, G, capacity)), jnp.zeros((rows, G, capacity)))

    layers = tuple(layer() for _ in range(config.num_layers))
    return Cache(layers, jnp.zeros(rows, jnp.int32), jnp.zeros(rows, jnp.int32))


def write_token(layer: LayerCache, key_BGK: jax.Array, value_BGK: jax.Array, length_B: jax.Array) -> LayerCache:
    """`layer` with one more token in every row, which held `length_B`; a row without room for it stays as it is."""
    key_BGK, key_scale_BG = _stored(key_BGK, layer.keys.dtype)
    value_BGK, value_scale_BG = _stored(value_BGK, layer.values.dtype)
    row_B = jnp.arange(len(length_B))
    put = {"mode": "drop", "unique_indices": True}
    keys = layer.keys.at[row_B, :, :, length_B].set(key_BGK, **put)
    values = layer.values.at[row_B, :, length_B].set(value_BGK, **put)
    if key_scale_BG is None or value_scale_BG is None:
        return LayerCache(keys, values)
    key_scales = layer.key_scales.at[row_B, :, length_B].set(key_scale_BG, **put)
    return LayerCache(keys, values, key_scales, layer.value_scales.at[row_B, :, length_B].set(value_scale_BG, **put))


def insert(
    cache: Cache,
    key_LNPGK: jax.Array,
    value_LNPGK: jax.Array,
    length_N: jax.Array,
    before_N: jax.Array,
    prompt_R: jax.Array,
    row_R: jax.Array,
) -> Cache:
    """The cache where each row `row_R` begins with prompt `prompt_R` of N; a row number of B or more is left out.

    `length_N` are the prompts' own tokens, and `before_N` those of the prefix that they follow.
    """
    P = min(key_LNPGK.shape[2], cache.capacity)

    def put(old: jax.Array | None, new: jax.Array | None, axis: int) -> jax.Array | None:
        if old is None or new is None:
            return None
        room = (slice(None),) * (axis - 1) + (slice(P),)
        return old.at[row_R, *room].set(new, mode="drop")

    layers = []
    for number, layer in enumerate(cache.layers):
        key_NPGK, value_NPGK = key_LNPGK[number], value_LNPGK[number]
        if layers:
            # One layer after the other: on a mesh every device gets all R prompts of a layer, and would of all at once.
            key_NPGK, value_NPGK, layers[-1] = jax.lax.optimization_barrier((key_NPGK, value_NPGK, layers[-1]))
        keys, key_scales = _stored(key_NPGK[prompt_R, :P], layer.keys.dtype)
        values, value_scales = _stored(value_NPGK[prompt_R, :P], layer.values.dtype)
        new = (
            keys.transpose(0, 2, 3, 1),
            values.transpose(0, 2, 1, 3),
            *(None if scales is None else scales.transpose(0, 2, 1) for scales in (key_scales, value_scales)),
        )
        layers.append(LayerCache(*map(put, layer, new, POSITION_AXES)))
    length_B = cache.length_B.at[row_R].set(length_N[prompt_R], mode="drop")
    return Cache(tuple(layers), length_B, cache.before_B.at[row_R].set(before_N[prompt_R], mode="drop"))


def resize(cache: Cache, capacity: int) -> Cache:
    """The same rows with room for another number of tokens; those beyond it are dropped."""

    def moved(old: Any, axis: int) -> Any:
        if old is None or capacity <= cache.capacity:
            return None if old is None else jax.lax.slice_in_dim(old, 0, capacity, axis=axis)
        return jnp.pad(old, [(0, capacity - cache.capacity if number == axis else 0) for number in range(old.ndim)])

    return cache._replace(layers=tuple(LayerCache(*map(moved, layer, POSITION_AXES)) for layer in cache.layers))


def _stored(x: jax.Array, dtype: Any) -> tuple[jax.Array, jax.Array | None]:
    """`x` [..., K] as a cache of this dtype holds it: in int8 the largest of K numbers becomes 127."""
    if dtype != jnp.int8:
        return x.astype(dtype), None
    wide = x.astype(jnp.float32)
    scale = jnp.max(jnp.abs(wide), axis=-1) / 127.0
    whole = jnp.round(wide / jnp.where(scale > 0, scale, 1.0)[..., None])
    return whole.astype(jnp.int8), scale
