"""The jitted step against a plain restatement, in micro-batches of every size, and on a mesh of eight devices."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from egrsd_jax.config import Config, LoraSettings, MethodSettings, TrainSettings
from egrsd_jax.data.batch import make_batch, micro_batches, split_rows
from egrsd_jax.model.config import ModelConfig
from egrsd_jax.model.qwen3 import forward, init_params, output_head
from egrsd_jax.model.sharding import make_mesh, tree_shardings
from egrsd_jax.objective.losses import egrsd_loss, grpo_loss
from egrsd_jax.train.state import init_state, make_optimizer, student
from egrsd_jax.train.step import make_update

MODEL = ModelConfig(
    vocab_size=40,
    hidden_size=16,
    intermediate_size=24,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    rope_theta=10_000.0,
    rms_norm_eps=1e-6,
    tie_embeddings=True,
    max_positions=128,
    dtype="float32",
    rematerialise="full",
)
ROWS = 7  # not a multiple of the micro-batches below: they are filled up with empty rows
LORA, FULL = LoraSettings(rank=4, alpha=8.0), LoraSettings(rank=0)
TRAIN = TrainSettings(batch_size=ROWS, learning_rate=1e-2, max_grad_norm=1e9)  # unclipped, so that a wrong scale shows
METHODS = {
    "egrsd": MethodSettings("egrsd", gamma=0.7, window=0),
    "cl_egrsd": MethodSettings("cl_egrsd", gamma=0.7, window=2, denominator="lookahead", reduction="sequence"),
    "sequence maximum": MethodSettings("egrsd", gamma=0.7, window=0, scope="sequence", score_temperature=1.3),
    "log_vocab": MethodSettings("egrsd", gamma=0.7, window=0, scope="log_vocab"),
    "direction": MethodSettings("direction", gamma=0.0, window=0),
    "grpo": MethodSettings("grpo", gamma=0.0, window=0),
}


def data():
    """Ragged prompts and completions, one of them empty, and advantages of both signs and zero."""
    draw = np.random.default_rng(3)

    def tokens(low: int, high: int) -> list[int]:
        return draw.integers(0, MODEL.vocab_size, draw.integers(low, high)).tolist()

    students = [tokens(2, 6) for _ in range(ROWS)]
    teachers = [tokens(6, 14) for _ in range(ROWS)]
    completions = [tokens(3, 12) for _ in range(ROWS - 1)] + [[]]
    return (students, teachers, completions), np.array([1.2, -0.7, 0.0, 0.4, -1.5, 0.9, 0.3], np.float32)


def base_and_state(config: Config, mesh):
    def make_base():
        return jax.tree.map(lambda leaf: leaf * 2, init_params(jax.random.key(0), MODEL))

    def moved(trainable):  # away from B = 0, where half of an adapter's gradient vanishes
        return jax.tree.map(
            lambda leaf: leaf + 0.05 * jax.random.normal(jax.random.key(leaf.size), leaf.shape), trainable
        )

    base = jax.jit(make_base, out_shardings=tree_shardings(jax.eval_shape(make_base), mesh))()
    optimizer = make_optimizer(config.train)
    state = init_state(jax.random.key(1), base, MODEL, config.lora, optimizer, mesh)
    if config.lora.rank:
        place = jax.jit(moved, out_shardings=tree_shardings(state.trainable, mesh))
        state = state._replace(trainable=place(state.trainable))
    return base, state, optimizer


def updated(config: Config, micro_batch_size: int, mesh):
    base, state, optimizer = base_and_state(config, mesh)
    ragged, advantage = data()
    batch = make_batch(*ragged, rows_multiple=micro_batch_size)
    padded = jnp.pad(jnp.asarray(advantage), (0, len(batch.mask_BT) - ROWS))
    update = make_update(config, MODEL, optimizer, mesh, state)
    return update(
        state.trainable,
        state.optimizer,
        base,
        micro_batches(batch, micro_batch_size),
        split_rows(padded, micro_batch_size),
    )


def restated(config: Config, mesh):
    """The same step in a few lines with dense logits: loss, gradient, and parameters after AdamW."""
    base, state, _ = base_and_state(config, mesh)
    ragged, advantage = data()
    batch, method = make_batch(*ragged), config.method

    def scores(params, lora, tokens, start):
        logits = forward(params, MODEL, tokens, lora=lora) @ output_head(params, MODEL) / method.score_temperature
        at = start[:, None] - 1 + np.arange(batch.mask_BT.shape[1], dtype=np.int32)[None]
        logp = jax.nn.log_softmax(jnp.take_along_axis(logits, at[:, :, None], axis=1))
        chosen = jnp.take_along_axis(logp, batch.completion_BT[:, :, None], axis=2)[..., 0]
        return chosen, -jnp.sum(jnp.exp(logp) * logp, axis=-1)

    def loss(trainable):
        logp, _ = scores(*student(trainable, base, config.lora), batch.student_tokens_BS, batch.student_start_B)
        if method.name == "grpo":
            return grpo_loss(logp, advantage, batch.mask_BT, reduction=method.reduction)[0]
        teacher_logp, entropy = scores(base, None, batch.teacher_tokens_BU, batch.teacher_start_B)
        names = ("gamma", "window", "epsilon", "floor", "scope", "denominator", "reduction")
        settings = {name: getattr(method, name) for name in names}
        return egrsd_loss(
            logp, teacher_logp, entropy, advantage, batch.mask_BT, vocab_size=MODEL.vocab_size, **settings
        )[0]

    return jax.jit(jax.value_and_grad(loss))(state.trainable)


def gradient_of(result) -> dict:
    """The gradient that a step saw: Adam's first moment after one unclipped step, over 1 - b1."""
    return jax.tree.map(lambda moment: moment / (1 - TRAIN.adam_b1), result.optimizer[1][0].mu)


