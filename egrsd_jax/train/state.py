"""What changes from step to step: trained weights, optimizer, teacher, reward moments, and how they are sharded."""

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from egrsd_jax.config import LoraSettings, TrainSettings
from egrsd_jax.model.config import ModelConfig
from egrsd_jax.model.decoder import Params
from egrsd_jax.model.lora import init_lora
from egrsd_jax.model.sharding import replicated, tree_shardings
from egrsd_jax.objective.reward import RunningMoments, init_moments
from egrsd_jax.objective.settings import MethodSettings, TeacherSettings
from egrsd_jax.ops.keys import Use, key_for
from egrsd_jax.policy import Policy, initial, student
from egrsd_jax.train.watch import Seen, Watch, first_watch, next_watch


class TrainState(NamedTuple):
    """Everything that a checkpoint keeps, all of it arrays.

    `trainable` is the adapter's layers, or all weights without an adapter, in float32. `teacher` is their average or
    copy for a teacher that follows the student. Where a run trains an adapter of `lora.path` further, it is that
    adapter for a teacher that is frozen, and for a method without one; else it is empty. For a teacher that is earned
    or may retire it is `{"weights": that, "watch": Watch}`. `position` counts the
    problems that were taken; with the seed it determines which comes next. `key` is the run's random key,
    of which `ops.keys.key_for` makes the key of each use.

    `older` are what `trainable` was before each of the last `rollout.ahead` steps, the oldest first, and the initial
    ones where there were not as many. Those at index i sample the completions of step `step + i`, and `trainable` those
    of the step after all of these: which weights sample which completions follows from the state alone.
    """

    trainable: Params
    optimizer: Any  # optax's state
    teacher: Params
    moments: RunningMoments
    step: jax.Array
    position: jax.Array
    key: jax.Array
    older: tuple[Params, ...] = ()

    @property
    def learned(self) -> "Learned":
        """The part that a gradient step changes."""
        return Learned(self.trainable, self.optimizer, self.teacher)


class Learned(NamedTuple):
    """What a gradient step changes; see `TrainState`."""

    trainable: Params
    optimizer: Any  # optax's state
    teacher: Params


def teacher(
    learned: Learned, base: Params, settings: LoraSettings, schedule: str | None, *, mix: float = 1.0
) -> Policy:
    """The weights that the teacher scores with: the frozen initial ones, the student's, or those kept for it.

    `mix` is the share of the student's in those that follow it; the rest are the base's. Of an adapter that is its
    scale, which is exact while the adapter began at nothing (`Config` refuses it with lora.path).
    """
    if schedule == "frozen":
        return before_training(learned, base, settings)
    policy = student(learned.trainable if schedule == "current" else kept_weights(learned), base, settings)
    return mixed(policy, base, mix)


def mixed(policy: Policy, base: Params, mix: float) -> Policy:
    """The policy with `mix` of what it has learned; see `teacher`."""
    if mix == 1:
        return policy
    if policy.lora is not None:
        return policy._replace(lora=replace(policy.lora, scale=mix * policy.lora.scale))
    share = jnp.float32(mix)
    params = jax.tree.map(lambda own, old: share * own + (1.0 - share) * old.astype(own.dtype), policy.params, base)
    return policy._replace(params=params)


def kept_weights(learned: Learned) -> Params:
    """The weights that are kept for the teacher; empty where none are."""
    return learned.teacher["weights"] if watch_of(learned) is not None else learned.teacher


def watch_of(learned: Learned) -> Watch | None:
    """What is kept of how training went, where the teacher depends on it."""
    return learned.teacher.get("watch")


def before_training(learned: Learned, base: Params, settings: LoraSettings) -> Policy:
    """The policy that a run with a frozen teacher, or none, began with: the base, with the adapter of `lora.path`."""
    return initial(base) if settings.path is None else student(kept_weights(learned), base, settings)


