"""The key-value cache of decoding: a ring in which all rows write the same slot at the same time.

A row's tokens are contiguous and end right before the cursor, wherever that is, so a row may begin at any time: its
prompt is written up to the cursor. What a slot holds follows from how long ago it was written: its age.

B rows, S slots (the capacity), G key-value heads, K head_dim; R rows that begin, P positions of their prompts.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from egrsd_jax.model.config import ModelConfig

CACHE_DTYPES = ("float32", "bfloat16", "int8")
SLOT_AXES = (3, 2, 2, 2)  # where slots are counted in keys, values and their scales


class LayerCache(NamedTuple):
    """One layer's keys [B, G, K, S] and values [B, G, S, K], so that both products of a step read memory in order.

    In int8 each token's key and value of a head have a scale, [B, G, S] in float32; else the scales are None.
    """

    keys: Any
    values: Any
    key_scales: Any = None
    value_scales: Any = None


class Cache(NamedTuple):
    """All layers; the next slot to write, int32; and how many tokens each row has, int32 [B]."""

    layers: tuple[LayerCache, ...]
    cursor: Any
    length_B: Any

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
    return Cache(layers, jnp.int32(0), jnp.zeros(rows, jnp.int32))


def ages(cursor: jax.Array, capacity: int) -> jax.Array:
    """How many tokens ago each slot was written, [S]; 0 for the slot at the cursor, which is written now."""
    return (cursor - jnp.arange(capacity, dtype=jnp.int32)) % jnp.int32(capacity)


def visible_slots(cache: Cache, window: int | None) -> jax.Array:
    """Slots [B, S] that the tokens written now attend to: their own, and all of their row or of its last `window`."""
    age_S = ages(cache.cursor, cache.capacity)[None, :]
    of_row_BS = age_S <= cache.length_B[:, None]
    return of_row_BS if window is None else of_row_BS & (age_S < window)


def write_token(layer: LayerCache, key_BGK: jax.Array, value_BGK: jax.Array, cursor: jax.Array) -> LayerCache:
    """`layer` with one token per row written at the cursor."""
    key_BGK, key_scale = _stored(key_BGK, layer.keys.dtype)
    value_BGK, value_scale = _stored(value_BGK, layer.values.dtype)
    new = LayerCache(key_BGK, value_BGK, key_scale, value_scale)
    return LayerCache(
        *(
            None if old is None else jax.lax.dynamic_update_index_in_dim(old, part, cursor, axis)
            for old, part, axis in zip(layer, new, SLOT_AXES, strict=True)
        )
    )


def advance(cache: Cache, layers: tuple[LayerCache, ...]) -> Cache:
    """The cache after a token was written in every row of `layers`."""
    return Cache(layers, (cache.cursor + 1) % jnp.int32(cache.capacity), cache.length_B + 1)


def insert(
    cache: Cache,
    key_LNPGK: jax.Array,
    value_LNPGK: jax.Array,
    length_N: jax.Array,
    prompt_R: jax.Array,
    row_R: jax.Array,
) -> Cache:
    """The cache where each row `row_R` begins with prompt `prompt_R` of N; a row number of B or more is left out."""
    length_R = length_N[prompt_R]
    position_RS = length_R[:, None] - ages(cache.cursor, cache.capacity)[None, :]
    position_RS = jnp.clip(
        position_RS, 0, key_LNPGK.shape[2] - 1
    )  # slots beyond the prompt are masked: their content does not matter

    def placed(prompt_NPGK: jax.Array) -> jax.Array:
        return jnp.take_along_axis(prompt_NPGK[prompt_R], position_RS[:, :, None, None], axis=1)  # [R, S, G, K]

    def put(old: jax.Array | None, new: jax.Array | None) -> jax.Array | None:
        return None if old is None or new is None else old.at[row_R].set(new, mode="drop")

    layers = []
    for number, layer in enumerate(cache.layers):
        key_NPGK, value_NPGK = key_LNPGK[number], value_LNPGK[number]
        if layers:
            # One layer after the other: on a mesh every device gets all R prompts of a layer, and would of all at once.
            key_NPGK, value_NPGK, layers[-1] = jax.lax.optimization_barrier((key_NPGK, value_NPGK, layers[-1]))
        keys, key_scales = _stored(placed(key_NPGK), layer.keys.dtype)
        values, value_scales = _stored(placed(value_NPGK), layer.values.dtype)
        new = (
            keys.transpose(0, 2, 3, 1),
            values.transpose(0, 2, 1, 3),
            *(None if scales is None else scales.transpose(0, 2, 1) for scales in (key_scales, value_scales)),
        )
        layers.append(LayerCache(*(put(old, part) for old, part in zip(layer, new, strict=True))))
    return cache._replace(layers=tuple(layers), length_B=cache.length_B.at[row_R].set(length_R, mode="drop"))


def resize(cache: Cache, capacity: int) -> Cache:
    """The same tokens in a ring of another capacity; those older than it has room for are dropped."""
    cursor = cache.cursor % jnp.int32(capacity)
    from_S = (cache.cursor - ages(cursor, capacity)) % jnp.int32(cache.capacity)

    def moved(old: Any, axis: int) -> Any:
        return None if old is None else jnp.take(old, from_S, axis=axis)

    layers = tuple(LayerCache(*map(moved, layer, SLOT_AXES)) for layer in cache.layers)
    return cache._replace(layers=layers, cursor=cursor)


def _stored(x: jax.Array, dtype: Any) -> tuple[jax.Array, jax.Array | None]:
    """`x` [..., K] as a cache of this dtype holds it: in int8 the largest of K numbers becomes 127."""
    if dtype != jnp.int8:
        return x.astype(dtype), None
    wide = x.astype(jnp.float32)
    scale = jnp.max(jnp.abs(wide), axis=-1) / 127.0
    whole = jnp.round(wide / jnp.where(scale > 0, scale, 1.0)[..., None])
    return whole.astype(jnp.int8), scale
