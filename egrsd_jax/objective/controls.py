"""Control arms for the gate: the same weights, given to other tokens. An effect that stays is not the entropy's."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from egrsd_jax.ops.arguments import check_choice, check_shapes
from egrsd_jax.ops.masked import fill_padding, is_real

CONTROLS = ("random", "reversed", "position")


def rearranged_gate(gate_BT: ArrayLike, mask_BT: ArrayLike, control: str, key: jax.Array) -> jax.Array:
    """The gate's own weights in another order over all completion tokens, so with the same mean and distribution.

    Args:
        gate_BT: omega; anything in padding. Give the whole step's, not a micro-batch's.
        mask_BT: non-zero on completion tokens.
        control: `random` order; `reversed`: the largest weight where the smallest was; `position`: the smallest to the
            first tokens of completions, the largest to the last, by t / T.
        key: random key of the order.

    Returns:
        omega_BT in float32, 0 where the mask is zero.

    Raises:
        ValueError: shapes disagree, or another control.
    """
    check_shapes(gate_BT=gate_BT, mask_BT=mask_BT)
    check_choice("control", control, CONTROLS)
    real_BT = is_real(mask_BT)
    gate_BT = fill_padding(gate_BT, mask_BT, jnp.inf)  # padding sorts behind every token
    lottery_BT = jax.random.uniform(key, gate_BT.shape)  # breaks ties, so that no order favours a row
    if control == "random":
        rank_by = lottery_BT
    elif control == "reversed":
        rank_by = -gate_BT
    else:
        place_BT = jnp.cumsum(real_BT, axis=1).astype(jnp.float32)
        rank_by = place_BT / jnp.maximum(jnp.max(place_BT, axis=1, keepdims=True), 1.0)
    rank_by = jnp.where(real_BT, rank_by, jnp.inf)
    order = jnp.lexsort((lottery_BT.ravel(), rank_by.ravel()))
    given = jnp.zeros(gate_BT.size, jnp.float32).at[order].set(jnp.sort(gate_BT.ravel()))
    return jnp.where(real_BT, given.reshape(gate_BT.shape), 0.0)
