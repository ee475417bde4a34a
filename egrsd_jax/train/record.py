"""What a gradient step tells about itself: scalars, profiles, and the numbers of every token. All of it was computed
for the update already."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from egrsd_jax.objective.diagnostics import (
    advantage_metrics,
    entropy_deciles,
    gate_metrics,
    ratio_metrics,
    regime_metrics,
)
from egrsd_jax.objective.gate import entropy_normaliser
from egrsd_jax.objective.losses import direction_ratio, ratio_weight
from egrsd_jax.objective.methods import Settings, Signals
from egrsd_jax.objective.profiles import effective_tokens, floor_share, position_profile
from egrsd_jax.ops.masked import masked_mean

REGIME_WINDOW = 5  # the paper's mechanism study looks 5 tokens ahead; methods without a lookahead log with it


class TokenRecord(NamedTuple):
    """What a step saw at every completion token, [rows, T]: log-probabilities and entropy in nats, and its weights.

    NaN where the method has no such number.
    """

    student_logp: jax.Array
    teacher_logp: jax.Array
    teacher_entropy: jax.Array
    weight: jax.Array
    gate: jax.Array


def token_record(signals: Signals, settings: Settings) -> TokenRecord:
    """The numbers of every token of a step."""
    unknown = jnp.full_like(signals.student_logp_BT, jnp.nan)
    weight_BT, gate_BT = _weights(signals, settings)
    return TokenRecord(
        signals.student_logp_BT,
        unknown if signals.teacher_logp_BT is None else signals.teacher_logp_BT,
        unknown if signals.teacher_entropy_BT is None else signals.teacher_entropy_BT,
        unknown if weight_BT is None else weight_BT,
        unknown if gate_BT is None else gate_BT,
    )


def step_metrics(signals: Signals, settings: Settings, vocab_size: int) -> dict[str, jax.Array]:
    """The scalars of a whole step."""
    mask_BT = signals.mask_BT
    metrics = advantage_metrics(signals.advantage_B, mask_BT)
    if signals.teacher_logp_BT is not None:
        ratio_BT = direction_ratio(signals.delta_BT, signals.advantage_B)
        ratios = ratio_metrics(signals.delta_BT, ratio_BT, mask_BT, epsilon=settings.epsilon or 0.0)
        clipped = settings.epsilon is not None
        metrics |= {name: value for name, value in ratios.items() if clipped or name.startswith("delta")}
        metrics["entropy_mean"] = masked_mean(signals.teacher_entropy_BT, mask_BT)
    if signals.divergence_BT is not None:
        metrics["divergence_mean"] = masked_mean(signals.divergence_BT, mask_BT)
    if signals.gate_BT is not None:
        metrics |= _gate_metrics(signals, settings, vocab_size)
    return metrics


def step_profiles(signals: Signals, settings: Settings) -> dict[str, Any]:
    """Statistics by decile of teacher entropy and by position; none without a teacher or without weights."""
    weight_BT, gate_BT = _weights(signals, settings)
    if signals.teacher_logp_BT is None or weight_BT is None or gate_BT is None:
        return {}
    columns = signals.teacher_entropy_BT, signals.delta_BT, weight_BT * gate_BT, signals.mask_BT
    return {
        "entropy_deciles": entropy_deciles(*columns)._asdict(),
        "positions": position_profile(*columns)._asdict(),
    }


def gate_arguments(settings: Settings, vocab_size: int) -> dict[str, Any]:
    """The arguments that every function of the gate shares."""
    return {
        "gamma": settings.gamma,
        "window": settings.window,
        "floor": settings.floor,
        "scope": settings.scope,
        "denominator": settings.denominator,
        "vocab_size": vocab_size,
    }


def _gate_metrics(signals: Signals, settings: Settings, vocab_size: int) -> dict[str, jax.Array]:
    gate = gate_arguments(settings, vocab_size)
    entropy_BT, mask_BT = signals.teacher_entropy_BT, signals.mask_BT
    normaliser = entropy_normaliser(
        entropy_BT, mask_BT, **{name: gate[name] for name in ("window", "scope", "denominator", "vocab_size")}
    )
    weight_BT, gate_BT = _weights(signals, settings)
    effective = effective_tokens(signals.advantage_B[:, None] * weight_BT * gate_BT, mask_BT)
    return {
        **gate_metrics(gate_BT, entropy_BT, mask_BT, normaliser),
        "gate_at_floor": floor_share(gate_BT, mask_BT, settings.floor),
        "effective_tokens": effective,
        **regime_metrics(entropy_BT, mask_BT, **{**gate, "window": settings.window or REGIME_WINDOW}),
    }


def _weights(signals: Signals, settings: Settings) -> tuple[Any, Any]:
    """w and omega of every token; None for methods whose update is no weighted log-probability."""
    ones = jnp.ones_like(signals.student_logp_BT)
    if signals.teacher_logp_BT is None:
        return ones, ones
    if signals.gate_BT is None:
        return None, None
    weight_BT = ratio_weight(
        signals.student_logp_BT, signals.teacher_logp_BT, signals.advantage_B, epsilon=settings.epsilon
    )
    return weight_BT, signals.gate_BT
