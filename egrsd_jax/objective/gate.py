"""Teacher entropy to confidence weight: how much of a token's update survives where the teacher itself is unsure.

It comes after the teacher's scores and before the loss. EGRSD reads the entropy at the token (window 0), CL-EGRSD the
least entropy within the next `window` tokens (arXiv 2605.13255).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from egrsd_jax.objective.settings import GateSettings
from egrsd_jax.ops.arguments import check_choice, check_number, check_shapes, check_static_int
from egrsd_jax.ops.masked import fill_padding, masked_max

SCOPES = ("batch", "sequence", "log_vocab")
DENOMINATORS = ("raw", "lookahead")
SIGNALS = ("teacher_entropy", "student_entropy", "entropy_gap", "surprisal")
DIRECTIONS = ("down", "up")

# H_max is never below this, so that a batch on which the teacher is sure throughout is not stretched to [0, 1].
MIN_ENTROPY_MAX_NATS = 1.0


def lookahead_min(entropy_BT: ArrayLike, mask_BT: ArrayLike, window: int) -> jax.Array:
    """Least entropy over positions t..t+window of the same sequence: `min(H_j : j = t..min(t + W, T_i))`.

    The window is cut at the sequence's own end, and padding never enters the minimum.

    Args:
        entropy_BT: teacher entropy in nats; anything in padding.
        mask_BT: non-zero on completion tokens.
        window: how many positions to look ahead, a static int >= 0; 0 returns the entropy itself.

    Returns:
        BT in float32, nats; 0 where the mask is zero.

    Raises:
        ValueError: shapes disagree, or `window` is not an int >= 0.
    """
    check_shapes(entropy_BT=entropy_BT, mask_BT=mask_BT)
    window = check_static_int("window", window, 0)
    least_BT = fill_padding(entropy_BT, mask_BT, np.inf)
    reach = min(window, least_BT.shape[1] - 1)  # a longer window sees nothing more
    if reach > 0:
        least_BT = jax.lax.reduce_window(
            least_BT,
            np.float32(np.inf),
            jax.lax.min,
            window_dimensions=(1, reach + 1),
            window_strides=(1, 1),
            padding=((0, 0), (0, reach)),
        )
    return fill_padding(least_BT, mask_BT)


def entropy_maximum(
    entropy_BT: ArrayLike, mask_BT: ArrayLike, *, window: int = 0, denominator: str = "raw"
) -> jax.Array:
    """H_max of a batch: the largest entropy over its completion tokens, and at least 1 nat.

    A batch that is processed in micro-batches has one H_max: compute it on the whole batch and pass it to each as
    `entropy_max`.

    Args:
        entropy_BT: teacher entropy in nats; anything in padding.
        mask_BT: non-zero on completion tokens.
        window: lookahead in tokens; matters with `denominator="lookahead"` only.
        denominator: `raw`, the maximum before the lookahead (the paper's equation), or `lookahead`, after it (its
            algorithm listing).

    Returns:
        A float32 scalar, nats.

    Raises:
        ValueError: shapes disagree, or `window` or `denominator` is not one of the above.
    """
    return entropy_normaliser(entropy_BT, mask_BT, window=window, denominator=denominator)


def entropy_normaliser(
    entropy_BT: ArrayLike,
    mask_BT: ArrayLike,
    *,
    window: int = 0,
    scope: str = "batch",
    denominator: str = "raw",
    vocab_size: ArrayLike | None = None,
    entropy_max: ArrayLike | None = None,
) -> jax.Array:
    """What entropy is divided by: the batch's H_max (a scalar), each sequence's (`sequence`, B1), or log|V| (a scalar).

    Arguments and errors are those of `entropy_gate`. The 1-nat floor holds for every maximum, a given one included;
    log|V| is no maximum of data and has none.
    """
    check_shapes(entropy_BT=entropy_BT, mask_BT=mask_BT)
    window = check_static_int("window", window, 0)
    check_choice("scope", scope, SCOPES)
    check_choice("denominator", denominator, DENOMINATORS)
    if entropy_max is not None:
        check_number("entropy_max", entropy_max, lambda nats: nats > 0, "an entropy above 0, in nats")
        if scope != "batch":
            raise ValueError(f'entropy_max must be None unless scope="batch"; got {entropy_max!r} with scope={scope!r}')
        return jnp.maximum(jnp.asarray(entropy_max, jnp.float32), MIN_ENTROPY_MAX_NATS)
    if scope == "log_vocab":
        check_number("vocab_size", vocab_size, lambda size: size >= 2, 'a vocabulary size >= 2 with scope="log_vocab"')
        return jnp.log(jnp.asarray(vocab_size, jnp.float32))
    if denominator == "lookahead":
        entropy_BT = lookahead_min(entropy_BT, mask_BT, window)
    if scope == "sequence":
        return masked_max(entropy_BT, mask_BT, initial=MIN_ENTROPY_MAX_NATS, axis=1, keepdims=True)
    return masked_max(entropy_BT, mask_BT, initial=MIN_ENTROPY_MAX_NATS)


def gate_signal(
    signal: str, teacher_entropy_BT: ArrayLike, student_entropy_BT: ArrayLike, student_logp_BT: ArrayLike
) -> jax.Array:
    """What a gate reads of every token, nats, never negative: see `GateSettings.signal`.

    Args:
        signal: `teacher_entropy`, `student_entropy`, `entropy_gap` or `surprisal`.
        teacher_entropy_BT: H_T.
        student_entropy_BT: H_S.
        student_logp_BT: the student's log-probability of the token.

    Raises:
        ValueError: another signal.
    """
    check_choice("signal", signal, SIGNALS)
    if signal == "teacher_entropy":
        return jnp.asarray(teacher_entropy_BT)
    if signal == "student_entropy":
        return jnp.asarray(student_entropy_BT)
    if signal == "entropy_gap":
        return jnp.maximum(jnp.asarray(teacher_entropy_BT) - jnp.asarray(student_entropy_BT), 0.0)
    return jnp.maximum(-jnp.asarray(student_logp_BT), 0.0)


def agreement_factor(delta_BT: ArrayLike, advantage_B: ArrayLike, agreement: ArrayLike) -> jax.Array:
    """`agreement` at tokens where delta and A have opposite signs, 1 elsewhere, [B, T]."""
    check_shapes(delta_BT=delta_BT, advantage_B=advantage_B)
    disagree_BT = jnp.sign(jnp.asarray(advantage_B))[:, None] * jnp.asarray(delta_BT) < 0
    return jnp.where(disagree_BT, jnp.asarray(agreement, jnp.float32), 1.0)


def linear_gate(
    entropy_BT: ArrayLike,
    mask_BT: ArrayLike,
    normaliser: jax.Array,
    *,
    gamma: ArrayLike,
    floor: ArrayLike = 0.1,
    direction: str = "down",
) -> jax.Array:
    """`clip(1 - gamma H / normaliser, floor, 1)`, and 0 where the mask is zero; up, `clip(1 - gamma (1 - H / n), ...)`.

    Down it is the chord of `1 / (1 + a H / normaliser)` between 0 and 1 with `gamma = a / (1 + a)`, so never under that
    curve.

    Args:
        entropy_BT: nats, or another signal of `gate_signal`, with or without the lookahead; anything in padding.
        mask_BT: non-zero on completion tokens.
        normaliser: a scalar or B1, from `entropy_normaliser`.
        gamma: strength in [0, 1], may be traced; 0 is no gate.
        floor: the least weight of a completion token, in [0, 1]; binds only where gamma > 1 - floor.
        direction: `down`, least weight where there is most of it, or `up`.

    Raises:
        ValueError: shapes disagree, or a number is out of its range.
    """
    check_number("gamma", gamma, lambda strength: 0 <= strength <= 1, "a number in [0, 1]")
    check_number("floor", floor, lambda least: 0 <= least <= 1, "a number in [0, 1]")
    check_choice("direction", direction, DIRECTIONS)
    normalised_BT = fill_padding(entropy_BT, mask_BT) / normaliser
    if direction == "up":
        normalised_BT = 1.0 - normalised_BT
    omega_BT = 1.0 - jnp.asarray(gamma, jnp.float32) * normalised_BT
    return fill_padding(jnp.clip(omega_BT, jnp.asarray(floor, jnp.float32), 1.0), mask_BT)


class Gate(NamedTuple):
    """The gate of a batch, and what it was computed from; float32.

    Attributes:
        omega_BT: confidence weight of each token: in [floor, 1] on completion tokens, 0 where the mask is zero.
        entropy_BT: the entropy that it weighs, nats, after the lookahead; 0 where the mask is zero.
        normaliser: what that entropy was divided by, nats: a scalar, or B1 where each sequence has its own.
    """

    omega_BT: jax.Array
    entropy_BT: jax.Array
    normaliser: jax.Array


def gate(
    entropy_BT: ArrayLike,
    mask_BT: ArrayLike,
    *,
    gamma: ArrayLike,
    window: int = 0,
    floor: ArrayLike = 0.1,
    scope: str = "batch",
    denominator: str = "raw",
    vocab_size: ArrayLike | None = None,
    entropy_max: ArrayLike | None = None,
    direction: str = "down",
) -> Gate:
    """The gate with the entropy after the lookahead and the normaliser; arguments and errors are `entropy_gate`'s."""
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
    omega_BT = linear_gate(ahead_BT, mask_BT, normaliser, gamma=gamma, floor=floor, direction=direction)
    return Gate(omega_BT, ahead_BT, normaliser)


