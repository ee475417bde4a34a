"""One gradient step: teacher scores, student scores, loss, clipped AdamW. Jitted, sharded, its state donated.

M micro-batches of B rows, T completion positions.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from egrsd_jax.config import Config
from egrsd_jax.data.batch import Batch
from egrsd_jax.model.config import ModelConfig
from egrsd_jax.model.decoder import Params, output_head
from egrsd_jax.model.sharding import batch_sharding, replicated, tree_shardings
from egrsd_jax.objective.controls import rearranged_gate
from egrsd_jax.objective.gate import entropy_gate, gate_arguments
from egrsd_jax.objective.method import Method
from egrsd_jax.objective.methods import METHODS
from egrsd_jax.objective.settings import (
    GateSettings,
    GroupSettings,
    KeptTokensSettings,
    MethodSettings,
    teacher_schedule,
)
from egrsd_jax.objective.signals import Signals
from egrsd_jax.ops.masked import fill_padding, masked_quantile, reduce_tokens, reduction_count
from egrsd_jax.policy import Policy, initial, student
from egrsd_jax.train.log import TokenRecord, step_metrics, step_profiles, token_record
from egrsd_jax.train.score import Prediction, divergence, predict, scores
from egrsd_jax.train.state import Learned, TrainState, next_teacher, state_shardings, teacher


class CompletionInputs(NamedTuple):
    """What a step is told of every completion beside its tokens, [M, B] and [M, B, T]; see `Signals`."""

    advantage_B: Any
    weight_B: Any
    demonstration_B: Any
    sampled_logp_BT: Any


class Update(NamedTuple):
    """A step's result: what was learned, scalars and profiles to log, and numbers of every token."""

    learned: Learned
    metrics: dict[str, jax.Array]
    profiles: dict[str, Any]
    tokens: TokenRecord


class BatchScores(NamedTuple):
    """What is found out of a whole step before its gradient, [M, B, T]; None where the method has no use for it."""

    teacher_logp: Any = None
    teacher_entropy: Any = None
    teacher_hidden: Any = None  # [M, B, T, D], where a divergence looks beyond the sampled token
    student_entropy: Any = None
    initial_logp: Any = None
    gate: Any = None


def make_update(
    config: Config,
    model: ModelConfig,
    optimizer: optax.GradientTransformation,
    mesh: jax.sharding.Mesh,
    state: TrainState,
) -> Callable[[Learned, Params, Batch, CompletionInputs, Any, Any], Update]:
    """The jitted step: (learned, base, batch, inputs, step, key) -> Update.

    Arrays of `batch` and `inputs` lead with the micro-batches. H_max and the count that the loss is divided by are
    those of all micro-batches and devices together, so neither changes the result. `step` counts the steps before this
    one, and `key` is the raw data of a random key that is this step's own.
    """
    shardings = state_shardings(state, mesh).learned
    by_rows = batch_sharding(mesh, axis=1)
    everywhere: Any = replicated(mesh)
    return jax.jit(
        partial(_update, config=config, model=model, optimizer=optimizer, mesh=mesh),
        donate_argnums=0,
        in_shardings=(shardings, None, by_rows, by_rows, None, None),
        out_shardings=Update(shardings, everywhere, everywhere, everywhere),
    )


