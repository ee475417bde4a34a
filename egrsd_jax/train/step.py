"""One gradient step: teacher scores, student scores, loss, clipped AdamW. Jitted, sharded, its state donated.

M micro-batches of B rows, T completion positions.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from egrsd_jax.config import Config, MethodSettings
from egrsd_jax.data.batch import Batch
from egrsd_jax.model.config import ModelConfig
from egrsd_jax.model.qwen3 import Params, forward, output_head
from egrsd_jax.model.sharding import batch_sharding, replicated, tree_shardings
from egrsd_jax.objective.diagnostics import regime_metrics
from egrsd_jax.objective.gate import entropy_gate, entropy_maximum
from egrsd_jax.objective.losses import egrsd_loss, grpo_loss, ratio_weight
from egrsd_jax.ops.masked import reduction_count
from egrsd_jax.ops.scores import TokenScores, token_scores
from egrsd_jax.train.state import Policy, TrainState, state_shardings, student, teacher

Metrics = dict[str, jax.Array]
REGIME_WINDOW = 5  # the paper's mechanism study looks 5 tokens ahead; methods without a lookahead log with it


class TokenRecord(NamedTuple):
    """What a step saw at every completion token, [rows, T]: log-probabilities and entropy in nats, and its weights."""

    student_logp: jax.Array
    teacher_logp: jax.Array
    teacher_entropy: jax.Array
    weight: jax.Array
    gate: jax.Array


class Update(NamedTuple):
    """A step's result: trained parameters and optimizer state, scalars to log, and numbers of every token."""

    trainable: Any
    optimizer: optax.OptState
    metrics: Metrics
    tokens: TokenRecord


def score(policy: Policy, config: ModelConfig, tokens_BS, start_B, completion_BT, *, temperature: float) -> TokenScores:
    """Scores of the completion's tokens under a policy whose row begins with a prompt of `start_B` tokens."""
    hidden_BSD = forward(policy.params, config, tokens_BS, lora=policy.lora)
    before_BT = start_B[:, None] - 1 + jnp.arange(completion_BT.shape[1])[None, :]  # where each token is predicted
    hidden_BTD = jnp.take_along_axis(hidden_BSD, before_BT[:, :, None], axis=1)
    head_VD = output_head(policy.params, config).T  # as it lies in memory: taken as [D, V], XLA would copy it
    return token_scores(hidden_BTD, head_VD, completion_BT, temperature=temperature, vocabulary_axis=0)


def make_update(
    config: Config,
    model: ModelConfig,
    optimizer: optax.GradientTransformation,
    mesh: jax.sharding.Mesh,
    state: TrainState,
) -> Callable[[Params, optax.OptState, Params, Batch, jax.Array], Update]:
    """The jitted step: (trainable, optimizer, base, batch, advantage) -> Update.

    Every array of `batch`, and `advantage` [M, B], leads with the micro-batches. H_max and the count that the loss is
    divided by are those of all micro-batches and devices together, so neither changes the result.
    """
    shardings = state_shardings(state, mesh)
    rows = batch_sharding(mesh, axis=1)
    everywhere: Any = replicated(mesh)
    compute = partial(_update, config=config, model=model, optimizer=optimizer, mesh=mesh)
    return jax.jit(
        compute,
        donate_argnums=(0, 1),
        in_shardings=(shardings.trainable, shardings.optimizer, None, rows, rows),
        out_shardings=Update(shardings.trainable, shardings.optimizer, everywhere, everywhere),
    )


def _update(
    trainable, optimizer_state, base, batch: Batch, advantage_MB, *, config: Config, model, optimizer, mesh
) -> Update:
    teacher_MBT = _teacher_scores(base, batch, config, model)
    entropy_max = _entropy_maximum(teacher_MBT, batch, config.method)
    gradient, student_logp_MBT = _gradient(
        trainable, base, batch, teacher_MBT, advantage_MB, entropy_max, config, model
    )
    gradient = jax.lax.with_sharding_constraint(gradient, tree_shardings(gradient, mesh))
    with jax.numpy_dtype_promotion("standard"):  # optax mixes Python, int32 and float32 numbers
        change, optimizer_state = optimizer.update(gradient, optimizer_state, trainable)
    trained = optax.apply_updates(trainable, change)

    student_logp, teacher_scores, completions = jax.tree.map(_join, (student_logp_MBT, teacher_MBT, batch))
    advantage = _join(advantage_MB)
    whole = student_logp, teacher_scores, advantage, completions.mask_BT
    loss, metrics = _loss(*whole, None, config.method, model.vocab_size)
    tokens, regimes = _record(*whole, config.method, model.vocab_size)
    metrics = (
        metrics
        | regimes
        | {
            "loss": loss,
            "gradient_norm": optax.tree.norm(gradient),
            "update_norm": optax.tree.norm(change),
            "parameter_norm": optax.tree.norm(trained),
        }
    )
    return Update(trained, optimizer_state, metrics, tokens)


