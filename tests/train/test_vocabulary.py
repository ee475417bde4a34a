"""A vocabulary that no tensor axis divides: padded in memory, and in no number and no file."""

from functools import cache

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from egrsd_jax.config import Config
from egrsd_jax.data.packing import Shape, packed_rows, step_batch
from egrsd_jax.model.decoder import init_params
from egrsd_jax.model.hf.hub import load_pretrained, save_pretrained
from egrsd_jax.model.sharding import make_mesh
from egrsd_jax.objective.methods import method_settings
from egrsd_jax.objective.settings import teacher_schedule
from egrsd_jax.rollout.engine import engine_for, sample_keys
from egrsd_jax.rollout.requests import Request, Sampling, complete
from egrsd_jax.train.checkpoint import CheckpointMismatch, Checkpoints
from egrsd_jax.train.state import init_state
from egrsd_jax.train.step import make_update
from tests.train.test_step import FULL, KEY, LORA, MODEL, ROLLOUT, STEP, TRAIN, data, inputs_of

V = 42  # 44 rows over four devices
TINY = MODEL.replace(vocab_size=V, dtype="float32", num_heads=4, num_kv_heads=4, tie_embeddings=False)
SGD = optax.sgd(1.0)
PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12]]


@cache
def mesh_of(devices: int):
    return make_mesh(fsdp=2, tensor=4) if devices == 8 else make_mesh(devices=jax.devices()[:1])


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def folder(request, tmp_path_factory):
    config = TINY.replace(tie_embeddings=request.param)
    params = jax.tree.map(lambda leaf: 3 * leaf, init_params(jax.random.key(0), config))
    save_pretrained(folder := tmp_path_factory.mktemp("model"), config, params)
    return folder


def loaded(folder, devices):
    config, params = load_pretrained(folder, mesh=mesh_of(devices), dtype="float32")
    return config.replace(dtype="float32"), params


def test_padded_rows_are_zero_and_are_not_saved(folder, tmp_path):
    (config, params), (one, whole) = loaded(folder, 8), loaded(folder, 1)
    assert (config.vocab_size, config.vocabulary_padding, one.vocabulary_padding) == (V, 2, 0)
    for name in set(params) & {"embed_tokens", "lm_head"}:
        table = np.asarray(params[name]["weight"])
        assert len(table) == V + 2
        assert not table[V:].any()
        np.testing.assert_array_equal(table[:V], whole[name]["weight"])
    save_pretrained(tmp_path, config, params)
    assert (tmp_path / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert (tmp_path / "config.json").read_text() == (folder / "config.json").read_text()


def completions(folder, devices):
    config, params = loaded(folder, devices)
    engine = engine_for(config, mesh_of(devices), (3,), PROMPTS, max_rows=4, max_new_tokens=12, policy=(params, None))
    keys = sample_keys(jax.random.key(7), range(3), [0] * 3)
    return complete(
        engine, [Request(*each) for each in zip(PROMPTS, [Sampling(max_new_tokens=12)] * 3, keys, strict=True)]
    )


@pytest.mark.slow
@pytest.mark.parametrize("folder", [False], indirect=True, ids=["untied"])
def test_completions_are_those_of_one_device(folder):
    for one, eight in zip(completions(folder, 1), completions(folder, 8), strict=True):
        assert one.tokens == eight.tokens
        np.testing.assert_allclose(one.logp, eight.logp, rtol=0, atol=1e-5)


def updated(folder, devices, lora, method):
    config, base = loaded(folder, devices)
    run = Config(lora=lora, train=TRAIN, method=method_settings(method), rollout=ROLLOUT)
    schedule = teacher_schedule(run.method)
    state = init_state(jax.random.key(1), base, config, lora, SGD, mesh_of(devices), schedule=schedule)
    state = state._replace(trainable=jax.tree.map(lambda leaf: leaf + jnp.where(leaf != 0, 0.01, 0.0), state.trainable))
    students, teachers, texts = data()
    rows = [packed_rows(prompts, texts, [Shape(2, 24, 16)], max_new_tokens=16) for prompts in (students, teachers)]
    batch = step_batch(*rows, texts, max_new_tokens=16)
    update = make_update(run, config, SGD, mesh_of(devices), state)
    return jax.device_get(update(state.learned, base, batch, inputs_of(batch), np.int32(STEP), KEY))


@pytest.mark.slow
def test_updates_are_those_of_one_device(folder):
    """All weights of the tied model, and an adapter of the other with a divergence over the whole vocabulary."""
    tied = load_pretrained(folder)[0].tie_embeddings
    lora, method = (FULL, "egrsd") if tied else (LORA, "opsd")
    one, eight = (updated(folder, devices, lora, method) for devices in (1, 8))
    trained = dict(eight.learned.trainable)
    for name in set(trained) & {"embed_tokens", "lm_head"}:
        assert not trained[name]["weight"][V:].any()
        trained[name] = {"weight": trained[name]["weight"][:V]}
    chex.assert_trees_all_close(trained, one.learned.trainable, rtol=1e-4, atol=1e-5)
    chex.assert_trees_all_close(eight.tokens, one.tokens, rtol=1e-5, atol=1e-5)
    chex.assert_trees_all_close(eight.metrics, one.metrics, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("folder", [True], indirect=True, ids=["tied"])
def test_all_weights_resume_on_a_mesh_with_the_same_padding(folder, tmp_path):
    config = Config(lora=FULL, train=TRAIN)
    model, base = loaded(folder, 8)
    eight = init_state(jax.random.key(1), base, model, FULL, SGD, mesh_of(8))
    checkpoints = Checkpoints(tmp_path, config)
    checkpoints.save(eight._replace(step=jnp.int32(1)))
    chex.assert_trees_all_equal(checkpoints.restore(eight).trainable, eight.trainable)
    model, base = loaded(folder, 1)
    one = init_state(jax.random.key(1), base, model, FULL, SGD, mesh_of(1))
    with pytest.raises(CheckpointMismatch, match=r"an embedding of 44 rows, and this mesh takes 42: .* model\.tensor"):
        checkpoints.restore(one)
    checkpoints.close()