def next_teacher(
    learned: Learned, trained: Params, step: jax.Array, method: MethodSettings, progress: Seen | None = None
) -> Params:
    """The kept teacher after a step that made `trained`: moved a little towards it, or at times a copy of it.

    `progress` is the step's, for a teacher that depends on it.
    """
    if not isinstance(method, TeacherSettings):
        return learned.teacher
    kept, watch, earned = kept_weights(learned), watch_of(learned), jnp.bool_(False)
    if watch is not None:
        assert progress is not None
        watch, earned = next_watch(watch, progress, method)
    if method.teacher == "ema":
        decay = jnp.float32(method.teacher_decay)
        kept = jax.tree.map(lambda old, new: decay * old + (1.0 - decay) * new, kept, trained)
    elif method.teacher in ("copy", "earned"):
        due = earned if method.teacher == "earned" else (step + 1) % jnp.int32(method.teacher_every) == 0
        kept = jax.tree.map(lambda old, new: jnp.where(due, new, old), kept, trained)
    return kept if watch is None else {"weights": kept, "watch": watch}


def next_older(state: TrainState) -> tuple[Params, ...]:
    """`older` after the next step; a copy, since the step donates what it trains."""
    return (*state.older[1:], copied(state.trainable)) if state.older else ()


@jax.jit
def copied(weights: Params) -> Params:
    """Arrays of their own, in the same shards."""
    return jax.tree.map(jnp.copy, weights)


def make_optimizer(settings: TrainSettings) -> optax.GradientTransformation:
    """Global-norm clip, then AdamW at a learning rate that is constant after its warm-up."""
    rate: Any = settings.learning_rate
    if settings.warmup_steps:
        rate = optax.linear_schedule(rate / settings.warmup_steps, rate, settings.warmup_steps - 1)
    return optax.chain(
        optax.clip_by_global_norm(settings.max_grad_norm),
        optax.adamw(
            rate,
            b1=settings.adam_b1,
            b2=settings.adam_b2,
            eps=settings.adam_eps,
            weight_decay=settings.weight_decay,
        ),
    )


def init_state(
    key: jax.Array,
    base: Params,
    config: ModelConfig,
    lora: LoraSettings,
    optimizer: optax.GradientTransformation,
    mesh: jax.sharding.Mesh,
    *,
    schedule: str | None = "frozen",
    start: Params | None = None,
    watches: bool = False,
    ahead: int = 0,
) -> TrainState:
    """The state before the first step, in its shards; `key` is the run's, `schedule` that of the teacher's weights,
    `start` the layers of an adapter that is trained further, and `ahead` that of the rollouts. With `watches` the
    teacher depends on how it goes."""
    kept = ("ema", "copy", "earned") if start is None else ("ema", "copy", "earned", "frozen", None)

    def make(base: Params, start: Params | None) -> TrainState:
        if lora.rank == 0:
            trainable = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), base)
        elif start is not None:
            trainable = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), start)
        else:
            trainable = init_lora(key_for(key, Use.ADAPTER), config, rank=lora.rank, alpha=lora.alpha).layers
        weights = jax.tree.map(jnp.copy, trainable) if schedule in kept else {}
        return TrainState(
            trainable=trainable,
            optimizer=optimizer.init(trainable),
            teacher={"weights": weights, "watch": first_watch()} if watches else weights,
            moments=init_moments(),
            step=jnp.int32(0),
            position=jnp.int32(0),
            key=jax.random.key_data(key),
            older=tuple(jax.tree.map(jnp.copy, trainable) for _ in range(ahead)),
        )

    return jax.jit(make, out_shardings=state_shardings(jax.eval_shape(make, base, start), mesh))(base, start)


def state_shardings(state: TrainState, mesh: jax.sharding.Mesh) -> Any:
    """How a state is sharded: optimizer moments as the parameters they belong to, all else replicated."""
    everywhere = jax.tree.map(lambda _: replicated(mesh), state)
    return everywhere._replace(
        trainable=tree_shardings(state.trainable, mesh),
        optimizer=tree_shardings(state.optimizer, mesh),
        teacher=tree_shardings(state.teacher, mesh),
        older=tuple(tree_shardings(weights, mesh) for weights in state.older),
    )
