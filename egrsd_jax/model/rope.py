"""Rotary position embeddings (arXiv 2104.09864), stretched by YaRN where the model's configuration says so."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from egrsd_jax.model.config import ModelConfig, Yarn

Rotation = tuple[jax.Array, jax.Array]


def rotary(positions: jax.Array, config: ModelConfig, *, sliding: bool = False) -> Rotation:
    """cos and sin [..., 1, K/2] for positions [...], of a sliding layer or of one with full attention.

    They are float32 where the architecture multiplies in float32, and `config.dtype` elsewhere.
    """
    yarn = None if sliding else config.yarn
    frequency = np.expand_dims(frequencies(config.head_dim, config.rope_theta, yarn), tuple(range(positions.ndim + 1)))
    angle = positions[..., None, None].astype(jnp.float32) * frequency
    factor = jnp.asarray(1.0 if yarn is None else yarn.attention_factor, jnp.float32)
    dtype = jnp.float32 if config.architecture.wide_products else config.dtype
    return (jnp.cos(angle) * factor).astype(dtype), (jnp.sin(angle) * factor).astype(dtype)


def rotate(x: jax.Array, rotation: Rotation) -> jax.Array:
    """Turns the first half of each head against its second half by the given angles."""
    cos, sin = rotation
    first, second = jnp.split(x.astype(cos.dtype), 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x.dtype)


def frequencies(head_dim: int, theta: float, yarn: Yarn | None) -> np.ndarray:
    """Radians a position for every pair of a head's coordinates, [K/2] in float32.

    Computed on the host: at position 30,000 one unit in the last place of a frequency is a thousandth of a radian, and
    accelerators round powers in their own ways. The power is taken in float64 and rounded once.
    """
    exponent = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    period = (np.float64(theta) ** exponent.astype(np.float64)).astype(np.float32)
    plain = np.float32(1) / period
    if yarn is None:
        return plain
    keep = _kept_share(head_dim, theta, yarn)
    stretched = np.float32(1) / (np.float32(yarn.factor) * period)
    return stretched * (1 - keep) + plain * keep


def _kept_share(head_dim: int, theta: float, yarn: Yarn) -> np.ndarray:
    """1 for frequencies that stay, 0 for those that are divided by the factor, [K/2] in float32 (section 3.2)."""

    def pair_that_turns(times: float) -> float:
        return head_dim * math.log(yarn.original_positions / (times * 2 * math.pi)) / (2 * math.log(theta))

    low = max(math.floor(pair_that_turns(yarn.beta_fast)), 0)
    high = min(math.ceil(pair_that_turns(yarn.beta_slow)), head_dim - 1)
    width = np.float32(high - low or 0.001)  # of a ramp without width, transformers makes a steep one
    ramp = (np.arange(head_dim // 2, dtype=np.float32) - np.float32(low)) / width
    return 1 - np.clip(ramp, 0, 1)