def assert_same_gradient(actual, expected):
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected))
    chex.assert_trees_all_close(jax.device_get(actual), jax.device_get(expected), rtol=1e-4, atol=1e-6 * largest)


@pytest.mark.parametrize(("name", "lora"), [*((name, LORA) for name in METHODS), ("egrsd", FULL)])
def test_step_equals_its_plain_restatement(name, lora):
    config = Config(lora=lora, train=TRAIN, method=METHODS[name])
    mesh = make_mesh(devices=jax.devices()[:1])
    loss, gradient = restated(config, mesh)
    result = updated(config, ROWS, mesh)
    np.testing.assert_allclose(result.metrics["loss"], loss, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(result.metrics["gradient_norm"], optax.tree.norm(gradient), rtol=1e-5)
    assert_same_gradient(gradient_of(result), gradient)


@pytest.mark.parametrize(("name", "size"), [("cl_egrsd", 1), ("egrsd", 3), ("grpo", 2)])
def test_micro_batches_change_nothing(name, size):
    config = Config(lora=LORA, train=TRAIN, method=METHODS[name])
    mesh = make_mesh(devices=jax.devices()[:1])
    whole, parts = updated(config, ROWS, mesh), updated(config, size, mesh)
    assert set(parts.metrics) == set(whole.metrics)
    for figure, value in whole.metrics.items():
        np.testing.assert_allclose(parts.metrics[figure], value, rtol=1e-5, atol=1e-6, err_msg=figure)
    assert_same_gradient(gradient_of(parts), gradient_of(whole))
    np.testing.assert_allclose(parts.tokens.student_logp[:ROWS], whole.tokens.student_logp, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("lora", [LORA, FULL], ids=["lora", "full"])
def test_eight_devices_give_what_one_gives(lora):
    """The same loss, gradient and update on fsdp x tensor, each in its shards."""
    config = Config(lora=lora, train=dataclasses.replace(TRAIN, batch_size=8), method=METHODS["cl_egrsd"])
    one = updated(config, 4, make_mesh(devices=jax.devices()[:1]))
    eight = updated(config, 4, make_mesh(data=1, fsdp=4, tensor=2))
    np.testing.assert_allclose(eight.metrics["loss"], one.metrics["loss"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(eight.metrics["gradient_norm"], one.metrics["gradient_norm"], rtol=1e-5)
    assert_same_gradient(gradient_of(eight), gradient_of(one))
    # Adam's first step is the learning rate times nearly the gradient's sign, whatever its size
    large = jax.tree.map(lambda leaf: np.abs(leaf) > 1e-4, jax.device_get(gradient_of(one)))
    for moved, expected, mask in zip(*map(jax.tree.leaves, (eight.trainable, one.trainable, large)), strict=True):
        np.testing.assert_allclose(np.asarray(moved)[mask], np.asarray(expected)[mask], rtol=1e-4, atol=1e-4)
    mesh = make_mesh(data=1, fsdp=4, tensor=2)
    for tree in (eight.trainable, eight.optimizer):
        for leaf, wanted in zip(*map(jax.tree.leaves, (tree, tree_shardings(tree, mesh))), strict=True):
            assert leaf.sharding.is_equivalent_to(wanted, leaf.ndim)


def test_devices_of_fsdp_share_the_rows():
    """Eight devices hold an eighth of the activations each: none of them computes all rows."""
    config = Config(lora=LORA, train=dataclasses.replace(TRAIN, batch_size=8), method=METHODS["egrsd"])
    draw = np.random.default_rng(0)
    prompts, completions = (draw.integers(0, MODEL.vocab_size, (8, 64)).tolist() for _ in range(2))
    batch = micro_batches(make_batch(prompts, prompts, completions), 8)

    def temporary_bytes(mesh) -> int:
        base, state, optimizer = base_and_state(config, mesh)
        update = make_update(config, MODEL, optimizer, mesh, state)
        lowered = update.lower(state.trainable, state.optimizer, base, batch, jnp.ones((1, 8)))
        return lowered.compile().memory_analysis().temp_size_in_bytes

    assert temporary_bytes(make_mesh(fsdp=8)) < temporary_bytes(make_mesh(devices=jax.devices()[:1])) / 3


def test_base_gets_no_gradient_and_survives_the_step():
    """With an adapter the base weights are the teacher too: a step must leave them as they are, and usable."""
    config = Config(lora=LORA, train=TRAIN, method=METHODS["egrsd"])
    mesh = make_mesh(devices=jax.devices()[:1])
    base, state, optimizer = base_and_state(config, mesh)
    before = jax.device_get(base)
    ragged, advantage = data()
    batch = micro_batches(make_batch(*ragged), ROWS)
    update = make_update(config, MODEL, optimizer, mesh, state)
    result = update(state.trainable, state.optimizer, base, batch, split_rows(jnp.asarray(advantage), ROWS))
    chex.assert_trees_all_equal(jax.device_get(base), before)
    chex.assert_trees_all_equal_shapes(result.optimizer[1][0].mu, result.trainable)


def test_zero_advantages_change_nothing():
    config = Config(lora=LORA, train=TRAIN, method=METHODS["egrsd"])
    mesh = make_mesh(devices=jax.devices()[:1])
    base, state, optimizer = base_and_state(config, mesh)
    before = jax.device_get(state.trainable)
    batch = micro_batches(make_batch(*data()[0]), ROWS)
    update = make_update(config, MODEL, optimizer, mesh, state)
    result = update(state.trainable, state.optimizer, base, batch, jnp.zeros((1, ROWS)))
    chex.assert_trees_all_equal(jax.device_get(result.trainable), before)
    assert result.metrics["loss"] == 0
