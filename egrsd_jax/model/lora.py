"""Low-rank adapters (arXiv 2106.09685): W x becomes W x + scale · B A x, with W frozen."""

import math
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from egrsd_jax.model.config import ModelConfig

ATTENTION_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP_PROJECTIONS = ("gate_proj", "up_proj", "down_proj")


@flax.struct.dataclass
class Lora:
    """An adapter on every projection of every layer.

    `layers[block][projection]` holds `a` [L, r, in] and `b` [L, out, r], r the rank; `scale` is alpha / r.
    """

    layers: dict[str, Any]
    scale: float = flax.struct.field(pytree_node=False)


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


def merge_lora(params: dict[str, Any], lora: Lora) -> dict[str, Any]:
    """The base parameters with scale · B A added to every adapted weight, computed in float32."""

    def merged(weight: jax.Array, adapter: dict[str, jax.Array]) -> jax.Array:
        update = jnp.einsum("lor,lri->loi", adapter["b"].astype(jnp.float32), adapter["a"].astype(jnp.float32))
        return (weight.astype(jnp.float32) + lora.scale * update).astype(weight.dtype)

    layers = dict(params["layers"])
    for block, projections in lora.layers.items():
        layers[block] = dict(layers[block])
        for name, adapter in projections.items():
            base = layers[block][name]
            layers[block][name] = {**base, "weight": merged(base["weight"], adapter)}
    return {**params, "layers": layers}
