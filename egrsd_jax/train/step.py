"""One gradient step: teacher scores, student scores, loss, clipped AdamW. Jitted, sharded, its state donated.

M micro-batches of B rows, T completion positions.
"""

from collections.abc import Callable
from dataclasses import dataclass
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
from egrsd_jax.ops.keys import Use, key_for
from egrsd_jax.ops.masked import fill_padding, masked_quantile, reduce_tokens, reduction_count
from egrsd_jax.ops.scores import TokenScores
from egrsd_jax.policy import Policy, initial, student
from egrsd_jax.train.log import TokenRecord, step_metrics, step_profiles, token_record
from egrsd_jax.train.score import Prediction, divergence, predict, scores
from egrsd_jax.train.state import Learned, TrainState, next_teacher, state_shardings, teacher


class CompletionInputs(NamedTuple):
    """What a step takes of every completion in addition to its tokens, [M, B] and [M, B, T]; see `Signals`."""

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
    """What is computed of the whole batch before the gradient, [M, B, T]; None where the method has no use for it."""

    teacher_logp: Any = None
    teacher_entropy: Any = None
    teacher_hidden: Any = None  # [M, B, T, D], for a divergence over more than the sampled token
    student_entropy: Any = None
    initial_logp: Any = None
    gate: Any = None


class MicroBatch(NamedTuple):
    """All that the loss needs of some rows: [M, B, ...] of the whole batch, [B, ...] of one micro-batch."""

    batch: Batch
    inputs: CompletionInputs
    scores: BatchScores
    dropout_keys_B: Any  # None without dropout


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
    one, and `key` is the raw data of the run's random key.
    """
    shardings = state_shardings(state, mesh).learned
    by_rows = batch_sharding(mesh, axis=1)
    everywhere: Any = replicated(mesh)
    return jax.jit(
        Step(config, model, optimizer, mesh).update,
        donate_argnums=0,
        in_shardings=(shardings, None, by_rows, by_rows, None, None),
        out_shardings=Update(shardings, everywhere, everywhere, everywhere),
    )


@dataclass(frozen=True, eq=False)
class Step:
    """A gradient step of one run: what is constant in it, and the functions that `jax.jit` traces."""

    config: Config
    model: ModelConfig
    optimizer: optax.GradientTransformation
    mesh: jax.sharding.Mesh

    @property
    def settings(self) -> MethodSettings:
        """The method's settings."""
        return self.config.method

    @property
    def method(self) -> Method:
        """The method's record: its loss and what it needs."""
        return METHODS[self.config.method.name]

    def update(self, learned: Learned, base: Params, batch: Batch, inputs: CompletionInputs, step, key_data) -> Update:
        """The whole step; see `make_update`."""
        run_key = jax.random.wrap_key_data(key_data)
        batch_scores = self.score_batch(learned, base, batch, key_for(run_key, Use.CONTROL_GATE, step))
        keys = dropout_keys(run_key, step, batch.mask_BT.shape[:2]) if self.config.lora.dropout else None
        loss, gradient, signals = self.gradient(learned, base, MicroBatch(batch, inputs, batch_scores, keys), step)
        # Gathered once, they are logged without a collective for each metric: cheaper, and with gloo so many
        # independent collectives, each host in its own order, may wait for each other for ever.
        signals = jax.lax.with_sharding_constraint(signals, jax.tree.map(lambda _: replicated(self.mesh), signals))
        gradient = jax.lax.with_sharding_constraint(gradient, tree_shardings(gradient, self.mesh))
        with jax.numpy_dtype_promotion("standard"):  # optax mixes Python, int32 and float32 numbers
            change, optimizer_state = self.optimizer.update(gradient, learned.optimizer, learned.trainable)
        trained: Any = optax.apply_updates(learned.trainable, change)
        norms = {
            "loss": loss,
            "gradient_norm": optax.tree.norm(gradient),
            "update_norm": optax.tree.norm(change),
            "parameter_norm": optax.tree.norm(trained),
        }
        return Update(
            Learned(trained, optimizer_state, next_teacher(learned, trained, step, self.settings)),
            step_metrics(signals, self.settings, self.model.vocab_size) | norms,
            step_profiles(signals, self.settings),
            token_record(signals, self.settings),
        )

    def score_batch(self, learned: Learned, base: Params, batch: Batch, gate_key: jax.Array) -> BatchScores:
        """Scores of the whole batch under the policies that the method compares with, and the gate's weights."""
        settings = self.settings
        batch_scores = BatchScores()
        if self.method.teacher:
            score = partial(self._score_under_teacher, self._teacher(learned, base))
            (logp, entropy), hidden = jax.lax.map(score, batch)
            batch_scores = batch_scores._replace(teacher_logp=logp, teacher_entropy=entropy, teacher_hidden=hidden)
            if isinstance(settings, GateSettings):
                batch_scores = batch_scores._replace(gate=self._gate(settings, entropy, batch.mask_BT, gate_key))
        if isinstance(settings, KeptTokensSettings):
            score = partial(self._score, student(learned.trainable, base, self.config.lora))
            batch_scores = batch_scores._replace(student_entropy=jax.lax.map(score, batch).entropy_BT)
        if isinstance(settings, GroupSettings) and settings.kl:
            score = partial(self._score, initial(base))
            batch_scores = batch_scores._replace(initial_logp=jax.lax.map(score, batch).logp_BT)
        return batch_scores

    def gradient(
        self, learned: Learned, base: Params, whole: MicroBatch, step: jax.Array
    ) -> tuple[jax.Array, Params, Signals]:
        """The whole batch's loss and gradient, one micro-batch after another, and the signals of all its rows."""
        settings, method = self.settings, self.method
        reduction = {"reduction": settings.reduction, "max_length": self.config.rollout.max_new_tokens}
        total = jnp.maximum(reduction_count(_join(whole.batch.mask_BT), **reduction), 1.0)
        entropy_threshold = self._entropy_threshold(whole)

        def loss_share(trainable: Params, part: MicroBatch):
            """The micro-batch's share of the batch's loss, and the student's scores of it."""
            policy = student(trainable, base, self.config.lora, dropout_keys_B=part.dropout_keys_B)
            prediction = self._predict(policy, part.batch)
            logp_BT = scores(prediction, part.batch.completion_BT, temperature=settings.score_temperature).logp_BT
            divergence_BT = None
            if settings.divergence:
                head_VD = output_head(self._teacher(learned, base).params, self.model).T
                privileged = Prediction(part.scores.teacher_hidden, head_VD)
                temperature = settings.score_temperature
                divergence_BT = divergence(prediction, privileged, settings.divergence, temperature=temperature)
            signals = _signals(part, logp_BT, divergence_BT, entropy_threshold, step)
            mask_BT = part.batch.mask_BT
            loss = reduce_tokens(method.token_loss(signals, settings), mask_BT, **reduction)
            return loss * (reduction_count(mask_BT, **reduction) / total), (logp_BT, divergence_BT)

        def add(sums: tuple[jax.Array, Params], part: MicroBatch):
            (loss, outputs), gradient = jax.value_and_grad(loss_share, has_aux=True)(learned.trainable, part)
            return jax.tree.map(jnp.add, sums, (loss, gradient)), outputs

        zeros = jnp.float32(0.0), jax.tree.map(jnp.zeros_like, learned.trainable)
        (loss, gradient), outputs = jax.lax.scan(add, zeros, whole)
        logged = whole._replace(scores=whole.scores._replace(teacher_hidden=None), dropout_keys_B=None)
        joined, (logp_BT, divergence_BT) = jax.tree.map(_join, (logged, outputs))
        return loss, gradient, _signals(joined, logp_BT, divergence_BT, entropy_threshold, step)

    def _teacher(self, learned: Learned, base: Params) -> Policy:
        return jax.lax.stop_gradient(teacher(learned, base, self.config.lora, teacher_schedule(self.settings)))

    def _predict(self, policy: Policy, part: Batch) -> Prediction:
        """A policy's predictions of the completions after the student's prompt."""
        length = part.completion_BT.shape[1]
        return predict(policy, self.model, part.student_tokens_BS, part.student_start_B, length)

    def _score(self, policy: Policy, part: Batch) -> TokenScores:
        return scores(self._predict(policy, part), part.completion_BT, temperature=self.settings.score_temperature)

    def _score_under_teacher(self, policy: Policy, part: Batch) -> tuple[TokenScores, jax.Array | None]:
        """Scores after the teacher's prompt, and the hidden states where a divergence needs them."""
        length = part.completion_BT.shape[1]
        prediction = predict(policy, self.model, part.teacher_tokens_BU, part.teacher_start_B, length)
        token_scores = scores(prediction, part.completion_BT, temperature=self.settings.score_temperature)
        return token_scores, prediction.hidden_BTD if self.settings.divergence else None

    def _gate(self, settings: GateSettings, entropy: jax.Array, mask: jax.Array, key: jax.Array) -> jax.Array:
        """The weights of the gate or of its control arm, [M, B, T], by the whole batch's H_max."""
        omega = entropy_gate(_join(entropy), _join(mask), **gate_arguments(settings, self.model.vocab_size))
        if settings.gate != "entropy":
            omega = rearranged_gate(omega, _join(mask), settings.gate, key)
        return omega.reshape(mask.shape)

    def _entropy_threshold(self, whole: MicroBatch) -> jax.Array | None:
        """The student entropy that the kept share of the batch's tokens reaches, nats; None where all are kept."""
        if not isinstance(self.settings, KeptTokensSettings):
            return None
        entropy, mask = _join(whole.scores.student_entropy), _join(whole.batch.mask_BT)
        return masked_quantile(entropy, mask, 1.0 - self.settings.kept_share)


