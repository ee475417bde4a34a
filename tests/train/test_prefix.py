"""The update reads what prompts begin with once: scores, loss and gradient are those of whole prompts in the rows."""

import dataclasses

import chex
import jax
import numpy as np
import optax
import pytest

from egrsd_jax.config import Config, LoraSettings, RolloutSettings
from egrsd_jax.data.packing import Shape, ordered_rows, packed_rows, step_batch
from egrsd_jax.data.prefix import Prefixes
from egrsd_jax.data.prompts import EncodedProblems
from egrsd_jax.model.sharding import make_mesh
from egrsd_jax.objective.methods import method_settings
from egrsd_jax.train.rows import row_shapes, shared_prefixes
from egrsd_jax.train.step import make_update
from tests.train.test_step import FULL, KEY, LORA, MODEL, STEP, TRAIN, base_and_state, data, inputs_of, replace_train

ROLLOUT = RolloutSettings(max_new_tokens=16)
DRAW = np.random.default_rng(8)
PREFIXES = Prefixes(*(tuple(DRAW.integers(0, MODEL.vocab_size, length).tolist()) for length in (40, 48)))
SGD = optax.sgd(1.0)  # what changes is the gradient itself
PACKED = Shape(rows=2, positions=72, predicted=40)


def updated(config, prefixes, *, packed, model=MODEL, devices=1):
    """The update of rows after these prefixes, or with them in the rows where there are none."""
    mesh = make_mesh(devices=jax.devices()[:1]) if devices == 1 else make_mesh(data=2, fsdp=2, tensor=2)
    base, state, _ = base_and_state(config, mesh)
    state = state._replace(optimizer=SGD.init(state.trainable))
    students, teachers, completions = data()
    views = []
    for prompts, shared, left_out in zip((students, teachers), PREFIXES, prefixes, strict=True):
        prompts = [list(shared[len(left_out) :]) + prompt for prompt in prompts]
        if packed:
            views.append(packed_rows(prompts, completions, [PACKED], max_new_tokens=16))
        else:
            views.append(ordered_rows(prompts, completions, 3, max_new_tokens=16))
    batch = step_batch(*views, completions, max_new_tokens=16)
    config = config if packed else replace_train(config, 3)
    update = make_update(config, model, SGD, mesh, state, prefixes=prefixes)
    before = jax.tree.map(np.array, state.trainable)
    done = jax.device_get(update(state.learned, base, batch, inputs_of(batch), np.int32(STEP), KEY))
    return jax.tree.map(np.subtract, before, done.learned.trainable), done


def assert_alike(one, other):
    gradient, done = one
    wanted, reference = other
    chex.assert_trees_all_close(gradient, wanted, rtol=1e-4, atol=1e-5)
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(wanted)) > 1e-2
    chex.assert_trees_all_close(done.tokens, reference.tokens, rtol=0, atol=1e-5)
    chex.assert_trees_all_close(done.metrics["loss"], reference.metrics["loss"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("method", "lora", "packed"),
    [
        pytest.param("egrsd", LORA, True, id="adapter, shared rows"),
        pytest.param("sdpo", FULL, False, id="all weights, a row each, divergence", marks=pytest.mark.slow),
    ],
)
def test_a_prefix_that_is_read_once_changes_no_score_and_no_gradient(method, lora, packed):
    config = Config(lora=lora, train=TRAIN, method=method_settings(method), rollout=ROLLOUT)
    assert_alike(updated(config, PREFIXES, packed=packed), updated(config, Prefixes(), packed=packed))


@pytest.mark.slow
def test_a_prefix_in_a_window_and_on_a_mesh():
    """A window that ends within the prefix, on eight devices."""
    config = Config(lora=LORA, train=TRAIN, method=method_settings("egrsd"), rollout=ROLLOUT)
    model = MODEL.replace(sliding_window=20, sliding_layers=(True, False))
    eight = updated(config, PREFIXES, packed=True, model=model, devices=8)
    assert_alike(eight, updated(config, Prefixes(), packed=True, model=model))


def encoded(students, teachers):
    return EncodedProblems([], students, teachers, [])


def test_what_the_update_reads_once():
    students, teachers = ([list(prefix) + [number] * 5 for number in range(3)] for prefix in PREFIXES)
    config = Config(method=method_settings("egrsd"), rollout=ROLLOUT, lora=LORA)
    prompts = encoded(students, teachers)
    assert shared_prefixes(config, MODEL, prompts) == PREFIXES
    assert shared_prefixes(config, MODEL.replace(attention="splash"), prompts) == Prefixes()
    dropping = dataclasses.replace(config, lora=LoraSettings(rank=4, dropout=0.1))
    assert shared_prefixes(dropping, MODEL, prompts) == Prefixes(teacher=PREFIXES.teacher)
    alone = dataclasses.replace(config, method=method_settings("grpo"))
    assert shared_prefixes(alone, MODEL, prompts) == Prefixes(student=PREFIXES.student)
    whole, rest = (row_shapes(config, prompts, 1, prefixes) for prefixes in (Prefixes(), PREFIXES))
    assert whole is not None
    assert rest is not None
    assert whole.student[0].positions == 64  # 40 + 5 + 16 tokens, in whole sixteens
    assert rest.student[0].positions == 32  # 5 + 16
