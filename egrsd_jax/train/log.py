"""What a gradient step logs: scalars, profiles, and the numbers of every token, without a forward pass of its own.

docs/metrics.md has every name.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from egrsd_jax.objective.gate import gate, gate_arguments
from egrsd_jax.objective.importance import corrected_loss, importance_metrics
from egrsd_jax.objective.losses import direction_ratio
from egrsd_jax.objective.methods import METHODS
from egrsd_jax.objective.metrics import (
    advantage_metrics,
    clip_metrics,
    contrast_metrics,
    end_metrics,
    entropy_metrics,
    gate_metrics,
    ratio_metrics,
)
from egrsd_jax.objective.profiles import (
    effective_tokens,
    entropy_deciles,
    first_tokens,
    floor_share,
    position_profile,
)
from egrsd_jax.objective.regimes import REGIME_WINDOW, regime_metrics, regime_shares, token_regimes
from egrsd_jax.objective.settings import GateSettings, MethodSettings, WeightSettings
from egrsd_jax.objective.signals import Signals
from egrsd_jax.ops.masked import masked_mean


class TokenRecord(NamedTuple):
    """The numbers of every completion token, [rows, T]: log-probabilities and entropy in nats, and its weights.

    `weight` and `gate` are what the advantage is multiplied by: w, or RLSD's (1 - lambda) + lambda w, and omega; 1 for
    a factor that the method leaves out. NaN where the method has no such number: the teacher's without a teacher, and
    weights where the teacher replaces the advantage; and all of it where a completion does not count.

    `version_logp` is log p_S under the older student that sampled the completions, and `importance` the weight that
    corrects for it; None where the student itself sampled them.
    """

    student_logp: jax.Array
    teacher_logp: jax.Array
    teacher_entropy: jax.Array
    weight: jax.Array
    gate: jax.Array
    version_logp: jax.Array | None = None
    importance: jax.Array | None = None

    def known(self) -> dict[str, Any]:
        """Its arrays by name, without those that are None."""
        return {name: array_BT for name, array_BT in self._asdict().items() if array_BT is not None}


class Watched(NamedTuple):
    """Numbers of every completion token that are logged and that no loss reads, [B, T]; None where there are none.

    `student_end` and `teacher_end` are the probabilities that the completion ends at the token, and `ends` is where it
    does.
    """

    student_entropy_BT: Any = None
    student_end_BT: Any = None
    teacher_end_BT: Any = None
    ends_BT: Any = None


def token_record(signals: Signals, settings: MethodSettings) -> TokenRecord:
    """The numbers of every token of a step."""
    scores = signals.student_logp_BT, signals.teacher_logp_BT, signals.teacher_entropy_BT
    known = ((jnp.nan if array_BT is None else array_BT) for array_BT in (*scores, *_weights(signals, settings)))
    older = (signals.version_logp_BT, signals.importance_BT)
    masked = (jnp.where(signals.mask_BT, array_BT, jnp.float32(jnp.nan)) for array_BT in known)
    return TokenRecord(
        *masked,
        *(array_BT if array_BT is None else jnp.where(signals.mask_BT, array_BT, jnp.nan) for array_BT in older),
    )


def step_metrics(signals: Signals, settings: MethodSettings, vocab_size: int) -> dict[str, jax.Array]:
    """The scalars of a whole step."""
    mask_BT = signals.mask_BT
    metrics = advantage_metrics(signals.advantage_B, mask_BT)
    if signals.teacher_logp_BT is not None:
        ratio_BT = direction_ratio(signals.delta_BT, signals.advantage_B)
        has_weight = isinstance(settings, WeightSettings)
        ratios = ratio_metrics(signals.delta_BT, ratio_BT, mask_BT, epsilon=settings.epsilon if has_weight else 0.0)
        metrics |= {name: value for name, value in ratios.items() if has_weight or name.startswith("delta")}
        metrics["entropy_mean"] = masked_mean(signals.teacher_entropy_BT, mask_BT)
        is_gated = isinstance(settings, GateSettings)
        metrics |= _gate_metrics(signals, settings, vocab_size) if is_gated else _regimes(signals)
    if signals.divergence_BT is not None:
        metrics["divergence_mean"] = masked_mean(signals.divergence_BT, mask_BT)
    if signals.importance_BT is not None:
        metrics |= importance_metrics(signals.importance_BT, mask_BT, cap=settings.importance_cap)
    if signals.clipped_mass_BT is not None:
        clipped = signals.clipped_entries_BT, signals.clipped_mass_BT, mask_BT
        metrics |= clip_metrics(*clipped, vocab_size=vocab_size)
    if signals.modulation_BT is not None:
        metrics |= contrast_metrics(signals.modulation_BT, mask_BT)
    if METHODS[settings.name].divergence is None:
        metrics["effective_tokens"] = effective_tokens(token_coefficients(signals, settings), mask_BT)
    return metrics


def watched_metrics(watched: Watched, signals: Signals) -> dict[str, jax.Array]:
    """The scalars of what no loss reads: both entropies side by side, and the mass of the end of turn."""
    mask_BT, metrics = signals.mask_BT, {}
    if watched.student_entropy_BT is not None:
        metrics |= entropy_metrics(watched.student_entropy_BT, signals.teacher_entropy_BT, mask_BT)
    if watched.student_end_BT is not None:
        metrics |= end_metrics(watched.student_end_BT, watched.teacher_end_BT, watched.ends_BT, mask_BT)
    return metrics


def step_profiles(signals: Signals, settings: MethodSettings) -> dict[str, Any]:
    """Statistics by decile of teacher entropy, by position and at the first tokens; none without a teacher, weights if
    there are any."""
    if signals.teacher_logp_BT is None:
        return {}
    weight_BT, gate_BT = _weights(signals, settings)
    update_BT = None if weight_BT is None else weight_BT * gate_BT
    columns = signals.teacher_entropy_BT, signals.delta_BT, update_BT, signals.mask_BT
    profiles = {
        "entropy_deciles": entropy_deciles(*columns),
        "positions": position_profile(*columns),
        "first_tokens": first_tokens(signals.delta_BT, signals.mask_BT),
    }
    return {
        name: {column: values for column, values in profile._asdict().items() if values is not None}
        for name, profile in profiles.items()
    }


def token_coefficients(signals: Signals, settings: MethodSettings) -> jax.Array:
    """What each token's gradient of log p_S is multiplied by, [B, T], before the mean over tokens or sequences.

    A w omega for EGRSD. It is the loss's own derivative, so it holds for every method. Where the loss has a divergence
    too, it is not the whole update: the divergence's gradient does not go through log p_S.
    """

    def total(logp_BT: jax.Array) -> jax.Array:
        return jnp.sum(corrected_loss(METHODS[settings.name], signals._replace(student_logp_BT=logp_BT), settings))

    return -jax.grad(total)(signals.student_logp_BT)


def _gate_metrics(signals: Signals, settings: GateSettings, vocab_size: int) -> dict[str, jax.Array]:
    arguments = gate_arguments(settings, vocab_size)
    entropy_BT, mask_BT = signals.teacher_entropy_BT, signals.mask_BT
    signal_BT = entropy_BT if signals.gate_signal_BT is None else signals.gate_signal_BT
    normaliser = gate(signal_BT, mask_BT, **arguments).normaliser  # of the signal's own gate under a control arm too
    own = {
        **gate_metrics(signals.gate_BT, entropy_BT, mask_BT, normaliser),
        "gate_at_floor": floor_share(signals.gate_BT, mask_BT, settings.floor),
    }
    if not settings.is_papers_gate:  # what a lookahead gives back is asked of the paper's gate alone
        return own | _regimes(signals)
    return {
        **own,
        **regime_metrics(entropy_BT, mask_BT, **{**arguments, "window": settings.window or REGIME_WINDOW}),
    }


def _regimes(signals: Signals) -> dict[str, jax.Array]:
    """The regimes' shares of a teacher without a gate: one H_max for all tokens, here 1 nat, changes none."""
    entropy_BT, mask_BT = signals.teacher_entropy_BT, signals.mask_BT
    regimes_BT = token_regimes(entropy_BT, mask_BT, window=REGIME_WINDOW, entropy_max=1.0)
    return regime_shares(regimes_BT, mask_BT)


def _weights(signals: Signals, settings: MethodSettings) -> tuple[Any, Any]:
    """w and omega of every token, 1 for the one that the method leaves out; None where no advantage is weighted."""
    method, ones_BT = METHODS[settings.name], jnp.ones_like(signals.student_logp_BT)
    if not method.teacher:
        return ones_BT, ones_BT
    if method.token_weight is None:
        return None, None
    return method.token_weight(signals, settings), ones_BT if signals.gate_BT is None else signals.gate_BT
