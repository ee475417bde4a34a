"""One gradient step: teacher scores, student scores, loss, clipped AdamW. Jitted, sharded, its state donated.

The models read rows that may hold several completions (`data.packing`): M micro-batches of R rows, S positions, P
predicted tokens. Every number of a token is then placed among all of the step's, B completions of T tokens, and the
objective never sees the rows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from egrsd_jax.config import Config
from egrsd_jax.data.packing import Rows, StepBatch
from egrsd_jax.data.prefix import Prefixes
from egrsd_jax.model.config import ModelConfig
from egrsd_jax.model.decoder import Params, output_head, read_prefix, segment_positions
from egrsd_jax.model.lora import position_keys
from egrsd_jax.model.sharding import batch_sharding, hidden_sharding, replicated, split_rows, tree_shardings
from egrsd_jax.objective.contrast import contrast, modulation, split_weight
from egrsd_jax.objective.controls import rearranged_gate
from egrsd_jax.objective.gate import gate, gate_arguments, gate_signal
from egrsd_jax.objective.importance import corrected_loss
from egrsd_jax.objective.method import Method
from egrsd_jax.objective.methods import METHODS
from egrsd_jax.objective.settings import (
    ContrastSettings,
    GateSettings,
    KeptTokensSettings,
    LowestTokensSettings,
    MethodSettings,
    teacher_mix,
    teacher_schedule,
)
from egrsd_jax.objective.signals import Signals
from egrsd_jax.ops.attention import Prefix
from egrsd_jax.ops.keys import Use, key_for
from egrsd_jax.ops.masked import (
    fill_padding,
    lowest_weight,
    masked_quantile,
    reduce_tokens,
    reduction_count,
)
from egrsd_jax.policy import Policy, student
from egrsd_jax.train.batch_signals import BatchScores, CompletionInputs, batch_signals, step_progress
from egrsd_jax.train.log import TokenRecord, Watched, step_metrics, step_profiles, token_record, watched_metrics
from egrsd_jax.train.score import Prediction, Scored, divergence, divergence_names, predict, scored
from egrsd_jax.train.state import (
    Learned,
    TrainState,
    before_training,
    next_teacher,
    state_shardings,
    teacher,
    watch_of,
)


class Update(NamedTuple):
    """A step's result: what was learned, scalars and profiles to log, and numbers of every token."""

    learned: Learned
    metrics: dict[str, jax.Array]
    profiles: dict[str, Any]
    tokens: TokenRecord


def make_update(
    config: Config,
    model: ModelConfig,
    optimizer: optax.GradientTransformation,
    mesh: jax.sharding.Mesh,
    state: TrainState,
    *,
    stop_ids: tuple[int, ...] = (),
    prefixes: Prefixes = Prefixes(),  # noqa: B008  (a tuple)
) -> Callable[..., Update]:
    """The jitted step: (learned, base, batch, inputs, step, key) -> Update; with `rollout.ahead` a seventh argument is
    the trained weights of the version that sampled, `TrainState.older[0]`.

    `batch` and `inputs` are placed by `batch_shardings`. H_max and the count that the loss is divided by are those of
    all micro-batches and devices together, so neither changes the result. `step` counts the steps before this one, and
    `key` is the raw data of the run's random key. The mass of the end-of-turn tokens `stop_ids` is logged. The rows of
    a policy hold what follows its prefix in `prefixes`.
    """
    shardings = state_shardings(state, mesh).learned
    everywhere: Any = replicated(mesh)
    return jax.jit(
        Step(config, model, optimizer, mesh, stop_ids, prefixes).update,
        donate_argnums=0,
        in_shardings=(shardings, *[None] * (6 if config.rollout.ahead else 5)),
        out_shardings=Update(shardings, everywhere, everywhere, everywhere),
    )


