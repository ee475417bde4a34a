"""Low-rank adapters (arXiv 2106.09685): W x becomes W x + scale · B A x, with W frozen.

In training x may be dropped out before A (arXiv 1207.0580), as PEFT does it: every projection draws a mask of its own.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from egrsd_jax.model.config import ModelConfig
from egrsd_jax.ops.products import product

ATTENTION_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP_PROJECTIONS = ("gate_proj", "up_proj", "down_proj")
PROJECTIONS = (*ATTENTION_PROJECTIONS, *MLP_PROJECTIONS)


@flax.struct.dataclass
class Lora:
    """An adapter on every projection of every layer.

    `layers[block][projection]` holds `a` [L, r, in] and `b` [L, out, r], r the rank; `scale` is alpha / r.

    `dropout` is the share of each projection's input that training drops, at least 0 and under 1, and `key` draws it:
    None, as in scoring and sampling, drops nothing. With a key per row, [B], a row's masks are the same in whatever
    micro-batch, on whatever mesh and behind whatever padding on the right it is computed; with a key per position,
    [B, S], also wherever in a row it is. A single key is folded with the row's number within the call, so with it the
    micro-batches matter.
    """

    layers: dict[str, Any]
    scale: float = flax.struct.field(pytree_node=False)
    dropout: float = flax.struct.field(pytree_node=False, default=0.0)
    key: jax.Array | None = None

    def __post_init__(self):
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; it must be at least 0 and under 1")


class Adapter(NamedTuple):
    """One projection's adapter in one layer: `a` [r, in], `b` [out, r], and the keys of its rows' masks, if any."""

    a: jax.Array
    b: jax.Array
    scale: float
    dropout: float
    keys: jax.Array | None  # [B] or [B, S]

    def __call__(self, x: jax.Array) -> jax.Array:
        """x [..., in], B rows first where there are keys -> scale · B A x, [..., out]."""
        if self.keys is not None:
            x = drop(x, self.keys, self.dropout)
        low = product("...i,ri->...r", x, self.a.astype(x.dtype))
        return jnp.asarray(self.scale, x.dtype) * product("...r,or->...o", low, self.b.astype(x.dtype))


def projection_shapes(config: ModelConfig) -> dict[str, dict[str, tuple[int, int]]]:
    """(out, in) of every projection of a layer, by block and name."""
    D, F = config.hidden_size, config.intermediate_size
    queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    return {
        "self_attn": {"q_proj": (queries, D), "k_proj": (keys, D), "v_proj": (keys, D), "o_proj": (D, queries)},
        "mlp": {"gate_proj": (F, D), "up_proj": (F, D), "down_proj": (D, F)},
    }


def init_lora(key: jax.Array, config: ModelConfig, *, rank: int, alpha: float, dtype: str = "float32") -> Lora:
    """A Kaiming-uniform, B zero: the adapted model starts as the base model, exactly.

    The uniform bound is sqrt(1 / in), which is what `kaiming_uniform_(a=sqrt(5))`, the form in common use, gives.
    """
    if rank < 1:
        raise ValueError(f"rank is {rank}; a LoRA adapter needs a rank of at least 1")
    L = config.num_layers
    layers: dict[str, Any] = {}
    for block, projections in projection_shapes(config).items():
        layers[block] = {}
        for name, (out_size, in_size) in projections.items():
            key, use = jax.random.split(key)
            bound = math.sqrt(1.0 / in_size)
            a = jax.random.uniform(use, (L, rank, in_size), jnp.float32, -bound, bound)
            layers[block][name] = {"a": a.astype(dtype), "b": jnp.zeros((L, out_size, rank), dtype)}
    return Lora(layers=layers, scale=alpha / rank)


def layer_keys(lora: Lora | None, rows: int, positions: int) -> jax.Array | None:
    """The key of every mask, [L, P, B] or [L, P, B, S] for P projections in the order of `PROJECTIONS`; None where
    nothing is dropped.

    Raises ValueError where `lora.key` is neither one key nor a key per row or position.
    """
    if lora is None or lora.key is None or not lora.dropout:
        return None
    key = lora.key
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key) or key.shape not in ((), (rows,), (rows, positions)):
        raise ValueError(
            f"lora.key is {key.dtype} of shape {key.shape}; it must be one key of jax.random.key, "
            f"or {rows}, one per row, or {rows} × {positions}, one per position"
        )
    keys = key if key.ndim else jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(rows))
    num_layers = len(jax.tree.leaves(lora.layers)[0])
    numbers_LP = jnp.arange(num_layers * len(PROJECTIONS)).reshape(num_layers, len(PROJECTIONS))
    fold = partial(jax.vmap(jax.random.fold_in, (0, None)), keys.ravel())
    folded = jax.vmap(jax.vmap(fold))(numbers_LP)
    return folded.reshape(*numbers_LP.shape, *keys.shape)


def position_keys(keys_BS: jax.Array, position_BS: jax.Array) -> jax.Array:
    """The keys of a sequence's positions, [B, S], from its own key, which is given at each of them."""
    return jax.vmap(jax.vmap(jax.random.fold_in))(keys_BS, position_BS)


def layer_adapters(lora: Lora | None, layers: dict[str, Any], keys: jax.Array | None = None) -> dict[str, Any]:
    """One layer's adapters by block and projection, from its slices of `lora.layers` and of `layer_keys`."""
    if lora is None:
        return {}

    def adapter(name: str, arrays: dict[str, jax.Array]) -> Adapter:
        own = None if keys is None else keys[PROJECTIONS.index(name)]
        return Adapter(arrays["a"], arrays["b"], lora.scale, lora.dropout, own)

    return {
        block: {name: adapter(name, arrays) for name, arrays in projections.items()}
        for block, projections in layers.items()
    }


def refuse_dropout(lora: Lora | None) -> None:
    """Raises ValueError for an adapter that would drop something out while sampling."""
    if lora is not None and lora.key is not None:
        raise ValueError("lora.key is given, and sampling drops nothing out; pass the adapter with key None")


def drop(x: jax.Array, keys: jax.Array, rate: float) -> jax.Array:
    """x [..., in], led by the axes of `keys`: each number 0 with probability `rate`, or else over 1 - rate.

    The mean stays as it was. A mask bit depends on its key and on how many of the numbers with this key come before it,
    and on nothing else.
    """
    shape = x.shape[keys.ndim :]
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, shape))(keys.ravel()).reshape(x.shape)
    scaled = x.astype(jnp.float32) / (1 - rate)  # in bfloat16 1 - rate itself is rounded: 0.9 is 0.2% off
    return jnp.where(keep, scaled, 0).astype(x.dtype)


def merge_lora(params: dict[str, Any], lora: Lora) -> dict[str, Any]:
    """The base parameters with scale · B A added to every adapted weight, computed in float32."""

    def merged(weight: jax.Array, adapter: dict[str, jax.Array]) -> jax.Array:
        update = product("lor,lri->loi", adapter["b"].astype(jnp.float32), adapter["a"].astype(jnp.float32))
        return (weight.astype(jnp.float32) + lora.scale * update).astype(weight.dtype)

    layers = dict(params["layers"])
    for block, projections in lora.layers.items():
        layers[block] = dict(layers[block])
        for name, adapter in projections.items():
            base = layers[block][name]
            layers[block][name] = {**base, "weight": merged(base["weight"], adapter)}
    return {**params, "layers": layers}
