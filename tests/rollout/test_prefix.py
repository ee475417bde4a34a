"""A common prefix is read and kept once, and completions are those of prompts that were read whole."""

import re

import jax
import numpy as np
import pytest

from egrsd_jax.data.prefix import MULTIPLE, SHORTEST, common_prefix
from egrsd_jax.model.decoder import init_params
from egrsd_jax.model.lora import init_lora
from egrsd_jax.model.sharding import make_mesh
from egrsd_jax.rollout import sizes
from egrsd_jax.rollout.engine import engine_for, sample_keys
from egrsd_jax.rollout.requests import Request, Sampling, complete
from tests.rollout.test_engine import CONFIG, STOPS, make, sharded

PREFIX = np.random.default_rng(0).integers(5, 30, 40).tolist()
PROMPTS = [PREFIX + own for own in ([5, 6, 7], [8], [*range(5, 25)], [9, 9])]
STRANGERS = [[4, 5, 6], PREFIX, PREFIX[:10], PREFIX[1:] + [7] * 9]
SAMPLING = Sampling(temperature=1.2, top_k=20, top_p=0.95, max_new_tokens=40)


@pytest.fixture(scope="module")
def policy():
    """Of logits as even as a real model's: sharper ones make much of the last bit."""
    params = jax.tree.map(lambda leaf: 2 * leaf, init_params(jax.random.key(0), CONFIG))
    lora = init_lora(jax.random.key(1), CONFIG, rank=2, alpha=4.0)
    return params, jax.tree.map(
        lambda leaf: leaf + 0.1 * jax.random.normal(jax.random.key(leaf.size), leaf.shape), lora
    )


def asked(prompts=PROMPTS, samples=2):
    keys = sample_keys(jax.random.key(7), range(samples * len(prompts)), [0] * samples * len(prompts))
    return [Request(prompt, SAMPLING, key) for prompt, key in zip(prompts * samples, keys, strict=True)]


def assert_alike(one, other):
    assert [completion.tokens for completion in one] == [completion.tokens for completion in other]
    for left, right in zip(one, other, strict=True):
        np.testing.assert_allclose(left.logp, right.logp, rtol=0, atol=1e-5)


def test_prompts_after_a_prefix_complete_as_prompts_read_whole(policy):
    requests = asked(PROMPTS + STRANGERS)
    whole, shared = make(policy, prompt=64, max_rows=4), make(policy, prompt=64, max_rows=4, prefix=PREFIX)
    assert_alike(complete(shared, requests), complete(whole, requests))
    assert shared.used >= {"prefix of 40", "prefill 1 prompts of 24 after a prefix of 40", "prefill 1 prompts of 64"}
    assert shared.used <= set(shared.program_names())


def test_rows_hold_no_token_of_the_prefix(policy, monkeypatch):
    """Rows that are refilled twice, in caches that grow, and no prompt is longer than a row of the whole ones."""
    monkeypatch.setattr(sizes, "SMALLEST_CAPACITY", 8)
    monkeypatch.setattr(sizes, "SMALLEST_PROMPT", 4)
    sampling = Sampling(temperature=1.2, max_new_tokens=10)
    requests = [Request(request.prompt, sampling, request.key) for request in asked()]
    whole, shared = make(policy, prompt=64, max_rows=2), make(policy, prompt=64, max_rows=2, prefix=PREFIX)
    assert_alike(complete(shared, requests), complete(whole, requests))

    def capacities(engine):
        names = [re.fullmatch(r"decode \d+ rows at capacity (\d+)", name) for name in engine.used]
        return {int(match[1]) for match in names if match}

    assert capacities(shared) == {16, 32}  # at most 20 tokens of its own, and 10 new ones
    assert capacities(whole) == {64, 128}
    assert shared.used <= set(shared.program_names())


@pytest.mark.parametrize(
    ("prompt", "new", "prefix", "capacities"),
    [
        (390, 48, 0, (128, 256, 512)),
        (390, 48, 350, (96, 128, 256, 512)),  # 40 + 48
        (420, 96, 350, (128, 192, 256, 512, 640)),  # 70 + 96
        (500, 600, 350, (128, 256, 512, 768, 1024, 1152)),  # 150 + 600, in whole blocks
    ],
)
def test_a_cache_has_room_for_what_follows_the_prefix_and_little_more(prompt, new, prefix, capacities):
    made = sizes.Sizes.of(max_rows=4, max_prompt_tokens=prompt, max_new_tokens=new, shards=1, prefix=prefix)
    assert made.capacities == capacities