def batch_shardings(batch: StepBatch, mesh: jax.sharding.Mesh) -> StepBatch:
    """Where a step takes each array of its batch: rows split over data and fsdp, the rest whole on every device."""
    by_rows, everywhere = batch_sharding(mesh, axis=1), replicated(mesh)
    rows = Rows(by_rows, by_rows, by_rows, by_rows, everywhere)
    student, teacher, contrast = ((rows,) * len(view) for view in (batch.student, batch.teacher, batch.contrast))
    of_contrast = None if batch.contrast_BK is None else everywhere
    return StepBatch(student, teacher, everywhere, everywhere, contrast, of_contrast)


@dataclass(frozen=True, eq=False)
class Step:
    """A gradient step of one run: what is constant in it, and the functions that `jax.jit` traces."""

    config: Config
    model: ModelConfig
    optimizer: optax.GradientTransformation
    mesh: jax.sharding.Mesh
    stop_ids: tuple[int, ...] = ()
    prefixes: Prefixes = Prefixes()  # noqa: RUF009  (a tuple)

    @property
    def settings(self) -> MethodSettings:
        """The method's settings."""
        return self.config.method

    @property
    def method(self) -> Method:
        """The method's record: its loss and what it needs."""
        return METHODS[self.config.method.name]

    def update(
        self,
        learned: Learned,
        base: Params,
        batch: StepBatch,
        inputs: CompletionInputs,
        step,
        key_data,
        version: Params | None = None,
    ) -> Update:
        """The whole step; see `make_update`."""
        run_key = jax.random.wrap_key_data(key_data)
        batch_scores = self.score_batch(learned, base, batch, key_for(run_key, Use.CONTROL_GATE, step), version)
        keys = dropout_keys(run_key, step, len(batch.mask_BT)) if self.config.lora.dropout else None
        loss, gradient, signals, watched = self.gradient(learned, base, batch, inputs, batch_scores, keys, step)
        # Gathered once, they are logged without a collective for each metric: cheaper, and with gloo so many
        # independent collectives, each host in its own order, may wait for each other for ever.
        logged = signals, watched
        logged = jax.lax.with_sharding_constraint(logged, jax.tree.map(lambda _: replicated(self.mesh), logged))
        signals, watched = logged
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
        watch, progress = watch_of(learned), None
        if watch is not None:
            progress = step_progress(inputs, signals)
            norms["teacher_retired"] = watch.retired
        kept = next_teacher(learned, trained, step, self.settings, progress)
        return Update(
            Learned(trained, optimizer_state, kept),
            step_metrics(signals, self.settings, self.model.vocab_size) | watched_metrics(watched, signals) | norms,
            step_profiles(signals, self.settings),
            token_record(signals, self.settings),
        )

    def score_batch(
        self, learned: Learned, base: Params, batch: StepBatch, gate_key: jax.Array, version: Params | None = None
    ) -> BatchScores:
        """Scores of the whole batch under the policies that the method compares with, and the gate's weights;
        `version` is what was trained of the older student that sampled it, if one did."""
        settings = self.settings
        batch_scores = BatchScores()
        if self.method.teacher:
            policy, keeps_hidden = self._teacher(learned, base), settings.divergence is not None
            (logp, entropy, end), hidden = self._score(policy, batch, "teacher", keeps_hidden=keeps_hidden)
            batch_scores = batch_scores._replace(teacher_logp=logp, teacher_entropy=entropy, teacher_hidden=hidden)
            batch_scores = batch_scores._replace(teacher_end=end)
            if isinstance(settings, ContrastSettings):
                modulation = self._modulation(settings, policy, batch, logp)
                split = split_weight(modulation != 0, batch.mask_BT, weight=settings.modulated_weight)
                batch_scores = batch_scores._replace(modulation=modulation, split=split)
        if settings.scores_student:
            policy = student(learned.trainable, base, self.config.lora)
            own, _ = self._score(policy, batch, "student")
            batch_scores = batch_scores._replace(student_entropy=own.entropy_BT)
            if isinstance(settings, LowestTokensSettings):
                lowest = lowest_weight(own.logp_BT, batch.mask_BT, settings.lowest_share)
                batch_scores = batch_scores._replace(lowest=lowest)
            if isinstance(settings, GateSettings):
                entropies = batch_scores.teacher_entropy, own.entropy_BT, own.logp_BT
                batch_scores = batch_scores._replace(gate_signal=gate_signal(settings.signal, *entropies))
        if isinstance(settings, GateSettings):
            signal = batch_scores.teacher_entropy if batch_scores.gate_signal is None else batch_scores.gate_signal
            batch_scores = batch_scores._replace(gate=self._gate(settings, signal, batch.mask_BT, gate_key))
        if settings.scores_initial:
            before, _ = self._score(before_training(learned, base, self.config.lora), batch, "student")
            batch_scores = batch_scores._replace(initial_logp=before.logp_BT)
        if version is not None:
            older, _ = self._score(student(version, base, self.config.lora), batch, "student")
            batch_scores = batch_scores._replace(version_logp=older.logp_BT)
        return batch_scores

    def gradient(
        self,
        learned: Learned,
        base: Params,
        batch: StepBatch,
        inputs: CompletionInputs,
        batch_scores: BatchScores,
        dropout_keys_B: jax.Array | None,
        step: jax.Array,
    ) -> tuple[jax.Array, Params, Signals, Watched]:
        """The whole batch's loss and gradient, one micro-batch after another, and the signals of its completions.

        What all prompts begin with is read once: every micro-batch gives the gradient of its keys and values, and the
        sum of them is carried back to the parameters.
        """
        settings, method = self.settings, self.method
        reduction = {"reduction": settings.reduction, "max_length": self.config.rollout.max_new_tokens}
        zeros_BT = jnp.zeros(batch.mask_BT.shape, jnp.float32)
        total = jnp.maximum(reduction_count(batch.mask_BT, **reduction), 1.0)
        threshold = self._entropy_threshold(batch, batch_scores)
        watch = watch_of(learned)
        retired = None if watch is None else watch.retired > 0
        signals_of = partial(batch_signals, settings, inputs, batch_scores, threshold, retired, step)

        def loss_share(trainable: Params, prefix: Prefix | None, rows: Rows):
            """The micro-batch's share of the batch's loss, and the student's scores of it."""
            policy = student(trainable, base, self.config.lora, dropout_keys=_position_keys(dropout_keys_B, rows))
            prediction, temperature = self._predict(policy, rows, prefix), settings.score_temperature
            own = scored(prediction, _chosen(batch, rows), temperature=temperature, stop_ids=self.stop_ids)
            numbers = {"student_logp_BT": own.logp_BT, "entropy": jax.lax.stop_gradient(own.entropy_BT)}
            if own.end_BT is not None:
                numbers["end"] = own.end_BT
            if settings.divergence:
                head_VD = output_head(self._teacher(learned, base).params, self.model).T
                hidden = jnp.take(batch_scores.teacher_hidden, rows.place_RP, axis=0, mode="clip")
                privileged = Prediction(split_rows(hidden), head_VD)
                kind = settings.divergence
                numbers |= divergence(prediction, privileged, kind, temperature=temperature)
            placed = {name: self._place(array_RP, rows, zeros_BT) for name, array_RP in numbers.items()}
            mask_BT = batch.mask_BT & self._place(jnp.ones(rows.place_RP.shape, bool), rows, zeros_BT.astype(bool))
            signals = signals_of(mask_BT, placed)
            loss = reduce_tokens(corrected_loss(method, signals, settings), mask_BT, **reduction)
            return loss * (reduction_count(mask_BT, **reduction) / total), placed

        def prefix_of(trainable: Params) -> Prefix | None:
            return self._prefix(student(trainable, base, self.config.lora), "student")

        prefix, carried_back = jax.vjp(prefix_of, learned.trainable)

        def add(sums: Any, rows: Rows) -> Any:
            of_both = jax.value_and_grad(loss_share, argnums=(0, 1), has_aux=True)
            (loss, placed), (gradient, of_prefix) = of_both(learned.trainable, prefix, rows)
            of_prefix = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), of_prefix)
            return jax.tree.map(jnp.add, sums, (loss, gradient, of_prefix, placed))

        logged = ("entropy", "end") if self.stop_ids else ("entropy",)
        names = ("student_logp_BT", *divergence_names(settings.divergence), *logged)
        zeros = (
            jnp.float32(0.0),
            jax.tree.map(jnp.zeros_like, learned.trainable),
            jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), prefix),
            dict.fromkeys(names, zeros_BT),
        )
        loss, gradient, of_prefix, placed = _over_micro_batches(add, zeros, batch.student)
        if prefix is not None:
            of_prefix = jax.tree.map(lambda leaf, like: leaf.astype(like.dtype), of_prefix, prefix)
            gradient = jax.tree.map(jnp.add, gradient, carried_back(of_prefix)[0])
        ends = {}
        if self.stop_ids:
            is_end_BT = jnp.isin(batch.completion_BT, jnp.asarray(self.stop_ids, batch.completion_BT.dtype))
            ends = {"student_end_BT": placed["end"], "teacher_end_BT": batch_scores.teacher_end, "ends_BT": is_end_BT}
        return loss, gradient, signals_of(batch.mask_BT, placed), Watched(placed["entropy"], **ends)

    def _teacher(self, learned: Learned, base: Params) -> Policy:
        schedule, mix = teacher_schedule(self.settings), teacher_mix(self.settings)
        return jax.lax.stop_gradient(teacher(learned, base, self.config.lora, schedule, mix=mix))

    def _predict(self, policy: Policy, rows: Rows, prefix: Prefix | None) -> Prediction:
        """A policy's predictions of the completion tokens of some rows, [R, P]."""
        segment_RS = None if self.config.train.micro_batch_size else rows.completion_RS
        return predict(policy, self.model, rows.tokens_RS, rows.before_RP, segment_BS=segment_RS, prefix=prefix)

    def _prefix(self, policy: Policy, prompts: str) -> Prefix | None:
        """What a policy makes of that with which all prompts of the `student` or the `teacher` begin."""
        tokens = getattr(self.prefixes, prompts)
        return read_prefix(policy.params, self.model, tokens, lora=policy.lora) if tokens else None

    def _score(
        self, policy: Policy, batch: StepBatch, prompts: str, *, keeps_hidden: bool = False
    ) -> tuple[Scored, jax.Array | None]:
        """A policy's scores of all completions after the prompts of the `student` or the `teacher`, [B, T], and on
        demand the hidden states that predict them, [B T, D]."""
        prefix = self._prefix(policy, prompts)

        def add(sums: tuple[Scored, jax.Array | None], rows: Rows):
            prediction, temperature = self._predict(policy, rows, prefix), self.settings.score_temperature
            numbers = scored(prediction, _chosen(batch, rows), temperature=temperature, stop_ids=self.stop_ids)
            placed = jax.tree.map(lambda array_RP, into_BT: self._place(array_RP, rows, into_BT), numbers, sums[0])
            if (hidden := sums[1]) is not None:
                tokens_ND = prediction.hidden_BTD.reshape(-1, self.model.hidden_size)
                hidden = self._spread(hidden.at[rows.place_RP.ravel()].set(tokens_ND, mode="drop"))
            return placed, hidden

        zeros_BT = jnp.zeros(batch.mask_BT.shape, jnp.float32)
        size = (zeros_BT.size, self.model.hidden_size)
        hidden = self._spread(jnp.zeros(size, self.model.dtype)) if keeps_hidden else None
        zeros = Scored(zeros_BT, zeros_BT, zeros_BT if self.stop_ids else None)
        return _over_micro_batches(add, (zeros, hidden), getattr(batch, prompts))

    def _modulation(
        self, settings: ContrastSettings, policy: Policy, batch: StepBatch, logp_BT: jax.Array
    ) -> jax.Array:
        """What the contrast with the teacher that reads wrong completions adds to the advantage, [B, T]."""
        repeat = partial(jnp.repeat, repeats=settings.contrasts, axis=0)  # B K completions in the place of B
        wide = StepBatch((), batch.contrast, repeat(batch.completion_BT), repeat(batch.mask_BT))
        (wrong, _, _), _ = self._score(policy, wide, "teacher")
        wrong_logp_BKT = wrong.reshape(*batch.contrast_BK.shape, -1)
        contrast_BT = fill_padding(contrast(logp_BT, wrong_logp_BKT, batch.contrast_BK), batch.mask_BT)
        scale, strength = settings.contrast_scale, settings.contrast_strength
        return modulation(contrast_BT, scale=scale, strength=strength, least=settings.least_modulation)

    def _place(self, numbers_RP: jax.Array, rows: Rows, into_BT: jax.Array) -> jax.Array:
        """`into_BT`, numbers of all completions' tokens, with those of some rows in their places."""
        numbers_RP = jax.lax.with_sharding_constraint(numbers_RP, replicated(self.mesh))
        placed = into_BT.ravel().at[rows.place_RP.ravel()].set(numbers_RP.ravel(), mode="drop")
        return placed.reshape(into_BT.shape)

    def _spread(self, hidden_ND: jax.Array) -> jax.Array:
        """Hidden states of all tokens, their hidden size split over the devices that share a batch."""
        return jax.lax.with_sharding_constraint(hidden_ND, hidden_sharding(self.mesh, self.model.hidden_size))

    def _gate(self, settings: GateSettings, signal_BT: jax.Array, mask_BT: jax.Array, key: jax.Array) -> jax.Array:
        """The weights of the gate or of its control arm, [B, T], by the whole batch's H_max."""
        arguments = gate_arguments(settings, self.model.vocab_size)
        omega_BT = gate(signal_BT, mask_BT, **arguments, direction=settings.gate_direction).omega_BT
        return omega_BT if settings.gate == "entropy" else rearranged_gate(omega_BT, mask_BT, settings.gate, key)

    def _entropy_threshold(self, batch: StepBatch, batch_scores: BatchScores) -> jax.Array | None:
        """The student entropy that the kept share of the batch's tokens reaches, nats; None where all are kept."""
        if not isinstance(self.settings, KeptTokensSettings):
            return None
        return masked_quantile(batch_scores.student_entropy, batch.mask_BT, 1.0 - self.settings.kept_share)


