"""Token regimes: where the teacher is sure, unsure for a whole window, or unsure here and sure soon after.

Each token's regime, the regimes' shares, and how much weight a lookahead restores in each (arXiv 2605.13255). Every
function is pure and works under `jit`; shares and means over nothing are 0.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from egrsd_jax.objective.gate import gate, linear_gate, lookahead_min
from egrsd_jax.ops.arguments import check_number, check_shapes
from egrsd_jax.ops.masked import fill_padding, is_real, masked_mean, masked_quantile

# Codes of `token_regimes`; a token is the first of these whose condition it meets.
LOCK, FORK, PIVOT, MID = range(4)
PADDING = -1
REGIME_NAMES = ("lock", "fork", "pivot", "mid")
REGIME_WINDOW = 5  # the paper's mechanism study looks 5 tokens ahead; methods without a lookahead log with it


def token_regimes(
    entropy_BT: ArrayLike,
    mask_BT: ArrayLike,
    *,
    window: int,
    entropy_max: ArrayLike,
    low_quantile: float = 0.5,
    high_quantile: float = 0.7,
) -> jax.Array:
    """Regime of each token by its normalised entropy before and after the lookahead (arXiv 2605.13255).

    With Ĥ = H / H_max and the thresholds τ its quantiles over completion tokens (linear between neighbours), a token is
    the first of these that holds, so that ties have one answer:

        lock   Ĥ <= τ_low
        fork   Ĥ >= τ_high and Ĥ^CL >= τ_high    unsure here and for a whole window
        pivot  Ĥ >= τ_high and Ĥ^CL <= τ_low     unsure here, sure soon after
        mid    the rest

    Args:
        entropy_BT: teacher entropy in nats; anything in padding.
        mask_BT: non-zero on completion tokens.
        window: lookahead in tokens, static.
        entropy_max: what to divide by, a scalar or B1, as `entropy_normaliser` gives it; one scalar for all tokens
            changes no regime.
        low_quantile: the quantile that is τ_low, in [0, 1].
        high_quantile: the quantile that is τ_high, in [low_quantile, 1].

    Returns:
        int32 BT: `LOCK`, `FORK`, `PIVOT` or `MID`; `PADDING` where the mask is zero.

    Raises:
        ValueError: shapes disagree, or a number is out of its range.
    """
    check_number("low_quantile", low_quantile, lambda q: 0 <= q <= 1, "a number in [0, 1]")
    check_number("high_quantile", high_quantile, lambda q: low_quantile <= q <= 1, "a number in [low_quantile, 1]")
    check_shapes(entropy_BT=entropy_BT, mask_BT=mask_BT)
    if np.shape(entropy_max) != (np.shape(mask_BT)[0], 1):
        check_number("entropy_max", entropy_max, lambda nats: nats > 0, "a number of nats above 0, or B1 of them")
    entropy_max = jnp.asarray(entropy_max, jnp.float32)
    ahead_BT = lookahead_min(entropy_BT, mask_BT, window) / entropy_max
    here_BT = fill_padding(entropy_BT, mask_BT) / entropy_max
    low, high = masked_quantile(here_BT, mask_BT, jnp.array([low_quantile, high_quantile], jnp.float32))
    conditions = [
        here_BT <= low,
        (here_BT >= high) & (ahead_BT >= high),
        (here_BT >= high) & (ahead_BT <= low),
    ]
    codes_BT = jnp.select(conditions, [jnp.int32(LOCK), jnp.int32(FORK), jnp.int32(PIVOT)], jnp.int32(MID))
    return jnp.where(is_real(mask_BT), codes_BT, jnp.int32(PADDING))


def regime_metrics(
    entropy_BT: ArrayLike,
    mask_BT: ArrayLike,
    *,
    gamma: ArrayLike,
    window: int,
    floor: ArrayLike = 0.1,
    low_quantile: float = 0.5,
    high_quantile: float = 0.7,
    **normaliser: Any,
) -> dict[str, jax.Array]:
    """Share of each regime, and the mean weight that the lookahead restores in it.

    Restored weight is `omega^CL - omega`: the gate with this window less the gate with none, at the same gamma and
    divided by the same H_max, so it is never negative. The thresholds are quantiles over the tokens given: give the
    whole batch, not a micro-batch.

    Args:
        entropy_BT: teacher entropy in nats; anything in padding.
        mask_BT: non-zero on completion tokens.
        low_quantile: of `token_regimes`.
        high_quantile: of `token_regimes`.
        gamma, window, floor: of `entropy_gate`.
        **normaliser: its `scope`, `denominator`, `vocab_size` and `entropy_max`.

    Returns:
        `lock_share`, `fork_share`, `pivot_share`, `mid_share`; the same with `_restored`; and `restored_weight`, the
        mean over all tokens.

    Raises:
        ValueError: an argument that `entropy_gate` or `token_regimes` would refuse.
    """
    ahead = gate(entropy_BT, mask_BT, gamma=gamma, window=window, floor=floor, **normaliser)
    here_BT = linear_gate(entropy_BT, mask_BT, ahead.normaliser, gamma=gamma, floor=floor)
    restored_BT = ahead.omega_BT - here_BT
    regimes_BT = token_regimes(
        entropy_BT,
        mask_BT,
        window=window,
        entropy_max=ahead.normaliser,
        low_quantile=low_quantile,
        high_quantile=high_quantile,
    )
    metrics = {"restored_weight": masked_mean(restored_BT, mask_BT), **regime_shares(regimes_BT, mask_BT)}
    for code, name in enumerate(REGIME_NAMES):
        metrics[f"{name}_restored"] = masked_mean(restored_BT, regimes_BT == code)
    return metrics


def regime_shares(regimes_BT: ArrayLike, mask_BT: ArrayLike) -> dict[str, jax.Array]:
    """`lock_share`, `fork_share`, `pivot_share`, `mid_share`: of the tokens, by the codes of `token_regimes`.

    Raises:
        ValueError: shapes disagree.
    """
    check_shapes(regimes_BT=regimes_BT, mask_BT=mask_BT)
    regimes_BT = jnp.asarray(regimes_BT)
    return {f"{name}_share": masked_mean(regimes_BT == code, mask_BT) for code, name in enumerate(REGIME_NAMES)}