def test_a_prefix_is_read_once_for_each_set_of_parameters(policy):
    shared = make(policy, prompt=64, prefix=PREFIX)
    read = []
    runner = shared._runner
    reading = runner.programs.read_prefix
    runner.programs = runner.programs._replace(read_prefix=lambda *a: read.append(a[0]) or reading(*a))
    first = complete(shared, asked())
    complete(shared, asked(samples=1))
    assert len(read) == 1
    params, lora = policy
    changed = jax.tree.map(lambda leaf: 0.5 * leaf, params), lora
    shared.update_params(*changed)
    others = complete(shared, asked())
    assert len(read) == 2
    assert [one.tokens for one in first] != [one.tokens for one in others]
    assert_alike(others, complete(make(changed, prompt=64), asked()))


@pytest.mark.parametrize(
    "config",
    [
        CONFIG.replace(dtype="bfloat16"),
        CONFIG.replace(model_type="olmo3", sliding_window=20, sliding_layers=(True, False)),
    ],
    ids=["bfloat16", "window"],
)
def test_prefixes_of_other_models(policy, config):
    """A window that ends within the prefix, and numbers of half the width, whose sums are rounded elsewhere."""
    if config.model_type == "olmo3":
        policy = init_params(jax.random.key(0), config), None
    greedy = [Request(prompt, Sampling(temperature=0.0, max_new_tokens=1), asked()[0].key) for prompt in PROMPTS]
    whole, shared = (
        complete(make(policy, prompt=64, config=config, **has), greedy) for has in ({}, {"prefix": PREFIX})
    )
    atol = 1e-5 if config.dtype == "float32" else 0.1
    for one, other in zip(whole, shared, strict=True):
        np.testing.assert_allclose(one.logp, other.logp, rtol=0, atol=atol)


@pytest.mark.parametrize("fsdp", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_prefix_on_a_mesh(policy, fsdp):
    """Every device has the prefix for its heads, whatever its rows."""
    mesh = make_mesh(data=2, fsdp=fsdp, tensor=2, devices=jax.devices()[: 4 * fsdp])
    spread = engine_for(CONFIG, mesh, STOPS, PROMPTS, max_rows=8, max_new_tokens=40, policy=sharded(policy, mesh))
    assert_alike(complete(spread, asked()), complete(make(policy, prompt=64), asked()))
    loaded = spread._loaded
    assert loaded is not None
    assert loaded.prefix is not None
    heads = CONFIG.num_kv_heads // 2
    shards = [shard.data.shape for array in loaded.prefix for shard in array.addressable_shards]
    assert shards == [(CONFIG.num_layers, heads, 40, CONFIG.head_dim)] * 2 * 4 * fsdp


def test_an_engine_shares_what_its_prompts_begin_with(policy):
    mesh = make_mesh(devices=jax.devices()[:1])

    def names(prompts, config=CONFIG):
        return engine_for(config, mesh, STOPS, prompts, max_rows=2, max_new_tokens=8).program_names()

    assert "prefix of 40" in names(PROMPTS)
    assert not [name for name in names([*PROMPTS, [1, 2]]) if "prefix" in name]
    assert not [name for name in names(PROMPTS, CONFIG.replace(attention="splash")) if "prefix" in name]


def test_a_prefix_that_fills_the_longest_prompt_is_refused(policy):
    with pytest.raises(ValueError, match="the prefix has 40 tokens; prompts of 40 have none after it"):
        make(policy, prompt=40, prefix=PREFIX)


@pytest.mark.parametrize(
    ("prompts", "length"),
    [
        ([], 0),
        ([[*range(99)]] * 3, 0),  # one prompt, which is read once anyhow
        ([[*range(SHORTEST), 1], [*range(SHORTEST), 2, 3]], SHORTEST),
        ([[*range(SHORTEST - 1), 7], [*range(SHORTEST - 1), 8]], 0),
        ([[*range(50)], [*range(40)]], 39 // MULTIPLE * MULTIPLE),  # the shorter keeps a token of its own
        ([[*range(99)], [*range(99)], [0, *range(98)]], 0),
    ],
)
def test_what_prompts_begin_with(prompts, length):
    assert common_prefix(prompts) == tuple(range(length))