def entropy_gate(
    entropy_BT: ArrayLike,
    mask_BT: ArrayLike,
    *,
    gamma: ArrayLike,
    window: int = 0,
    floor: ArrayLike = 0.1,
    scope: str = "batch",
    denominator: str = "raw",
    vocab_size: ArrayLike | None = None,
    entropy_max: ArrayLike | None = None,
) -> jax.Array:
    """Confidence weight of each token, `clip(1 - gamma H / H_max, floor, 1)`, H after the lookahead (arXiv 2605.13255).

    Args:
        entropy_BT: teacher entropy in nats; anything in padding.
        mask_BT: non-zero on completion tokens.
        gamma: strength in [0, 1], may be traced; 0 is no gate.
        window: lookahead in tokens, static; 0 is EGRSD, above it CL-EGRSD.
        floor: the least weight of a completion token, in [0, 1].
        scope: what H_max is the maximum of: the `batch`, each `sequence`; or `log_vocab`, which divides by log|V| and
            so makes no use of `denominator`.
        denominator: `raw`, the maximum before the lookahead, or `lookahead`, after it.
        vocab_size: |V|, needed by `log_vocab` alone.
        entropy_max: with scope `batch`, an H_max in nats computed elsewhere (`entropy_maximum` of all micro-batches);
            at least 1 nat is used, as for one computed here.

    Returns:
        omega_BT in float32: in [floor, 1] on completion tokens, 0 where the mask is zero.

    Raises:
        ValueError: shapes disagree, or an argument is not one of the above.
    """
    return gate(
        entropy_BT,
        mask_BT,
        gamma=gamma,
        window=window,
        floor=floor,
        scope=scope,
        denominator=denominator,
        vocab_size=vocab_size,
        entropy_max=entropy_max,
    ).omega_BT


def gate_arguments(settings: GateSettings, vocab_size: int) -> dict[str, Any]:
    """The arguments that every function of the gate shares."""
    return {
        "gamma": settings.gamma,
        "window": settings.window,
        "floor": settings.floor,
        "scope": settings.scope,
        "denominator": settings.denominator,
        "vocab_size": vocab_size,
    }
