"""Completions of an older student: the weight that makes their expected gradient that of the student's own completions.

With y sampled by an earlier version mu of the student pi, `E_mu[rho g(y)] = E_pi[g(y)]` for any g, where
`rho = pi(y) / mu(y)` is a ratio of whole completions: advantage, gate and normalisers read all of y. It is truncated at
`importance_cap` (Ionides 2008, truncated importance sampling), which bounds the variance and biases towards 0.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from egrsd_jax.objective.method import Method
from egrsd_jax.objective.settings import Importance
from egrsd_jax.objective.signals import Signals
from egrsd_jax.ops.arguments import check_choice, check_shapes
from egrsd_jax.ops.masked import is_real, masked_mean


def importance_weight(
    student_logp_BT: ArrayLike, version_logp_BT: ArrayLike, mask_BT: ArrayLike, *, kind: Importance, cap: ArrayLike
) -> jax.Array:
    """`min(rho, cap)` at every token, without a gradient: what its loss is multiplied by.

    Args:
        student_logp_BT: log-probabilities of the tokens under the student that is trained, nats.
        version_logp_BT: under the version of it that sampled them, nats.
        mask_BT: non-zero on completion tokens; the others may hold anything.
        kind: `sequence` has one rho for a completion, `exp(sum_t (log pi - log mu))`, whose expectation is exact;
            `token` has `exp(log pi - log mu)` of each token alone, with less variance and a bias; `none` is 1.
        cap: the largest weight, at least 1, may be traced.

    Returns:
        The weights, float (float64 where both log-probabilities are), 1 on padding.

    Raises:
        ValueError: shapes disagree, or another kind.
    """
    check_shapes(student_logp_BT=student_logp_BT, version_logp_BT=version_logp_BT, mask_BT=mask_BT)
    check_choice("kind", kind, ("none", "sequence", "token"))
    student_BT, version_BT = jnp.asarray(student_logp_BT), jnp.asarray(version_logp_BT)
    change_BT = jax.lax.stop_gradient(jnp.where(is_real(mask_BT), student_BT - version_BT, 0))
    if kind == "none":
        return jnp.ones_like(change_BT)
    if kind == "sequence":
        change_BT = jnp.where(is_real(mask_BT), jnp.sum(change_BT, axis=1, keepdims=True), 0)
    return jnp.minimum(jnp.exp(change_BT), jnp.asarray(cap, change_BT.dtype))


def corrected_loss(method: Method, signals: Signals, settings: Any) -> jax.Array:
    """A method's token loss, [B, T], times the importance weight where the completions are an older student's."""
    loss_BT = method.token_loss(signals, settings)
    return loss_BT if signals.importance_BT is None else signals.importance_BT * loss_BT


def importance_metrics(importance_BT: jax.Array, mask_BT: jax.Array, *, cap: ArrayLike) -> dict[str, jax.Array]:
    """`importance_mean`, `importance_std`: of the weights over the tokens; `importance_capped`: share of them at the
    cap."""
    mean = masked_mean(importance_BT, mask_BT)
    return {
        "importance_mean": mean,
        "importance_std": jnp.sqrt(masked_mean(jnp.square(importance_BT - mean), mask_BT)),
        "importance_capped": masked_mean(importance_BT >= jnp.asarray(cap, importance_BT.dtype), mask_BT),
    }
