"""What the scores of a preflight's completions say: delta, its noise, and what a method makes of it.

A function is a check, in the order in which they are shown; None where the method has no use for it.
"""

import math
from typing import Any

from egrsd_jax.objective.settings import privilege
from egrsd_jax.preflight.checks.line import Judgement, Line
from egrsd_jax.preflight.measure import Measured
from egrsd_jax.train.sampler_gap import LOGP_GAP_ERROR

# Limits: round numbers (docs/preflight.md); those of the sampler are training's.
SMALL_FLOOR, LARGE_FLOOR = 0.1, 0.5  # noise of delta as a share of |delta|
NO_SIGNAL = 1e-5  # nats: float32 rounds to about this
FIRST_NATS, FIRST_TIMES = 0.5, 3.0  # |delta| of first tokens that is large, and large next to that of all
MOSTLY_CLIPPED = 0.8
MUCH_CLIPPED = 0.01  # of the teacher's probability, at the entries of a clipped divergence
GATE_SHUT, GATE_OPEN = 0.5, 0.999
FEW_PIVOTS = 0.01


def first_tokens(measured: Measured) -> Line | None:
    """Whether teacher and student disagree on how a completion begins."""
    signal = measured.signal
    if signal is None:
        return None
    value = f"{signal.first:+.3f} nats, |δ| {signal.first_size:.3f}; over all tokens {signal.signal:.3f}"
    numbers = {"delta": signal.first, "size": signal.first_size}
    if signal.first_size > FIRST_NATS and signal.first_size > FIRST_TIMES * signal.signal:
        reason = "teacher and student disagree on how a completion begins: the update learns the opening first"
        return Line("first_token", "δ of the first token", value, "look", reason, numbers)
    return Line("first_token", "δ of the first token", value, "go", "the beginning is a token like others", numbers)


def noise(measured: Measured) -> Line | None:
    """How much of delta is rounding."""
    signal = measured.signal
    if signal is None:
        return None
    value = (
        f"|δ| {signal.signal:.4f} nats; same prompt twice {signal.twice:.1e}, without privilege "
        f"{signal.unprivileged:.1e}"
    )
    numbers = {name: getattr(signal, name) for name in ("signal", "twice", "unprivileged", "delta")}
    title = "signal δ and its noise"
    if signal.signal <= NO_SIGNAL:
        judgement: Judgement = "look" if privilege(measured.config.method) == "none" else "stop"
        return Line(
            "noise", title, value, judgement, "teacher and student agree on every token: there is no signal", numbers
        )
    share = signal.twice / signal.signal
    if share > SMALL_FLOOR:
        judgement = "stop" if share > LARGE_FLOOR else "look"
        return Line(
            "noise", title, value, judgement, f"{100 * share:.0f}% of δ is rounding: model.dtype float32", numbers
        )
    return Line("noise", title, value, "go", f"rounding is {100 * share:.1g}% of it", numbers)


def sampler(measured: Measured) -> Line:
    """How far the sampler's log-probabilities are from the trainer's."""
    gap, config = measured.sampler_gap, measured.config
    value, numbers = f"{gap:.1e} nats per token", {"mean": gap}
    title = "sampler and trainer apart"
    rollout = config.rollout
    if gap <= rollout.gap_warns:
        return Line("sampler_gap", title, value, "go", "both compute the same log p", numbers)
    in_float32 = {config.model.dtype, rollout.weights_dtype or "float32"} == {"float32"}
    stops = rollout.gap_stops if rollout.gap_stops is not None else LOGP_GAP_ERROR if in_float32 else math.inf
    judgement: Judgement = "stop" if gap > stops else "look"
    return Line("sampler_gap", title, value, judgement, f"over {rollout.gap_warns}: see docs/metrics.md", numbers)


def clip(measured: Measured) -> Line | None:
    """Weights at a limit of the ratio's clip."""
    weights = measured.weights
    if weights is None or weights.clipped_low is None or weights.clipped_high is None:
        return None
    both = weights.clipped_low + weights.clipped_high
    value = f"{100 * weights.clipped_low:.1f}% of the tokens low, {100 * weights.clipped_high:.1f}% high"
    numbers = {"low": weights.clipped_low, "high": weights.clipped_high}
    if both > MOSTLY_CLIPPED:
        reason = "nearly all weights are at a limit of the clip: only the sign of δ is left; raise method.epsilon"
        return Line("clip", "clipped weights", value, "look", reason, numbers)
    return Line("clip", "clipped weights", value, "go", "the size of δ counts at the other tokens", numbers)


def entry_clip(measured: Measured) -> Line | None:
    """The teacher's probability at a divergence's clipped entries."""
    shares = None if measured.weights is None else measured.weights.entry_clip
    if shares is None:
        return None
    value = (
        f"{100 * shares.mass:.2f}% of the teacher's probability, {100 * shares.entries:.3f}% of the entries; at "
        f"{100 * shares.tokens:.1f}% of the tokens"
    )
    title, numbers = "vocabulary entries at the clip", shares._asdict()
    if shares.mass > MUCH_CLIPPED:
        reason = (
            "the update lowers these, which the teacher would raise: compare with --method.entry_clip 0 "
            "(docs/methods.md, OPSD's clip)"
        )
        return Line("entry_clip", title, value, "look", reason, numbers)
    return Line("entry_clip", title, value, "go", "nearly all of the teacher's probability pulls as it should", numbers)


def gate(measured: Measured) -> Line | None:
    """How much of the update the gate takes away."""
    weights = measured.weights
    if weights is None or weights.gate_mean is None or weights.gate_at_floor is None:
        return None
    value = f"mean {weights.gate_mean:.3f}, {100 * weights.gate_at_floor:.1f}% at the floor"
    numbers = {"mean": weights.gate_mean, "at_floor": weights.gate_at_floor, "restored": weights.restored}
    if weights.gate_mean > GATE_OPEN:
        judgement, reason = "look", "the gate is open nearly everywhere: expect no difference from a method without it"
    elif weights.gate_mean < GATE_SHUT:
        judgement, reason = (
            "look",
            "the gate takes more than half of the update away: a lower method.gamma, or a rate that makes up",
        )
    else:
        judgement, reason = "go", "the gate weights some tokens down"
    return Line("gate", "gate ω", value, judgement, reason, numbers)


def regimes(measured: Measured) -> Line | None:
    """Shares of tokens by the teacher's entropy here and soon after."""
    weights = measured.weights
    if weights is None:
        return None
    value = ", ".join(f"{name} {100 * share:.1f}%" for name, share in weights.regimes.items())
    numbers: dict[str, Any] = dict(weights.regimes)
    if weights.restored is not None:
        value += f"; restored {weights.restored:.4f}"
        if weights.regimes["pivot"] < FEW_PIVOTS:
            reason = "few tokens are unsure before sure ones, for which the lookahead is made: expect what EGRSD gives"
            return Line("regimes", "regimes", value, "look", reason, numbers)
    return Line("regimes", "regimes", value, "go", "for comparison with docs/analysis.md", numbers)