def _teacher_scores(base: Params, batch: Batch, config: Config, model: ModelConfig) -> TokenScores | None:
    """The privileged teacher's scores [M, B, T]; None for a method without a teacher."""
    if config.method.name == "grpo":
        return None

    def micro(part: Batch) -> TokenScores:
        inputs = part.teacher_tokens_BU, part.teacher_start_B, part.completion_BT
        return score(teacher(base), model, *inputs, temperature=config.method.score_temperature)

    return jax.lax.map(micro, batch)


def _entropy_maximum(teacher_MBT: TokenScores | None, batch: Batch, method: MethodSettings) -> jax.Array | None:
    """H_max over the whole step, where the gate's scope is the batch."""
    if teacher_MBT is None or method.scope != "batch":
        return None
    entropy, mask = _join(teacher_MBT.entropy_BT), _join(batch.mask_BT)
    return entropy_maximum(entropy, mask, window=method.window or 0, denominator=method.denominator)


def _gradient(trainable, base, batch, teacher_MBT, advantage_MB, entropy_max, config: Config, model: ModelConfig):
    """The whole batch's gradient, one micro-batch after the other, and the student's log-probabilities [M, B, T]."""
    method = config.method
    total = reduction_count(_join(batch.mask_BT), method.reduction)

    def loss_share(trainable: Params, part: Batch, teacher_BT: TokenScores | None, advantage_B: jax.Array):
        inputs = part.student_tokens_BS, part.student_start_B, part.completion_BT
        policy = student(trainable, base, config.lora)
        logp_BT = score(policy, model, *inputs, temperature=method.score_temperature).logp_BT
        loss, _ = _loss(logp_BT, teacher_BT, advantage_B, part.mask_BT, entropy_max, method, model.vocab_size)
        return loss * reduction_count(part.mask_BT, method.reduction) / jnp.maximum(total, 1), logp_BT

    def add(gradient: Params, micro: tuple[Any, ...]):
        part_gradient, logp_BT = jax.grad(loss_share, has_aux=True)(trainable, *micro)
        return jax.tree.map(jnp.add, gradient, part_gradient), logp_BT

    zeros = jax.tree.map(jnp.zeros_like, trainable)
    return jax.lax.scan(add, zeros, (batch, teacher_MBT, advantage_MB))


def _loss(student_logp_BT, teacher_BT: TokenScores | None, advantage_B, mask_BT, entropy_max, method, vocab_size: int):
    if teacher_BT is None:
        return grpo_loss(student_logp_BT, advantage_B, mask_BT, reduction=method.reduction)
    return egrsd_loss(
        student_logp_BT,
        teacher_BT.logp_BT,
        teacher_BT.entropy_BT,
        advantage_B,
        mask_BT,
        **_gate(method, vocab_size),
        epsilon=method.epsilon,
        reduction=method.reduction,
        entropy_max=entropy_max,
    )


def _record(student_logp_BT, teacher_BT, advantage_B, mask_BT, method: MethodSettings, vocab_size: int):
    """The numbers of every token, and the share and restored weight of each regime."""
    if teacher_BT is None:
        unknown, one = jnp.full_like(student_logp_BT, jnp.nan), jnp.ones_like(student_logp_BT)
        return TokenRecord(student_logp_BT, unknown, unknown, one, one), {}
    gate = _gate(method, vocab_size)
    gate_BT = entropy_gate(teacher_BT.entropy_BT, mask_BT, **gate)
    weight_BT = ratio_weight(student_logp_BT, teacher_BT.logp_BT, advantage_B, epsilon=method.epsilon)
    gate["window"] = method.window or REGIME_WINDOW
    regimes = regime_metrics(teacher_BT.entropy_BT, mask_BT, **gate)
    return TokenRecord(student_logp_BT, teacher_BT.logp_BT, teacher_BT.entropy_BT, weight_BT, gate_BT), regimes


def _gate(method: MethodSettings, vocab_size: int) -> dict[str, Any]:
    """The arguments that every function of the gate shares."""
    return {
        "gamma": method.gamma,
        "window": method.window,
        "floor": method.floor,
        "scope": method.scope,
        "denominator": method.denominator,
        "vocab_size": vocab_size,
    }


def _join(array_MB: jax.Array) -> jax.Array:
    """[M, B, ...] -> [M B, ...]."""
    return array_MB.reshape(-1, *array_MB.shape[2:])
