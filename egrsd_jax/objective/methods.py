"""The methods: what a step knows of its completions in, the loss of every token out. One pure function a method.

Each function maps `Signals` and the method's resolved settings to losses [B, T], which are not reduced: the step takes
their mean over tokens or sequences. Gradients flow through the student's log-probabilities and the divergence alone;
all else is a constant. The running examples are B completions of T positions; log p_S is the student's, log p_T the
teacher's log-probability of a token that was sampled, delta = log p_T - log p_S, in nats.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from egrsd_jax.objective.losses import ratio_weight
from egrsd_jax.objective.policy_gradient import clipped_ratio_gain, k3_divergence
from egrsd_jax.ops.masked import masked_count


class Signals(NamedTuple):
    """What a step knows of its completions, [B, T] or [B], float32; None where the method did not ask for it.

    Padding of every array [B, T] holds 0. `student_logp` and `divergence` carry the student's gradient.
    """

    mask_BT: jax.Array  # bool
    student_logp_BT: jax.Array
    sampled_logp_BT: jax.Array  # the sampler's own, of the policy that drew the completion
    advantage_B: jax.Array
    weight_B: jax.Array  # how much each completion counts (PACED); 1 elsewhere
    demonstration_B: jax.Array  # bool: the completion is the teacher's (GATES)
    step: jax.Array  # gradient steps before this one
    teacher_logp_BT: Any = None
    teacher_entropy_BT: Any = None
    gate_BT: Any = None
    divergence_BT: Any = None
    student_entropy_BT: Any = None
    student_entropy_threshold: Any = (
        None  # the entropy that the kept share of the step's tokens reaches (REOPOLD), a scalar
    )
    initial_logp_BT: Any = None  # log-probabilities under the initial model and the student's prompt

    @property
    def delta_BT(self) -> jax.Array:
        """log p_T - log p_S, nats, a constant."""
        return jax.lax.stop_gradient(self.teacher_logp_BT - self.student_logp_BT)

    @property
    def advantage_BT(self) -> jax.Array:
        """Every token has its completion's advantage, times how much the completion counts."""
        return (self.weight_B * self.advantage_B)[:, None] * jnp.ones_like(self.student_logp_BT)


Settings = Any  # MethodSettings, resolved: every field that the method uses has a value
TokenLoss = Callable[[Signals, Any], jax.Array]


def egrsd(signals: Signals, settings: Settings) -> jax.Array:
    """EGRSD, and CL-EGRSD with the lookahead's gate (arXiv 2605.13255): `-A w omega log p_S`.

    w = clip(exp(sign(A) delta), 1 - epsilon, 1 + epsilon), omega the entropy gate. With gamma 0 it is the
    direction-aware baseline, with epsilon 0 the gate alone.
    """
    weight_BT = ratio_weight(
        signals.student_logp_BT, signals.teacher_logp_BT, signals.advantage_B, epsilon=settings.epsilon
    )
    return -signals.advantage_BT * weight_BT * signals.gate_BT * signals.student_logp_BT


def rlsd(signals: Signals, settings: Settings) -> jax.Array:
    """RLSD (arXiv 2604.03128): `-A ((1 - lambda) + lambda w) log p_S`, lambda falling from `mixing` to 0.

    lambda falls in a line over `mixing_steps`. With lambda = 1 it is `direction`, with lambda = 0 `grpo`.
    """
    return -signals.advantage_BT * mixed_weight(signals, settings) * signals.student_logp_BT


def mixed_weight(signals: Signals, settings: Settings) -> jax.Array:
    """RLSD's `(1 - lambda) + lambda w`, [B, T]."""
    share = jnp.clip(1.0 - signals.step.astype(jnp.float32) / settings.mixing_steps, 0.0, 1.0)
    mixing = jnp.float32(settings.mixing) * share
    weight_BT = ratio_weight(
        signals.student_logp_BT, signals.teacher_logp_BT, signals.advantage_B, epsilon=settings.epsilon
    )
    return 1.0 - mixing + mixing * weight_BT


def grpo(signals: Signals, settings: Settings) -> jax.Array:
    """GRPO as the method's paper compares with it (arXiv 2605.13255): `-A log p_S`, w and omega both 1."""
    del settings
    return -signals.advantage_BT * signals.student_logp_BT


def grpo_group(signals: Signals, settings: Settings) -> jax.Array:
    """GRPO with its group and its clip (arXiv 2402.03300), and Dr.GRPO (2503.20783) and DAPO (2503.14476) by settings.

    `-min(rho A, clip(rho, 1 - epsilon, 1 + epsilon_high) A) + kl k3`, rho the student's probability over the sampler's.
    With one gradient step on a rollout rho is 1 up to rounding, and the clip rests.
    """
    loss_BT = -clipped_ratio_gain(
        signals.student_logp_BT,
        signals.sampled_logp_BT,
        signals.advantage_BT,
        epsilon=settings.epsilon,
        epsilon_high=settings.epsilon_high,
    )
    if signals.initial_logp_BT is None:
        return loss_BT
    to_initial_BT = k3_divergence(signals.student_logp_BT, signals.initial_logp_BT)
    return loss_BT + settings.kl * signals.weight_B[:, None] * to_initial_BT


def whole_divergence(signals: Signals, settings: Settings) -> jax.Array:
    """A divergence from the teacher to the student at every token: the loss of five methods that differ in settings.

    OPSD (arXiv 2601.18734): forward KL over the vocabulary, each entry clipped from above.
    CRISP (arXiv 2603.05433): reverse KL to the same model asked to be concise, no reference.
    SDPO (arXiv 2601.20802): generalised Jensen-Shannon over the student's most likely tokens and the rest's mass.
    SDFT (arXiv 2601.19897): reverse KL to an averaged teacher that sees the demonstration.
    PACED (arXiv 2603.11178): forward KL, each completion weighted by p^a (1 - p)^b of its problem's pass rate.
    """
    del settings
    return signals.weight_B[:, None] * signals.divergence_BT