def _over_micro_batches(add: Callable[[Any, Rows], Any], sums: Any, shapes: tuple[Rows, ...]) -> Any:
    """`sums` after `add` has been given every micro-batch that holds something, one after another, shape by shape.

    How many there are is known only when it runs, so that one program serves all steps. Planned without data, with
    `micro_batches` None, all are given.
    """
    for rows in shapes:

        def turn(number: jax.Array, sums: Any, rows: Rows = rows) -> Any:
            part = rows._replace(micro_batches=None)
            return add(
                sums, jax.tree.map(lambda array_M: jax.lax.dynamic_index_in_dim(array_M, number, keepdims=False), part)
            )

        most = len(rows.tokens_RS)
        sums = jax.lax.fori_loop(0, most if rows.micro_batches is None else rows.micro_batches, turn, sums)
    return sums


def _chosen(batch: StepBatch, rows: Rows) -> jax.Array:
    """The tokens whose places are `place_RP`, [R, P]; any token where there is none."""
    return jnp.take(batch.completion_BT.ravel(), rows.place_RP, mode="clip")


def dropout_keys(run_key: jax.Array, step: jax.Array, completions: int) -> jax.Array:
    """A key for every completion of a step, [B]."""
    return jax.vmap(partial(key_for, run_key, Use.DROPOUT, step))(jnp.arange(completions))


def _position_keys(dropout_keys_B: jax.Array | None, rows: Rows) -> jax.Array | None:
    """A key for every position, [R, S], the same in whatever row and micro-batch its completion is."""
    if dropout_keys_B is None:
        return None
    keys_RS = jnp.take(dropout_keys_B, jnp.maximum(rows.completion_RS - 1, 0), axis=0)
    return position_keys(keys_RS, segment_positions(rows.completion_RS))
