"""The two programs of a training step, the update and the rollout, lowered from shapes alone: no weight is ever made.

All that the plan assumes of how they are called is in this file.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from egrsd_jax.config import Config
from egrsd_jax.data.batch import bucket_length
from egrsd_jax.data.packing import Rows, StepBatch
from egrsd_jax.model.cache import empty_cache
from egrsd_jax.model.config import ModelConfig
from egrsd_jax.model.decode import abstract_weights
from egrsd_jax.model.decoder import Params, abstract_params
from egrsd_jax.model.lora import init_lora
from egrsd_jax.model.sharding import (
    BATCH,
    TENSOR,
    batch_sharding,
    batch_shards,
    make_mesh,
    replicated,
    round_up,
    tree_shardings,
)
from egrsd_jax.objective.methods import METHODS
from egrsd_jax.objective.settings import contrasts, teacher_schedule, watches
from egrsd_jax.ops import splash_attention
from egrsd_jax.ops.cached_attention import BLOCK
from egrsd_jax.plan.shapes import model_shape
from egrsd_jax.plan.targets import Target
from egrsd_jax.policy import student
from egrsd_jax.rollout import programs
from egrsd_jax.rollout.programs import SamplingState
from egrsd_jax.rollout.sampling import SamplingRules
from egrsd_jax.train.batch_signals import CompletionInputs
from egrsd_jax.train.setup import with_adapter
from egrsd_jax.train.state import TrainState, init_state, make_optimizer, state_shardings
from egrsd_jax.train.step import make_update

STOP_TOKENS = 2  # Qwen ends a completion with one of two


class Lowered(NamedTuple):
    """A program before it is compiled, and its inputs besides weights and optimizer state."""

    program: jax.stages.Lowered
    inputs: Any


class Lengths(NamedTuple):
    """Positions of a batch, as `data.batch` pads them: a prompt's bucket, and the completion's."""

    student: int
    teacher: int
    completion: int


@dataclass(frozen=True)
class Workload:
    """A configuration on a mesh: arrays by shape, dtype and sharding, without values."""

    config: Config
    model: ModelConfig
    mesh: Mesh
    base: Params
    state: TrainState
    note: str | None  # on attention, where the platform's own kernel cannot take this model

    @property
    def rows(self) -> int:
        """Completions of a step, filled up to what the mesh divides evenly."""
        return round_up(self.config.train.batch_size, batch_shards(self.mesh))

    @property
    def max_rows(self) -> int:
        """Completions decoded together."""
        return round_up(self.config.rollout.max_rows, batch_shards(self.mesh))

    @property
    def rollouts(self) -> int:
        """How often the rollout's program runs in a step."""
        return -(-self.config.train.batch_size // self.max_rows)

    @property
    def micro_batch(self) -> int:
        """Rows whose gradient is taken at once: as the training loop rounds them, or one for each part of the mesh."""
        return round_up(self.config.train.micro_batch_size or 1, batch_shards(self.mesh))


def make_workload(config: Config, target: Target) -> Workload:
    """The configuration on the target's devices. Raises ValueError where its mesh or its model does not fit them, and
    ValueError or OSError for an adapter of `lora.path` that cannot be read."""
    config = with_adapter(config)
    settings = config.model
    mesh = make_mesh(settings.data, settings.fsdp, settings.tensor, devices=target.devices)
    model = model_shape(settings.path).replace(dtype=settings.dtype, rematerialise=settings.rematerialise)
    model = model.divided_over(mesh.shape[TENSOR])
    note = None
    if target.is_tpu:  # `auto` would choose for the platform that compiles, and not for the one that is compiled for
        note = _splash_obstacle(model, mesh)
        model = model.replace(attention="xla" if note else "splash")
    base = abstract_params(model, settings.param_dtype)
    base = _with_shardings(base, tree_shardings(base, mesh))
    make = partial(
        init_state,
        config=model,
        lora=config.lora,
        optimizer=make_optimizer(config.train),
        mesh=mesh,
        schedule=teacher_schedule(config.method),
        ahead=config.rollout.ahead,
        watches=watches(config.method),
    )
    start = None
    if config.lora.path is not None:  # of which a frozen teacher keeps a copy
        lora = partial(init_lora, config=model, rank=config.lora.rank, alpha=config.lora.alpha)
        start = jax.eval_shape(lora, jax.random.key(0)).layers
    state = jax.eval_shape(make, jax.random.key(0), base, start=start)
    return Workload(config, model, mesh, base, _with_shardings(state, state_shardings(state, mesh)), note)


def lower_update(workload: Workload, lengths: Lengths, micro_batch: int) -> Lowered:
    """The gradient step of a whole batch, in micro-batches of so many rows, each with one completion of full length.

    Shorter completions share rows of the same length, so that a real step takes fewer of them (`plan.padding`).
    """
    config, mesh, state = workload.config, workload.mesh, workload.state
    stop_ids = tuple(range(STOP_TOKENS))
    update = make_update(config, workload.model, make_optimizer(config.train), mesh, state, stop_ids=stop_ids)
    count = -(-workload.rows // micro_batch)
    of_rows, everywhere = batch_sharding(mesh, axis=1), replicated(mesh)
    batch_size, most = config.train.batch_size, config.rollout.max_new_tokens

    def view(prompt: int, prompts: int = 1) -> tuple[Rows, ...]:
        def rows(positions: int) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((prompts * count, micro_batch, positions), jnp.int32, sharding=of_rows)

        width, predicted = prompt + lengths.completion, lengths.completion
        return (Rows(rows(width), rows(width), rows(predicted), rows(predicted), micro_batches=None),)

    def completions(dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((batch_size, *shape), dtype, sharding=everywhere)

    teacher = view(lengths.teacher) if METHODS[config.method.name].teacher else ()
    batch = StepBatch(view(lengths.student), teacher, completions(jnp.int32, most), completions(jnp.bool_, most))
    if wrong := contrasts(config.method):
        batch = batch._replace(contrast=view(lengths.teacher, prompts=wrong), contrast_BK=completions(jnp.bool_, wrong))
    completion_inputs = CompletionInputs(
        advantage_B=completions(jnp.float32),
        weight_B=completions(jnp.float32),
        demonstration_B=completions(jnp.bool_),
        sampled_logp_BT=completions(jnp.float32, most),
    )
    step = jax.ShapeDtypeStruct((), jnp.int32, sharding=everywhere)
    key = jax.ShapeDtypeStruct(_key_shape(), jnp.uint32, sharding=everywhere)
    inputs = (batch, completion_inputs, step, key)
    return Lowered(update.lower(state.learned, workload.base, *inputs, *state.older[:1]), inputs)


def lower_rollout(workload: Workload, lengths: Lengths) -> Lowered:
    """Prefill and decode of `max_rows` completions of the greatest length, in a cache that holds all of it at once.

    The engine compiles the same in parts: prompts a few at a time, and chunks of decode steps with a cache that grows.
    """
    config, mesh, max_rows = workload.config, workload.mesh, workload.max_rows
    policy = student(workload.state.trainable, workload.base, config.lora)
    prefill_model = workload.model.replace(dtype=config.rollout.weights_dtype or workload.model.dtype)
    of_rows, everywhere, words = batch_sharding(mesh), replicated(mesh), _key_shape()[0]

    def rows(dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((max_rows, *shape), dtype, sharding=of_rows)

    def rollout(params, lora, weights, tokens_BP, length_B, sampling, stop_ids, score_temperature):
        prompts = programs.prefill_prompts(params, lora, tokens_BP, length_B, config=prefill_model)
        empty = programs.empty_state(
            workload.model, rows=max_rows, capacity=_cache_capacity(workload, lengths), cache_dtype=workload.model.dtype
        )
        empty = jax.lax.with_sharding_constraint(empty, programs.state_sharding(workload.model, mesh))
        rows_B = jnp.arange(max_rows)
        started = programs.insert(empty, prompts, rows_B, rows_B, sampling)
        return programs.decode_chunk(
            weights,
            lora,
            started,
            jnp.ones(max_rows, bool),
            stop_ids,
            score_temperature,
            jnp.int32(max_rows),
            config=workload.model,
            steps=config.rollout.max_new_tokens,
        )[1]

    inputs = (
        abstract_weights(policy.params, workload.model, config.rollout.weights_dtype),
        rows(jnp.int32, lengths.student),
        rows(jnp.int32),
        SamplingState(
            key_data=rows(jnp.uint32, words),
            rules=SamplingRules(rows(jnp.float32), rows(jnp.int32), rows(jnp.float32), rows(jnp.float32)),
            max_new_tokens=rows(jnp.int32),
        ),
        jax.ShapeDtypeStruct((STOP_TOKENS,), jnp.int32, sharding=everywhere),
        jax.ShapeDtypeStruct((), jnp.float32, sharding=everywhere),
    )
    return Lowered(jax.jit(rollout).lower(policy.params, policy.lora, *inputs), inputs)


def padded_lengths(config: Config, student_prompt: int, teacher_prompt: int) -> Lengths:
    """The buckets that prompts of so many tokens, and completions up to their limit, are padded to."""
    return Lengths(*map(bucket_length, (student_prompt, teacher_prompt, config.rollout.max_new_tokens)))


def cache_bytes(workload: Workload, lengths: Lengths) -> float:
    """Bytes per device of the rollout's keys and values: rows are sharded over data and fsdp, heads over tensor."""
    cache = jax.eval_shape(
        partial(
            empty_cache,
            workload.model,
            workload.max_rows,
            _cache_capacity(workload, lengths),
            workload.model.dtype,
        )
    )
    heads = workload.mesh.shape[TENSOR]
    shards = batch_shards(workload.mesh) * (heads if workload.model.num_kv_heads % heads == 0 else 1)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(cache.layers)) / shards


def _cache_capacity(workload: Workload, lengths: Lengths) -> int:
    return round_up(lengths.student + workload.config.rollout.max_new_tokens, BLOCK)


def bytes_per_device(tree: Any) -> int:
    """Bytes of a tree of sharded shapes that each device holds."""
    return sum(_shard_bytes(leaf) for leaf in jax.tree.leaves(tree))


def replicated_arrays(tree: Any, at_least: int) -> list[tuple[str, int]]:
    """Names and bytes of the arrays of at least so many bytes that every one of several devices holds whole."""
    replicated = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        size = leaf.size * leaf.dtype.itemsize
        if size >= at_least and leaf.sharding.num_devices > 1 and leaf.sharding.is_fully_replicated:
            replicated.append((jax.tree_util.keystr(path, simple=True, separator="/"), size))
    return replicated


def _key_shape() -> tuple[int, ...]:
    """The shape of a random key's raw data."""
    return jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0))).shape


def _with_shardings(tree: Any, shardings: Any) -> Any:
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree, shardings
    )


def _shard_bytes(leaf: jax.ShapeDtypeStruct) -> int:
    entries = 1
    for size in leaf.sharding.shard_shape(leaf.shape):
        entries *= size
    return entries * leaf.dtype.itemsize


def _splash_obstacle(model: ModelConfig, mesh: Mesh) -> str | None:
    """Why splash attention cannot take this model on this mesh, or None."""
    heads = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(BATCH))

    def of(count: int) -> Any:  # it reads no more of an array than its shape and sharding
        return jax.ShapeDtypeStruct((batch_shards(mesh), 1, count, model.head_dim), model.dtype, sharding=heads)

    return splash_attention.obstacle(of(model.num_heads), of(model.num_kv_heads), BATCH, TENSOR)