def pw_opsd(signals: Signals, settings: Settings) -> jax.Array:
    """PW-OPSD (arXiv 2605.21606): OPSD weighted by position, `0.25 + 0.75 sigmoid((t / T - 0.30) / 0.10)`.

    t counts a completion's tokens from 1 and T is their number; the mean is taken per sequence first.
    """
    return position_weight(signals.mask_BT) * whole_divergence(signals, settings)


def eopd(signals: Signals, settings: Settings) -> jax.Array:
    """EOPD (arXiv 2603.07079): a clipped policy gradient on delta, and a divergence where the teacher is unsure.

    `-min(rho delta, clip(rho) delta) + 1[H_T > threshold] KL(T || S)`, KL over the teacher's `top_k` tokens, both
    distributions renormalised on them.
    """
    gain_BT = clipped_ratio_gain(
        signals.student_logp_BT,
        signals.sampled_logp_BT,
        signals.delta_BT,
        epsilon=settings.epsilon,
        epsilon_high=settings.epsilon_high,
    )
    unsure_BT = signals.teacher_entropy_BT > settings.entropy_threshold
    return signals.weight_B[:, None] * (jnp.where(unsure_BT, signals.divergence_BT, 0.0) - gain_BT)


def reopold(signals: Signals, settings: Settings) -> jax.Array:
    """REOPOLD (arXiv 2603.11137): `-1[kept] R log p_S`, R = max(delta, log(lambda / (1 - lambda))).

    Kept are the tokens with delta not below that bound during the exploration steps, then the `kept_share` of the
    step's tokens with the highest student entropy. The mean is over all tokens, kept or not.
    """
    least = jnp.log(jnp.float32(settings.mixture) / (1.0 - jnp.float32(settings.mixture)))
    exploring = signals.step < settings.exploration_steps
    kept_BT = jnp.where(
        exploring, signals.delta_BT >= least, signals.student_entropy_BT >= signals.student_entropy_threshold
    )
    reward_BT = jnp.where(kept_BT, jnp.maximum(signals.delta_BT, least), 0.0)
    return -signals.weight_B[:, None] * reward_BT * signals.student_logp_BT


def likelihood(signals: Signals, settings: Settings) -> jax.Array:
    """`-log p_S`, of the reference solution (SFT) or of the initial model's own samples (SSD, arXiv 2604.01193)."""
    del settings
    return -signals.weight_B[:, None] * signals.student_logp_BT


def gates(signals: Signals, settings: Settings) -> jax.Array:
    """GATES (arXiv 2602.20574): likelihood of the teacher's agreeing completions, a policy gradient on the student's.

    `-log p_S` where the completion is the teacher's, else `-policy_weight clip(delta, -c, c) log p_S`; one mean over
    all tokens. Problems on whose answer fewer than `consensus` of the teacher's completions agree do not count.
    """
    bound = settings.delta_clip
    policy_BT = settings.policy_weight * jnp.clip(signals.delta_BT, -bound, bound)
    credit_BT = jnp.where(signals.demonstration_B[:, None], 1.0, policy_BT)
    return -signals.weight_B[:, None] * credit_BT * signals.student_logp_BT


def position_weight(mask_BT: jax.Array) -> jax.Array:
    """`0.25 + 0.75 sigmoid((t / T - 0.30) / 0.10)` at token t = 1..T of each completion (arXiv 2605.21606)."""
    place_BT = jnp.cumsum(mask_BT, axis=1).astype(jnp.float32)
    share_BT = place_BT / jnp.maximum(masked_count(mask_BT, axis=1), 1.0)[:, None]
    return 0.25 + 0.75 * jax.nn.sigmoid((share_BT - 0.30) / 0.10)


class Method(NamedTuple):
    """A method's loss and what the step and the rollout must find out for it.

    `divergence` says over which tokens: the `whole` vocabulary, the teacher's top_k renormalised (`teacher_top`), or
    the student's top_k and one entry for the rest (`student_top`). `source` says who writes the completions: the
    student, the initial model, the teacher for half of them, or nobody, where they are the reference solutions.
    """

    token_loss: TokenLoss
    teacher: bool = True
    gated: bool = False
    divergence: Literal["whole", "teacher_top", "student_top"] | None = None
    student_entropy: bool = False
    source: Literal["student", "initial", "both", "reference"] = "student"
    mixed_groups_only: bool = False  # problems that all or none of the completions solve do not count


METHODS = {
    "egrsd": Method(egrsd, gated=True),
    "cl_egrsd": Method(egrsd, gated=True),
    "direction": Method(egrsd, gated=True),
    "rlsd": Method(rlsd),
    "grpo": Method(grpo, teacher=False),
    "grpo_group": Method(grpo_group, teacher=False),
    "dr_grpo": Method(grpo_group, teacher=False),
    "dapo": Method(grpo_group, teacher=False, mixed_groups_only=True),
    "opsd": Method(whole_divergence, divergence="whole"),
    "pw_opsd": Method(pw_opsd, divergence="whole"),
    "crisp": Method(whole_divergence, divergence="whole"),
    "eopd": Method(eopd, divergence="teacher_top"),
    "reopold": Method(reopold, student_entropy=True),
    "sdpo": Method(whole_divergence, divergence="student_top"),
    "sdft": Method(whole_divergence, divergence="whole"),
    "gates": Method(gates, source="both"),
    "paced": Method(whole_divergence, divergence="whole"),
    "sft": Method(likelihood, teacher=False, source="reference"),
    "ssd": Method(likelihood, teacher=False, source="initial"),
}
