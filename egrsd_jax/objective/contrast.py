"""RLCSD's contrast: what a correct completion in the teacher's prompt says of a token that wrong ones do not.

Everything is a constant: no gradient flows through it. B completions of T tokens, K wrong completions each.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from egrsd_jax.ops.arguments import check_shapes
from egrsd_jax.ops.masked import is_real, masked_count


def contrast(right_logp_BT: ArrayLike, wrong_logp_BKT: ArrayLike, read_BK: ArrayLike) -> jax.Array:
    """`log p_right(y) - log mean_k p_wrong,k(y)`, nats [B, T], the mean over those that are read; 0 where none is.

    Args:
        right_logp_BT: the teacher's log-probabilities with the correct completion in its prompt, nats.
        wrong_logp_BKT: with each of the wrong ones; anything where it is not read.
        read_BK: non-zero where there is such a wrong one.

    Returns:
        BT in float32. Raises ValueError where shapes disagree.
    """
    check_shapes(right_logp_BT=right_logp_BT, wrong_logp_BKT=wrong_logp_BKT, read_BK=read_BK)
    read_BK = is_real(read_BK)
    wrong_BKT = jnp.where(read_BK[:, :, None], jnp.asarray(wrong_logp_BKT, jnp.float32), -jnp.inf)
    count_B1 = jnp.sum(read_BK, axis=1, dtype=jnp.float32)[:, None]
    mixture_BT = jax.nn.logsumexp(wrong_BKT, axis=1) - jnp.log(jnp.maximum(count_B1, 1.0))
    return jax.lax.stop_gradient(jnp.where(count_B1 > 0, jnp.asarray(right_logp_BT, jnp.float32) - mixture_BT, 0.0))


def modulation(contrast_BT: jax.Array, *, scale: float, strength: float, least: float) -> jax.Array:
    """`strength tanh(contrast / scale)`, [B, T], and 0 where that is at most `least` in size: such tokens keep their
    advantage."""
    modulation_BT = strength * jnp.tanh(contrast_BT / scale)
    return jnp.where(jnp.abs(modulation_BT) > least, modulation_BT, 0.0)


def modulated_advantage(advantage_BT: jax.Array, modulation_BT: jax.Array) -> jax.Array:
    """`A + r` where that has A's sign, and 0 where it has the other or A is 0: the reward decides the direction."""
    sign_BT = jnp.sign(advantage_BT)
    return sign_BT * jnp.maximum(sign_BT * (advantage_BT + modulation_BT), 0.0)


def split_weight(chosen_BT: ArrayLike, mask_BT: ArrayLike, *, weight: float) -> jax.Array:
    """What tokens count so that their mean over all is the mean over those not chosen, plus `weight` times that over
    the chosen ones; a mean over none is 0.

    Args:
        chosen_BT: bool; anything in padding.
        mask_BT: non-zero on real tokens.
        weight: of the chosen ones' mean.

    Returns:
        BT in float32, 0 in padding.
    """
    check_shapes(chosen_BT=chosen_BT, mask_BT=mask_BT)
    real_BT = is_real(mask_BT)
    chosen_BT = real_BT & is_real(chosen_BT)
    count, chosen = masked_count(mask_BT), masked_count(chosen_BT)
    of_chosen, of_others = weight * count / jnp.maximum(chosen, 1.0), count / jnp.maximum(count - chosen, 1.0)
    return jnp.where(chosen_BT, of_chosen, jnp.where(real_BT, of_others, 0.0))
