"""Small models of every architecture, and parameters far from their initial values."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from egrsd_jax.model.config import ModelConfig
from egrsd_jax.model.decoder import abstract_params, forward, output_head
from egrsd_jax.model.lora import Lora, init_lora
from egrsd_jax.model.rope_scaling import Linear, Llama3, Yarn

CONFIG = ModelConfig(
    vocab_size=97,
    hidden_size=32,
    intermediate_size=48,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    rope_theta=10_000.0,
    rms_norm_eps=1e-6,
    tie_embeddings=True,
    max_positions=256,
    dtype="float32",
)
YARN = Yarn(factor=4.0, original_positions=64, attention_factor=1.1386294361119891)
LLAMA3 = Llama3(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_positions=64)
LLAMA = CONFIG.replace(model_type="llama", head_dim=8)
SMOLLM3 = CONFIG.replace(model_type="smollm3", head_dim=8, nope_layers=(False, True, False))
QWEN2 = CONFIG.replace(model_type="qwen2", head_dim=8, tie_embeddings=False)
OLMO3 = CONFIG.replace(
    model_type="olmo3",
    head_dim=8,
    num_layers=4,
    tie_embeddings=False,
    sliding_window=4,
    sliding_layers=(True, True, False, True),
)
SHAPES = {
    "llama, tied": LLAMA,
    "llama, biases, stretched, untied, wide heads": LLAMA.replace(
        attention_bias=True, mlp_bias=True, rope_scaling=LLAMA3, tie_embeddings=False, head_dim=16
    ),
    "llama, biases of attention, linear rope, one key-value head": LLAMA.replace(
        attention_bias=True, rope_scaling=Linear(4.0), num_kv_heads=1, rope_theta=500_000.0
    ),
    "smollm3": SMOLLM3,
    "smollm3, yarn, biases, untied, one key-value head": SMOLLM3.replace(
        attention_bias=True, mlp_bias=True, tie_embeddings=False, num_kv_heads=1, rope_theta=500.0, rope_scaling=YARN
    ),
    "qwen3, tied": CONFIG,
    "qwen3, untied, other theta, as many key-value heads": CONFIG.replace(
        tie_embeddings=False, rope_theta=1_000_000.0, num_kv_heads=4
    ),
    "qwen3, yarn, one key-value head, wide heads": CONFIG.replace(
        rope_theta=500.0, rope_scaling=YARN, num_kv_heads=1, head_dim=24
    ),
    "qwen2": QWEN2,
    "qwen2, tied, yarn, wide heads": QWEN2.replace(tie_embeddings=True, head_dim=16, num_kv_heads=4, rope_scaling=YARN),
    "olmo3": OLMO3,
    "olmo3, yarn, one key-value head, wide heads": OLMO3.replace(
        num_kv_heads=1, head_dim=12, rope_theta=500.0, rope_scaling=YARN
    ),
}
FAMILIES = (
    "qwen3, yarn, one key-value head, wide heads",
    "qwen2",
    "olmo3, yarn, one key-value head, wide heads",
    "llama, biases, stretched, untied, wide heads",
    "smollm3",
)


def random_params(config: ModelConfig, seed: int = 0):
    """Parameters far from their initial values, norms and biases included, so that no term is hidden."""
    draw = np.random.default_rng(seed)

    def leaf(path, abstract):
        center = 1.0 if "norm" in jax.tree_util.keystr(path) else 0.0
        return jnp.asarray(center + 0.2 * draw.standard_normal(abstract.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(leaf, abstract_params(config))


def random_adapter(config: ModelConfig) -> Lora:
    lora = init_lora(jax.random.key(5), config, rank=3, alpha=6.0)
    draw = np.random.default_rng(6)
    return jax.tree.map(lambda leaf: leaf + jnp.asarray(0.1 * draw.standard_normal(leaf.shape), jnp.float32), lora)


@partial(jax.jit, static_argnames="config")
def logits(params, config, tokens, **kwargs):
    return forward(params, config, tokens, **kwargs).astype(jnp.float32) @ output_head(params, config)
