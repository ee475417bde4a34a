"""Completions against the model's own teacher-forced scores, and what they may and may not depend on."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egrsd_jax.model.config import ModelConfig
from egrsd_jax.model.lora import init_lora
from egrsd_jax.model.qwen3 import forward, init_params, output_head
from egrsd_jax.model.sharding import make_mesh, tree_shardings
from egrsd_jax.rollout.engine import Engine, Sampling, sample_keys
from egrsd_jax.rollout.generate import generate

CONFIG = ModelConfig(
    vocab_size=32,
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
)
STOPS = (3, 4)
PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13, 14, 15, 16], [17, 18], [5, 6, 7]]
SAMPLING = Sampling(temperature=1.2, top_k=20, top_p=0.95, max_new_tokens=12)


@pytest.fixture(scope="module")
def policy():
    params = jax.tree.map(lambda leaf: 8 * leaf, init_params(jax.random.key(0), CONFIG))
    lora = init_lora(jax.random.key(1), CONFIG, rank=2, alpha=4.0)
    lora = jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(jax.random.key(leaf.size), leaf.shape), lora)
    return params, lora


def one_device():
    return make_mesh(devices=jax.devices()[:1])


def draw(policy, prompts=PROMPTS, keys=None, *, mesh=None, slots=5, sampling=SAMPLING, **kwargs):
    keys = sample_keys(jax.random.key(7), range(len(prompts)), [0] * len(prompts)) if keys is None else keys
    return Engine(CONFIG, mesh or one_device(), STOPS, slots=slots).generate(*policy, prompts, keys, sampling, **kwargs)


@pytest.mark.parametrize("score_temperature", [1.0, 1.3])
def test_log_probabilities_are_the_policys_own(policy, score_temperature):
    params, lora = policy
    completions = draw(policy, score_temperature=score_temperature)
    assert len({len(completion.tokens) for completion in completions}) > 1  # some stopped early
    for prompt, completion in zip(PROMPTS, completions, strict=True):
        row = jnp.array([prompt + completion.tokens])
        logits = forward(params, CONFIG, row, lora=lora)[0] @ output_head(params, CONFIG) / score_temperature
        logp = jax.nn.log_softmax(logits)[np.arange(len(completion.tokens)) + len(prompt) - 1, completion.tokens]
        np.testing.assert_allclose(completion.logp, logp, rtol=0, atol=1e-4)


def test_ends_at_a_stop_token_or_at_the_cap(policy):
    for completion in draw(policy, PROMPTS * 6, slots=30):
        assert (completion.tokens[-1] in STOPS) == completion.stopped
        assert not set(completion.tokens[:-1]) & set(STOPS)
        assert completion.stopped or len(completion.tokens) == SAMPLING.max_new_tokens


def test_a_completion_depends_on_its_prompt_and_key_alone(policy):
    """Not on the batch beside it, the number of slots, its place, or the mesh."""
    keys = sample_keys(jax.random.key(7), range(5), [0] * 5)
    tokens = [completion.tokens for completion in draw(policy)]
    assert tokens[0] != tokens[4]  # the same prompt, another key
    assert [completion.tokens for completion in draw(policy, slots=2)] == tokens
    backwards = draw(policy, PROMPTS[::-1], keys[::-1])
    assert [completion.tokens for completion in backwards[::-1]] == tokens
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    sharded = jax.tree.map(
        lambda tree: jax.device_put(tree, tree_shardings(tree, mesh)), policy[0], is_leaf=lambda _: True
    )
    lora = dataclasses.replace(
        policy[1], layers=jax.device_put(policy[1].layers, tree_shardings(policy[1].layers, mesh))
    )
    assert [completion.tokens for completion in draw((sharded, lora), mesh=mesh, slots=8)] == tokens


def test_samples_have_keys_of_their_own(policy):
    first, second = (draw(policy, keys=sample_keys(jax.random.key(7), range(5), [sample] * 5)) for sample in (0, 1))
    assert [completion.tokens for completion in first] != [completion.tokens for completion in second]


def test_one_program_serves_a_bucket(policy):
    """Other prompts, other lengths within the bucket, other temperatures: nothing is compiled again."""
    engine = Engine(CONFIG, one_device(), STOPS, slots=4)
    compiled = generate._cache_size()
    for prompts, temperature in ([[5] * 3], 1.0), ([[6] * 16, [7]], 0.3), ([[9] * 9] * 4, 0.0):
        keys = sample_keys(jax.random.key(0), range(len(prompts)), [1] * len(prompts))
        engine.generate(*policy, prompts, keys, dataclasses.replace(SAMPLING, temperature=temperature))
    assert generate._cache_size() - compiled == 1


def test_greedy_ignores_its_key(policy):
    greedy = dataclasses.replace(SAMPLING, temperature=0.0)
    first, second = (
        draw(policy, keys=sample_keys(jax.random.key(seed), range(5), [0] * 5), sampling=greedy) for seed in (0, 1)
    )
    assert [completion.tokens for completion in first] == [completion.tokens for completion in second]
    chex.assert_trees_all_equal(first[0].tokens, first[4].tokens)


@pytest.mark.parametrize(
    ("field", "value"), [("temperature", -1.0), ("top_p", 0.0), ("top_k", -1), ("min_p", 2.0), ("max_new_tokens", 0)]
)
def test_bad_settings_are_named(field, value):
    with pytest.raises(ValueError, match=field):
        Sampling(**{field: value})


def test_bad_calls_are_named(policy):
    with pytest.raises(ValueError, match="slots is 3"):
        Engine(CONFIG, make_mesh(data=2, fsdp=2, tensor=2), STOPS, slots=3)
    with pytest.raises(ValueError, match="5 prompts and 2 keys"):
        draw(policy, keys=sample_keys(jax.random.key(0), [0, 1], [0, 0]))
    with pytest.raises(ValueError, match="prompt 1 is empty"):
        draw(policy, [[5], []], sample_keys(jax.random.key(0), [0, 1], [0, 0]))