def _update(
    learned: Learned,
    base,
    batch: Batch,
    inputs: CompletionInputs,
    step,
    key_data,
    *,
    config: Config,
    model,
    optimizer,
    mesh,
) -> Update:
    gate_key, dropout_key = jax.random.split(jax.random.wrap_key_data(key_data))
    batch_scores = score_batch(learned, base, batch, gate_key, config, model)
    threshold = _entropy_threshold(batch_scores, batch, config)
    loss, gradient, signals = _gradient(
        learned, base, batch, inputs, batch_scores, threshold, step, dropout_key, config, model
    )
    # Gathered once, they are reported on without a collective of each figure's own: cheaper, and with gloo such a crowd
    # of independent collectives, each host in its own order, may wait for each other for ever.
    signals = jax.lax.with_sharding_constraint(signals, jax.tree.map(lambda _: replicated(mesh), signals))
    gradient = jax.lax.with_sharding_constraint(gradient, tree_shardings(gradient, mesh))
    with jax.numpy_dtype_promotion("standard"):  # optax mixes Python, int32 and float32 numbers
        change, optimizer_state = optimizer.update(gradient, learned.optimizer, learned.trainable)
    trained: Any = optax.apply_updates(learned.trainable, change)
    norms = {
        "loss": loss,
        "gradient_norm": optax.tree.norm(gradient),
        "update_norm": optax.tree.norm(change),
        "parameter_norm": optax.tree.norm(trained),
    }
    return Update(
        Learned(trained, optimizer_state, next_teacher(learned, trained, step, config.method)),
        step_metrics(signals, config.method, model.vocab_size) | norms,
        step_profiles(signals, config.method),
        token_record(signals, config.method),
    )


def score_batch(
    learned: Learned, base: Params, batch: Batch, gate_key, config: Config, model: ModelConfig
) -> BatchScores:
    """Everything about the whole step that the method wants to know before the gradient."""
    settings, method = _method(config)
    temperature = settings.score_temperature

    def under_teacher(part: Batch):
        policy = _teacher(learned, base, config)
        prediction = predict(policy, model, part.teacher_tokens_BU, part.teacher_start_B, part.completion_BT.shape[1])
        return scores(
            prediction, part.completion_BT, temperature=temperature
        ), prediction.hidden_BTD if settings.divergence else None

    def under(policy: Policy, part: Batch):
        prediction = predict(policy, model, part.student_tokens_BS, part.student_start_B, part.completion_BT.shape[1])
        return scores(prediction, part.completion_BT, temperature=temperature)

    batch_scores = BatchScores()
    if method.teacher:
        (logp, entropy), hidden = jax.lax.map(under_teacher, batch)
        batch_scores = batch_scores._replace(teacher_logp=logp, teacher_entropy=entropy, teacher_hidden=hidden)
    if isinstance(settings, GateSettings):
        gate = entropy_gate(_join(entropy), _join(batch.mask_BT), **gate_arguments(settings, model.vocab_size))
        if settings.gate != "entropy":
            gate = rearranged_gate(gate, _join(batch.mask_BT), settings.gate, gate_key)
        batch_scores = batch_scores._replace(gate=gate.reshape(batch.mask_BT.shape))
    if isinstance(settings, KeptTokensSettings):
        policy = student(learned.trainable, base, config.lora)
        batch_scores = batch_scores._replace(student_entropy=jax.lax.map(partial(under, policy), batch).entropy_BT)
    if isinstance(settings, GroupSettings) and settings.kl:
        batch_scores = batch_scores._replace(initial_logp=jax.lax.map(partial(under, initial(base)), batch).logp_BT)
    return batch_scores


def _entropy_threshold(batch_scores: BatchScores, batch: Batch, config: Config) -> jax.Array | None:
    """The student entropy that the share of tokens to be kept reaches, over the whole step."""
    settings = config.method
    if not isinstance(settings, KeptTokensSettings):
        return None
    return masked_quantile(_join(batch_scores.student_entropy), _join(batch.mask_BT), 1.0 - settings.kept_share)


