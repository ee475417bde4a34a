"""What a step logs about its own mechanism: sign balance, clipping, the gate, token regimes, deciles of entropy.

Every function is pure and works under `jit`; shares and means over nothing are 0. Token statistics are over completion
tokens, sequence statistics over sequences that have any.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from egrsd_jax.objective.gate import entropy_normaliser, linear_gate, lookahead_min
from egrsd_jax.objective.reward import RunningMoments, running_std
from egrsd_jax.ops.arguments import check_number, check_shapes, check_static_int
from egrsd_jax.ops.masked import (
    fill_padding,
    is_real,
    masked_count,
    masked_max,
    masked_mean,
    masked_min,
    masked_quantile,
)

# Codes of `token_regimes`; a token is the first of these whose condition it meets.
LOCK, FORK, PIVOT, MID = range(4)
PADDING = -1
REGIME_NAMES = ("lock", "fork", "pivot", "mid")
REGIME_WINDOW = 5  # the paper's mechanism study looks 5 tokens ahead; methods without a lookahead log with it


def advantage_metrics(advantage_B: ArrayLike, mask_BT: ArrayLike) -> dict[str, jax.Array]:
    """How much data a loss saw, and the balance of signs in it.

    Returns:
        `tokens` and `sequences`, counts; `advantage_positive`, `advantage_negative`, `advantage_zero`, the shares of
        sequences by the sign of their advantage.
    """
    check_shapes(advantage_B=advantage_B, mask_BT=mask_BT)
    present_B = jnp.any(is_real(mask_BT), axis=1)
    advantage_B = fill_padding(advantage_B, present_B)
    return {
        "tokens": masked_count(mask_BT),
        "sequences": masked_count(present_B),
        "advantage_positive": masked_mean(advantage_B > 0, present_B),
        "advantage_negative": masked_mean(advantage_B < 0, present_B),
        "advantage_zero": masked_mean(advantage_B == 0, present_B),
    }


def ratio_metrics(
    delta_BT: ArrayLike, ratio_BT: ArrayLike, mask_BT: ArrayLike, *, epsilon: ArrayLike
) -> dict[str, jax.Array]:
    """How far teacher and student are apart on the completion's tokens, and how often the clip binds.

    Args:
        delta_BT: `log p_T - log p_S`, nats.
        ratio_BT: `exp(sign(A) delta)` before the clip.
        mask_BT: non-zero on completion tokens.
        epsilon: radius of the clip.

    Returns:
        `delta_mean` and `delta_abs_mean` in nats; `weight_clipped_low` and `weight_clipped_high`, the shares of
        tokens whose ratio is below 1 - epsilon and above 1 + epsilon.
    """
    check_shapes(delta_BT=delta_BT, ratio_BT=ratio_BT, mask_BT=mask_BT)
    epsilon = jnp.asarray(epsilon, jnp.float32)
    ratio_BT = fill_padding(ratio_BT, mask_BT, 1.0)
    return {
        "delta_mean": masked_mean(delta_BT, mask_BT),
        "delta_abs_mean": masked_mean(jnp.abs(fill_padding(delta_BT, mask_BT)), mask_BT),
        "weight_clipped_low": masked_mean(ratio_BT < 1.0 - epsilon, mask_BT),
        "weight_clipped_high": masked_mean(ratio_BT > 1.0 + epsilon, mask_BT),
    }


def gate_metrics(
    omega_BT: ArrayLike, entropy_BT: ArrayLike, mask_BT: ArrayLike, normaliser: jax.Array
) -> dict[str, jax.Array]:
    """What the gate lets through, and the entropy it saw.

    Returns:
        `gate_mean` and `gate_min` (1 without a token); `entropy_mean` in nats, before the lookahead; `entropy_max`,
        what entropy was divided by in nats: H_max, the largest one where each sequence has its own, or log|V|.
    """
    check_shapes(omega_BT=omega_BT, entropy_BT=entropy_BT, mask_BT=mask_BT)
    return {
        "gate_mean": masked_mean(omega_BT, mask_BT),
        "gate_min": masked_min(omega_BT, mask_BT, initial=1.0),
        "entropy_mean": masked_mean(entropy_BT, mask_BT),
        "entropy_max": jnp.max(normaliser, initial=0.0),
    }


def rollout_metrics(
    reward_B: ArrayLike,
    verified_B: ArrayLike,
    cut_off_B: ArrayLike,
    length_B: ArrayLike,
    moments: RunningMoments,
    *,
    ddof: int = 0,
) -> dict[str, jax.Array]:
    """What a step's rollouts earned, beside the running statistics that whiten it.

    Args:
        reward_B: rewards.
        verified_B: non-zero where the answer was verified as right.
        cut_off_B: non-zero where the completion reached the cap before its end-of-turn token.
        length_B: tokens of each completion.
        moments: of the earlier steps, those that `whiten` took.
        ddof: of the running deviation, as in `whiten`.

    Returns:
        `reward_mean`, `reward_running_mean`, `reward_running_std`, `verified_share`, `cut_off_share`, and
        `completion_length_mean` in tokens.

    Raises:
        ValueError: shapes disagree, or `ddof` is neither 0 nor 1.
    """
    check_shapes(reward_B=reward_B, verified_B=verified_B, cut_off_B=cut_off_B, length_B=length_B)
    everyone_B = jnp.ones(np.shape(reward_B), bool)
    return {
        "reward_mean": masked_mean(reward_B, everyone_B),
        "reward_running_mean": jnp.asarray(moments.mean, jnp.float32),
        "reward_running_std": running_std(moments, ddof=ddof),
        "verified_share": masked_mean(is_real(verified_B), everyone_B),
        "cut_off_share": masked_mean(is_real(cut_off_B), everyone_B),
        "completion_length_mean": masked_mean(length_B, everyone_B),
    }


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
        low_quantile: where τ_low lies, in [0, 1].
        high_quantile: where τ_high lies, in [low_quantile, 1].

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
    scope: str = "batch",
    denominator: str = "raw",
    vocab_size: ArrayLike | None = None,
    entropy_max: ArrayLike | None = None,
    low_quantile: float = 0.5,
    high_quantile: float = 0.7,
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
        gamma, window, floor, scope, denominator, vocab_size, entropy_max: of `entropy_gate`.

    Returns:
        `lock_share`, `fork_share`, `pivot_share`, `mid_share`; the same with `_restored`; and `restored_weight`, the
        mean over all tokens.

    Raises:
        ValueError: an argument that `entropy_gate` or `token_regimes` would refuse.
    """
    normaliser = entropy_normaliser(
        entropy_BT,
        mask_BT,
        window=window,
        scope=scope,
        denominator=denominator,
        vocab_size=vocab_size,
        entropy_max=entropy_max,
    )
    ahead_BT = lookahead_min(entropy_BT, mask_BT, window)
    with_BT = linear_gate(ahead_BT, mask_BT, normaliser, gamma=gamma, floor=floor)
    without_BT = linear_gate(entropy_BT, mask_BT, normaliser, gamma=gamma, floor=floor)
    restored_BT = with_BT - without_BT
    regimes_BT = token_regimes(
        entropy_BT,
        mask_BT,
        window=window,
        entropy_max=normaliser,
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


class EntropyDeciles(NamedTuple):
    """Token statistics by entropy, least entropy first; each of shape [bins], float32. An empty bin has zeros.

    Attributes:
        tokens: how many tokens a bin has.
        entropy_max: its largest entropy, nats.
        delta_abs_mean: mean of |log p_T - log p_S|, nats.
        weight_abs_mean: mean of |w omega|; None where there are no weights.
    """

    tokens: jax.Array
    entropy_max: jax.Array
    delta_abs_mean: jax.Array
    weight_abs_mean: Any


def entropy_deciles(
    entropy_BT: ArrayLike, delta_BT: ArrayLike, weight_BT: ArrayLike | None, mask_BT: ArrayLike, *, bins: int = 10
) -> EntropyDeciles:
    """Mean |delta| and mean |w omega| in each decile of teacher entropy.

    Bin k holds the tokens with `q_k < H <= q_(k+1)`, q_k the quantile k / bins over completion tokens; the least
    entropy is in bin 0. Equal entropies are never parted, so bins may differ in size, and one may be empty.

    Args:
        entropy_BT: teacher entropy in nats, before the lookahead; anything in padding.
        delta_BT: `log p_T - log p_S`, nats.
        weight_BT: `w * omega`, the product of `ratio_weight` and `entropy_gate`; None for a method that has neither.
        mask_BT: non-zero on completion tokens.
        bins: how many, at least 1.

    Raises:
        ValueError: shapes disagree, or `bins` is not an int of at least 1.
    """
    weights = {} if weight_BT is None else {"weight_BT": weight_BT}
    check_shapes(entropy_BT=entropy_BT, delta_BT=delta_BT, **weights, mask_BT=mask_BT)
    bins = check_static_int("bins", bins, 1)
    entropy_BT = fill_padding(entropy_BT, mask_BT)
    edges = masked_quantile(entropy_BT, mask_BT, jnp.arange(1, bins, dtype=jnp.float32) / bins)
    bin_BT = jnp.searchsorted(edges, entropy_BT, side="left")
    delta_abs_BT = jnp.abs(fill_padding(delta_BT, mask_BT))
    weight_abs_BT = None if weight_BT is None else jnp.abs(fill_padding(weight_BT, mask_BT))

    def one_bin(k: jax.Array) -> EntropyDeciles:
        inside_BT = is_real(mask_BT) & (bin_BT == k)
        return EntropyDeciles(
            tokens=masked_count(inside_BT),
            entropy_max=masked_max(entropy_BT, inside_BT, initial=0.0),
            delta_abs_mean=masked_mean(delta_abs_BT, inside_BT),
            weight_abs_mean=None if weight_abs_BT is None else masked_mean(weight_abs_BT, inside_BT),
        )

    return jax.vmap(one_bin)(jnp.arange(bins))