def _signals(part: MicroBatch, logp_BT, divergence_BT, entropy_threshold, step) -> Signals:
    batch, inputs, batch_scores = part.batch, part.inputs, part.scores

    def filled(array_BT):
        return None if array_BT is None else fill_padding(array_BT, batch.mask_BT)

    return Signals(
        mask_BT=batch.mask_BT,
        student_logp_BT=fill_padding(logp_BT, batch.mask_BT),
        sampled_logp_BT=fill_padding(inputs.sampled_logp_BT, batch.mask_BT),
        advantage_B=inputs.advantage_B,
        weight_B=inputs.weight_B,
        demonstration_B=inputs.demonstration_B,
        step=step,
        teacher_logp_BT=filled(batch_scores.teacher_logp),
        teacher_entropy_BT=filled(batch_scores.teacher_entropy),
        gate_BT=batch_scores.gate,
        divergence_BT=filled(divergence_BT),
        student_entropy_BT=filled(batch_scores.student_entropy),
        student_entropy_threshold=entropy_threshold,
        initial_logp_BT=filled(batch_scores.initial_logp),
    )


def dropout_keys(run_key: jax.Array, step: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """A key for every row of a step, [M, B], the same whatever the micro-batches."""
    rows = jnp.arange(shape[0] * shape[1])
    return jax.vmap(partial(key_for, run_key, Use.DROPOUT, step))(rows).reshape(shape)


def _join(array_MB: jax.Array) -> jax.Array:
    """[M, B, ...] -> [M B, ...]."""
    return array_MB.reshape(-1, *array_MB.shape[2:])