def _gradient(
    learned: Learned,
    base,
    batch: Batch,
    inputs: CompletionInputs,
    batch_scores: BatchScores,
    threshold,
    step,
    dropout_key,
    config: Config,
    model,
) -> tuple[jax.Array, Params, Signals]:
    """The whole step's loss and gradient, one micro-batch after the other, and the signals of all its rows."""
    settings, method = _method(config)
    reduction = {"reduction": settings.reduction, "max_length": config.rollout.max_new_tokens}
    total = jnp.maximum(reduction_count(_join(batch.mask_BT), **reduction), 1.0)
    teacher_head = output_head(_teacher(learned, base, config).params, model).T

    def loss_share(trainable: Params, part: Batch, part_inputs: CompletionInputs, part_scores: BatchScores, keys_B):
        policy = student(trainable, base, config.lora, dropout_keys_B=keys_B)
        prediction = predict(policy, model, part.student_tokens_BS, part.student_start_B, part.completion_BT.shape[1])
        logp_BT = scores(prediction, part.completion_BT, temperature=settings.score_temperature).logp_BT
        apart_BT = None
        if settings.divergence:
            privileged = Prediction(part_scores.teacher_hidden, teacher_head)
            apart_BT = divergence(prediction, privileged, settings.divergence, temperature=settings.score_temperature)
        losses_BT = method.token_loss(
            _signals(part, part_inputs, part_scores, logp_BT, apart_BT, threshold, step), settings
        )
        share = reduction_count(part.mask_BT, **reduction) / total
        return reduce_tokens(losses_BT, part.mask_BT, **reduction) * share, (logp_BT, apart_BT)

    def add(so_far: tuple[jax.Array, Params], micro: tuple[Any, ...]):
        (loss, outputs), gradient = jax.value_and_grad(loss_share, has_aux=True)(learned.trainable, *micro)
        return jax.tree.map(jnp.add, so_far, (loss, gradient)), outputs

    zeros = jnp.float32(0.0), jax.tree.map(jnp.zeros_like, learned.trainable)
    keys = _row_keys(dropout_key, batch.mask_BT.shape[:2]) if config.lora.dropout else None
    (loss, gradient), (logp, apart) = jax.lax.scan(add, zeros, (batch, inputs, batch_scores, keys))
    whole = (batch, inputs, batch_scores._replace(teacher_hidden=None), logp, apart)
    batch, inputs, batch_scores, logp_BT, apart_BT = jax.tree.map(_join, whole)
    return loss, gradient, _signals(batch, inputs, batch_scores, logp_BT, apart_BT, threshold, step)


def _signals(
    batch: Batch, inputs: CompletionInputs, batch_scores: BatchScores, logp_BT, divergence_BT, threshold, step
) -> Signals:
    def known(array_BT):
        return None if array_BT is None else fill_padding(array_BT, batch.mask_BT)

    return Signals(
        mask_BT=batch.mask_BT,
        student_logp_BT=fill_padding(logp_BT, batch.mask_BT),
        sampled_logp_BT=fill_padding(inputs.sampled_logp_BT, batch.mask_BT),
        advantage_B=inputs.advantage_B,
        weight_B=inputs.weight_B,
        demonstration_B=inputs.demonstration_B,
        step=step,
        teacher_logp_BT=known(batch_scores.teacher_logp),
        teacher_entropy_BT=known(batch_scores.teacher_entropy),
        gate_BT=batch_scores.gate,
        divergence_BT=known(divergence_BT),
        student_entropy_BT=known(batch_scores.student_entropy),
        student_entropy_threshold=threshold,
        initial_logp_BT=known(batch_scores.initial_logp),
    )


def _method(config: Config) -> tuple[MethodSettings, Method]:
    return config.method, METHODS[config.method.name]


def _teacher(learned: Learned, base: Params, config: Config) -> Policy:
    return jax.lax.stop_gradient(teacher(learned, base, config.lora, teacher_schedule(config.method)))


def _row_keys(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """A key for every row, [M, B], the same whatever the micro-batches."""
    numbers = jnp.arange(shape[0] * shape[1])
    return jax.vmap(partial(jax.random.fold_in, key))(numbers).reshape(shape)


def _join(array_MB: jax.Array) -> jax.Array:
    """[M, B, ...] -> [M B, ...]."""
    return array_MB.reshape(-1, *array_MB.shape[2:])
