"""Rotary position embeddings (arXiv 2104.09864), stretched where the model's configuration says so."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from egrsd_jax.model.config import ModelConfig, Turns
from egrsd_jax.model.rope_scaling import Linear, Llama3, RopeScaling, Yarn

Rotation = tuple[jax.Array, jax.Array]


def rotary(positions: jax.Array, config: ModelConfig, turns: Turns = "full") -> Rotation:
    """cos and sin [..., 1, K/2] for positions [...], of layers with full attention, of sliding ones, or of those that
    turn nothing, whose cos is 1 and sin 0.

    They are `config.dtype`, and at least float32 where the architecture multiplies in float32.
    """
    scaling = config.rope_scaling if turns == "full" else None
    frequency = frequencies(config.head_dim, config.rope_theta, scaling)
    frequency = np.expand_dims(frequency, tuple(range(positions.ndim + 1)))
    angle = positions[..., None, None].astype(jnp.float32) * frequency
    factor = jnp.asarray(scaling.attention_factor if isinstance(scaling, Yarn) else 1.0, jnp.float32)
    if turns == "none":
        angle = jnp.zeros_like(angle)
    dtype = jnp.dtype(config.dtype)
    if config.architecture.wide_products:
        dtype = np.promote_types(dtype, np.float32)
    return (jnp.cos(angle) * factor).astype(dtype), (jnp.sin(angle) * factor).astype(dtype)


def rotate(x: jax.Array, rotation: Rotation) -> jax.Array:
    """Turns the first half of each head against its second half by the given angles."""
    cos, sin = rotation
    first, second = jnp.split(x.astype(cos.dtype), 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x.dtype)


def frequencies(head_dim: int, theta: float, scaling: RopeScaling | None) -> np.ndarray:
    """Radians a position for every pair of a head's coordinates, [K/2] in float32.

    Computed on the host: at position 30,000 one unit in the last place of a frequency is a thousandth of a radian, and
    accelerators round powers in their own ways. The power is taken in float64 and rounded once.
    """
    exponent = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    period = (np.float64(theta) ** exponent.astype(np.float64)).astype(np.float32)
    plain = np.float32(1) / period
    if scaling is None:
        return plain
    if isinstance(scaling, Linear):
        return plain / np.float32(scaling.factor)
    if isinstance(scaling, Llama3):
        return _mixed(plain, scaling)
    keep = _kept_share(head_dim, theta, scaling)
    stretched = np.float32(1) / (np.float32(scaling.factor) * period)
    return stretched * (1 - keep) + plain * keep


def _mixed(plain: np.ndarray, scaling: Llama3) -> np.ndarray:
    """Frequencies [K/2] as they are where they turn often over the original length, divided by the factor where they
    turn rarely, and in between a mixture of the two (section 3.1.3 of the Llama 3 paper gives its purpose)."""
    low, high = np.float32(scaling.low_freq_factor), np.float32(scaling.high_freq_factor)
    factor = np.float32(scaling.factor)
    turns = np.float32(scaling.original_positions) / (np.float32(2 * math.pi) / plain)
    keep = np.clip((turns - low) / (high - low), 0, 1)
    return (1 - keep) * plain / factor + keep * plain


def _kept_share(head_dim: int, theta: float, yarn: Yarn) -> np.ndarray:
    """1 for frequencies that stay, 0 for those that are divided by the factor, [K/2] in float32 (section 3.2)."""

    def pair_that_turns(times: float) -> float:
        return head_dim * math.log(yarn.original_positions / (times * 2 * math.pi)) / (2 * math.log(theta))

    low = max(math.floor(pair_that_turns(yarn.beta_fast)), 0)
    high = min(math.ceil(pair_that_turns(yarn.beta_slow)), head_dim - 1)
    width = np.float32(high - low or 0.001)  # of a ramp without width, transformers makes a steep one
    ramp = (np.arange(head_dim // 2, dtype=np.float32) - np.float32(low)) / width
    return 1 - np.clip(ramp, 0, 1)
