"""Completions against the model's own teacher-forced scores, and what they may and may not depend on."""

import dataclasses
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egrsd_jax.config import RolloutSettings
from egrsd_jax.data.prompts import encode_student
from egrsd_jax.data.tasks.arithmetic import arithmetic_problems
from egrsd_jax.data.tokenizer import load_tokenizer
from egrsd_jax.evaluate.benchmarks import Protocol
from egrsd_jax.model.decoder import forward, init_params, output_head
from egrsd_jax.model.hf.hub import load_pretrained, resolve_folder
from egrsd_jax.model.lora import init_lora
from egrsd_jax.model.sharding import batch_sharding, make_mesh, tree_shardings
from egrsd_jax.rollout import generation, sizes
from egrsd_jax.rollout.engine import Engine, engine_for, sample_keys
from egrsd_jax.rollout.programs import programs
from egrsd_jax.rollout.requests import Request, Sampling, complete
from egrsd_jax.rollout.sizes import Sizes
from egrsd_jax.warmup.run import TEMPLATES
from tests.model.examples import CONFIG as TINY

CONFIG = TINY.replace(vocab_size=32, hidden_size=16, intermediate_size=24, num_layers=2, head_dim=8, max_positions=1024)
STOPS = (3, 4)
PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13, 14, 15, 16], [17, 18], [5, 6, 7], list(range(5, 25))]
SAMPLING = Sampling(temperature=1.2, top_k=20, top_p=0.95, max_new_tokens=60)
KEYS = sample_keys(jax.random.key(7), range(6), [0] * 6)


@pytest.fixture(scope="module")
def policy():
    params = jax.tree.map(lambda leaf: 8 * leaf, init_params(jax.random.key(0), CONFIG))
    lora = init_lora(jax.random.key(1), CONFIG, rank=2, alpha=4.0)
    lora = jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(jax.random.key(leaf.size), leaf.shape), lora)
    return params, lora


@pytest.fixture
def small(monkeypatch):
    """Chunks, caches and prompts so small that completions cross many of them."""
    monkeypatch.setattr(generation, "DECODE_STEPS", 5)
    monkeypatch.setattr(sizes, "SMALLEST_CAPACITY", 8)
    monkeypatch.setattr(sizes, "SMALLEST_PROMPT", 2)


def make(policy, *, mesh=None, max_rows=6, prompt=32, new=64, config=CONFIG, **options):
    mesh = mesh or make_mesh(devices=jax.devices()[:1])
    engine = Engine(config, mesh, STOPS, max_rows=max_rows, max_prompt_tokens=prompt, max_new_tokens=new, **options)
    engine.update_params(*policy)
    return engine


def requests(prompts=PROMPTS, keys=KEYS, sampling=SAMPLING):
    return [Request(prompt, sampling, key) for prompt, key in zip(prompts, keys, strict=True)]


def tokens_of(engine, asked=None):
    return [completion.tokens for completion in complete(engine, requests() if asked is None else asked)]


@jax.jit
def own_logits(policy, row):
    params, lora = policy
    return forward(params, CONFIG, row[None], lora=lora)[0] @ output_head(params, CONFIG)


def own_scores(policy, prompt, tokens, temperature=1.0):
    row = jnp.array(prompt + tokens + [0] * (128 - len(prompt) - len(tokens)))
    logp = jax.nn.log_softmax(own_logits(policy, row) / temperature)
    return np.asarray(logp)[np.arange(len(tokens)) + len(prompt) - 1, tokens]


@pytest.mark.parametrize("score_temperature", [1.0, 1.3])
def test_log_probabilities_are_the_policys_own(policy, small, score_temperature):
    """Through unequal prompts, rows that are refilled and caches that grow."""
    engine = make(policy, max_rows=2, score_temperature=score_temperature)
    completions = complete(engine, requests())
    assert len({len(completion.tokens) for completion in completions}) > 3
    assert {name for name in engine.used if name.startswith("resize")}
    for prompt, completion in zip(PROMPTS, completions, strict=True):
        wanted = own_scores(policy, prompt, completion.tokens, score_temperature)
        np.testing.assert_allclose(completion.logp, wanted, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_ends_at_a_stop_token_or_at_the_cap(policy):
    asked = requests(PROMPTS * 5, np.tile(KEYS, (5, 1)) + np.arange(30, dtype=np.uint32)[:, None])
    ends = set()
    for completion in complete(make(policy), asked):
        ends.add(completion.ended)
        assert (completion.tokens[-1] in STOPS) == completion.stopped
        assert not set(completion.tokens[:-1]) & set(STOPS)
        assert completion.stopped or len(completion.tokens) == SAMPLING.max_new_tokens
    assert ends == {"stop", "length"}


def sharded(policy, mesh):
    params, lora = policy
    params = jax.device_put(params, tree_shardings(params, mesh))
    return params, dataclasses.replace(lora, layers=jax.device_put(lora.layers, tree_shardings(lora.layers, mesh)))


@pytest.mark.slow
def test_a_completion_depends_on_its_prompt_and_key_alone(policy, small):
    """Not on the other requests, the number of rows, which one it has, chunks, the cache's capacity, or the mesh."""
    tokens = tokens_of(make(policy))
    assert tokens[0] != tokens[4]  # the same prompt, another key
    assert tokens_of(make(policy, max_rows=1)) == tokens
    assert tokens_of(make(policy, max_rows=4)) == tokens
    assert tokens_of(make(policy), requests()[::-1])[::-1] == tokens
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    eight = make(sharded(policy, mesh), mesh=mesh, max_rows=4)
    assert tokens_of(eight) == tokens
    for prompt, completion in zip(PROMPTS, complete(eight, requests()), strict=True):
        np.testing.assert_allclose(completion.logp, own_scores(policy, prompt, completion.tokens), rtol=0, atol=1e-4)


def test_chunks_and_capacities_do_not_matter(policy, small, monkeypatch):
    tokens = tokens_of(make(policy, max_rows=2))
    monkeypatch.setattr(generation, "DECODE_STEPS", 32)
    monkeypatch.setattr(sizes, "SMALLEST_CAPACITY", 128)
    assert tokens_of(make(policy, max_rows=3)) == tokens


@pytest.mark.slow
def test_samples_of_a_prompt_are_read_once_and_differ(policy, small):
    keys = sample_keys(jax.random.key(7), [0] * 8 + [1] * 8, [*range(8)] * 2)
    asked = requests([PROMPTS[0]] * 8 + [PROMPTS[2]] * 8, keys)
    engine = make(policy, max_rows=16)
    read = []
    runner = engine._runner
    prefill = runner.programs.prefill
    runner.programs = runner.programs._replace(prefill=lambda *a: read.append(a[2].shape) or prefill(*a))
    tokens = tokens_of(engine, asked)
    assert read == [(4, 8)]  # two prompts, of up to eight tokens, in one call for up to four
    assert len({tuple(each) for each in tokens[:8]}) > 4
    assert tokens == [tokens_of(make(policy, max_rows=1), [each])[0] for each in asked]


def test_each_request_has_its_own_rules(policy):
    """Side by side, without another program."""
    rules = [
        dataclasses.replace(SAMPLING, temperature=0.0),
        dataclasses.replace(SAMPLING, top_k=1),
        dataclasses.replace(SAMPLING, top_k=0, top_p=1.0),
        dataclasses.replace(SAMPLING, max_new_tokens=2),
        dataclasses.replace(SAMPLING, min_p=0.5),
        SAMPLING,
    ]
    asked = [Request(PROMPTS[0], rule, KEYS[1]) for rule in rules]
    engine = make(policy)
    tokens = tokens_of(engine, asked)
    assert tokens[0] == tokens[1]
    assert tokens[5] != tokens[0]
    assert len(tokens[3]) <= 2
    used = set(engine.used)
    assert tokens_of(engine, asked[::-1])[::-1] == tokens
    assert engine.used == used


def test_a_run_compiles_what_the_engine_names_and_nothing_else(policy, small):
    engine = make(policy, max_rows=2)
    jitted = engine._runner.programs
    before = [function._cache_size() for function in jitted]
    for prompts in (PROMPTS, PROMPTS[:2], PROMPTS[::-1]):
        for rules in (SAMPLING, dataclasses.replace(SAMPLING, temperature=0.0)):
            complete(engine, requests(prompts, KEYS[: len(prompts)], rules))
    assert engine.used <= set(engine.program_names())
    assert len(engine.program_names()) == len(set(engine.program_names()))
    grown = sum(function._cache_size() for function in jitted) - sum(before)
    assert grown <= len(engine.used)  # another test may have compiled some of them


@pytest.mark.slow
@pytest.mark.parametrize(("devices", "tied"), [(1, True), (8, False)])
def test_a_step_that_trained_all_weights_compiles_nothing_new(caplog, devices, tied):
    """The engine is given other arrays at every step; only the first ones may cost a compilation."""
    config = dataclasses.replace(CONFIG, tie_embeddings=tied, num_layers=1)
    mesh = make_mesh(data=1, fsdp=-1, tensor=1, devices=jax.devices()[:devices])
    params = init_params(jax.random.key(0), config)
    params = jax.device_put(params, tree_shardings(params, mesh))
    updates = [jax.block_until_ready(jax.tree.map(lambda leaf, by=by: by * leaf, params)) for by in (1.0, 1.1, 1.2)]
    engine = make((updates[0], None), mesh=mesh, max_rows=8, config=config)
    complete(engine, requests())
    for updated in updates[1:]:
        with jax.log_compiles(), caplog.at_level("WARNING"):
            engine.update_params(updated)
            complete(engine, requests())
    assert [record.getMessage() for record in caplog.records if record.getMessage().startswith("Compiling")] == []


def test_new_parameters_have_a_new_version(policy):
    engine = make(policy)
    first = complete(engine, requests())
    assert engine.update_params(jax.tree.map(lambda leaf: 1.01 * leaf, policy[0]), None) == 2
    second = complete(engine, requests())
    assert {completion.version for completion in first} == {1}
    assert {completion.version for completion in second} == {2}
    assert [completion.tokens for completion in first] != [completion.tokens for completion in second]
    engine.close()
    with pytest.raises(RuntimeError, match="update_params"):
        next(engine.generate(requests()))


def test_tokens_are_streamed_as_they_come(policy, small):
    streamed = {number: [] for number in range(6)}
    calls = []

    def on_tokens(number, tokens):
        calls.append(number)
        streamed[number] += tokens

    found = dict(make(policy, max_rows=2).generate(requests(), on_tokens=on_tokens))
    assert {number: completion.tokens for number, completion in found.items()} == streamed
    assert len(calls) > 10


def test_a_generator_that_is_left_early_leaves_the_engine_usable(policy, small):
    engine = make(policy, max_rows=2)
    tokens = tokens_of(engine)
    next(engine.generate(requests()))
    assert tokens_of(engine) == tokens


@pytest.mark.slow
def test_rows_are_refilled(policy, small):
    """Of many completions of very different lengths few steps are idle."""
    lengths = np.random.default_rng(0).integers(1, 60, 64)
    asked = [
        Request(PROMPTS[1], Sampling(max_new_tokens=int(length)), key)
        for length, key in zip(lengths, sample_keys(jax.random.key(1), range(64), [0] * 64), strict=True)
    ]
    engine = Engine(
        CONFIG, make_mesh(devices=jax.devices()[:1]), (), max_rows=8, max_prompt_tokens=8, max_new_tokens=64
    )
    engine.update_params(*policy)
    assert [len(completion.tokens) for completion in complete(engine, asked)] == lengths.tolist()
    assert engine.tokens == lengths.sum()
    assert engine.occupancy > 0.75  # the last rows run out alone; eight at a time: 0.55


def unequal_requests(count):
    lengths = [60, 45, 30, *[1 + number % 7 for number in range(count - 3)]]
    keys = sample_keys(jax.random.key(1), range(count), [0] * count)
    return [
        Request(PROMPTS[number % 3], Sampling(max_new_tokens=length), key)
        for number, length, key in zip(range(count), lengths, keys, strict=True)
    ]


@pytest.mark.slow
def test_the_last_completions_are_decoded_in_fewer_rows(policy, small):
    asked = unequal_requests(32)
    alone = make(policy, max_rows=1)
    engine = make(policy, max_rows=32)
    assert tokens_of(engine, asked) == tokens_of(alone, asked)
    decoded_in = {int(name.split()[1]) for name in engine.used if name.startswith("decode")}
    assert decoded_in == {32, 16, 8, 2, 1}
    assert engine.used <= set(engine.program_names())
    assert engine.occupancy > 0.5  # 32 rows to the end: 0.15
    assert alone.occupancy == 1
    for request, completion in zip(asked, complete(engine, asked), strict=True):
        np.testing.assert_allclose(
            completion.logp, own_scores(policy, request.prompt, completion.tokens), rtol=0, atol=1e-4
        )


@pytest.mark.slow
def test_fewer_rows_still_divide_over_the_mesh(policy, small):
    asked = unequal_requests(32)
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    engine = make(sharded(policy, mesh), mesh=mesh, max_rows=32)
    assert tokens_of(engine, asked) == tokens_of(make(policy, max_rows=4), asked)
    # The three long ones begin on the first of four shards: 8 rows, two a shard, hold them only when one has ended.
    assert {int(name.split()[1]) for name in engine.used if name.startswith("decode")} == {32, 16, 8, 4}
    assert engine.used <= set(engine.program_names())


def test_compacting_rows_moves_nothing_between_devices():
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    made = programs(CONFIG, mesh)
    with jax.set_mesh(mesh):
        rows = made.empty_state(rows=32, capacity=128, cache_dtype="float32")
        kept = jax.device_put(np.arange(8, dtype=np.int32) % 2, batch_sharding(mesh))
        program = made.compact.lower(rows, kept).compile()
    assert not re.search(r"all-|collective|permute", program.as_text())
    assert program.memory_analysis().temp_size_in_bytes < program.memory_analysis().output_size_in_bytes


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "worst"), [("bfloat16", 0.05), ("int8", 0.05)])
def test_a_narrower_cache_changes_log_probabilities_little(policy, small, dtype, worst):
    engine = make(policy, max_rows=2, cache_dtype=dtype)
    gaps = [
        completion.logp - own_scores(policy, prompt, completion.tokens)
        for prompt, completion in zip(PROMPTS, complete(engine, requests()), strict=True)
    ]
    assert 1e-5 < np.abs(np.concatenate(gaps)).mean() < worst


@pytest.mark.slow
def test_weights_in_bfloat16_change_log_probabilities_little(policy, small):
    policy = jax.tree.map(lambda leaf: leaf / 4, policy[0]), policy[1]  # of weights so large, rounding grows by layer
    engine = make(policy, max_rows=2, weights_dtype="bfloat16")
    assert engine._loaded.weights.head_DV.dtype == jnp.bfloat16
    assert engine._loaded.weights.layers[0]["mlp"]["up_proj"]["weight"].dtype == jnp.bfloat16
    completions = complete(engine, requests())
    assert engine._runner.empty_state(8).cache.layers[0].keys.dtype == jnp.float32
    gaps = [
        completion.logp - own_scores(policy, prompt, completion.tokens)
        for prompt, completion in zip(PROMPTS, completions, strict=True)
    ]
    assert 1e-5 < np.abs(np.concatenate(gaps)).mean() < 0.05


@pytest.mark.slow
def test_a_long_completion_runs_in_a_cache_that_follows_it(policy):
    """32,768 tokens of one row; another row's short completion leaves early."""
    config = dataclasses.replace(CONFIG, max_positions=40_000, num_layers=1, hidden_size=8)
    params = init_params(jax.random.key(0), config)
    engine = Engine(
        config, make_mesh(devices=jax.devices()[:1]), (), max_rows=2, max_prompt_tokens=8, max_new_tokens=32_768
    )
    engine.update_params(params)
    lengths = [2_000, 40]
    asked = [Request([5], Sampling(max_new_tokens=length), KEYS[0]) for length in lengths]
    assert [len(each.tokens) for each in complete(engine, asked)] == lengths
    assert "decode 1 rows at capacity 2048" in engine.used
    assert "decode 1 rows at capacity 4096" not in engine.used
    assert "decode 2 rows at capacity 32896" in engine.program_names()


@pytest.fixture(scope="module")
def built_in():
    folder = resolve_folder("arithmetic")
    tokenizer, stop_ids = load_tokenizer(folder)
    config, params = load_pretrained(folder, dtype="float32")
    return tokenizer, stop_ids, config.replace(dtype="float32"), params


def test_stop_texts_end_a_completion_with_the_token_that_completes_them(built_in):
    tokenizer, stop_ids, config, params = built_in
    mesh = make_mesh(devices=jax.devices()[:1])
    engine = Engine(config, mesh, stop_ids, max_rows=2, max_prompt_tokens=32, max_new_tokens=96, tokenizer=tokenizer)
    engine.update_params(params)
    prompts = [encode_student(tokenizer, TEMPLATES, each) for each in arithmetic_problems(2, seed=0, held_out=True)]
    whole, stopped, never = (
        complete(engine, [Request(prompt, Sampling(temperature=0, max_new_tokens=96, stop=stop)) for prompt in prompts])
        for stop in ((), ("; ", "no such text"), ("no such text",))
    )
    for free, short, same in zip(whole, stopped, never, strict=True):
        assert free.tokens == same.tokens
        first = next(n for n in range(len(free.tokens)) if "; " in tokenizer.decode(free.tokens[: n + 1]))
        assert short.tokens == free.tokens[: first + 1]
        assert short.ended == "stop"
        assert len(short.logp) == len(short.tokens)


def test_an_engine_for_prompts_takes_the_longest_and_fits_the_mesh(policy):
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    engine = engine_for(CONFIG, mesh, STOPS, PROMPTS, max_rows=6, max_new_tokens=4, policy=sharded(policy, mesh))
    assert engine.max_rows == 8
    sampling = dataclasses.replace(SAMPLING, max_new_tokens=4)
    asked = requests(sampling=sampling)
    assert tokens_of(engine, asked) == tokens_of(make(policy), asked)
    with pytest.raises(ValueError, match="prompt 0 has 21 tokens; this engine takes at most 20"):
        engine.generate([Request([5] * 21, sampling)])


def test_sampling_is_read_from_any_settings():
    rollout = RolloutSettings(temperature=0.7, top_p=0.9, top_k=5, min_p=0.1, max_new_tokens=12)
    assert Sampling.of(rollout) == Sampling(0.7, 5, 0.9, 0.1, 12)
    assert Sampling.of(rollout, max_new_tokens=3, stop=("x",)) == Sampling(0.7, 5, 0.9, 0.1, 3, ("x",))
    protocol = Protocol(temperature=0.6, top_p=0.8, top_k=4, max_new_tokens=9)
    assert Sampling.of(protocol) == Sampling(0.6, 4, 0.8, 0.0, 9)
    assert Sampling.of(protocol, min_p=0.2).min_p == 0.2


@pytest.mark.parametrize(
    ("field", "value"),
    [("temperature", -1.0), ("top_p", 0.0), ("top_k", -1), ("min_p", 2.0), ("max_new_tokens", 0), ("stop", ("",))],
)
def test_bad_settings_are_named(field, value):
    with pytest.raises(ValueError, match=field):
        Sampling(**{field: value})


def test_bad_calls_are_named(policy):
    with pytest.raises(ValueError, match="max_rows is 3"):
        make(policy, mesh=make_mesh(data=2, fsdp=2, tensor=2), max_rows=3)
    with pytest.raises(ValueError, match="cache_dtype is 'int4'"):
        make(policy, cache_dtype="int4")
    with pytest.raises(ValueError, match="weights_dtype is 'int8'; it must be float32 or bfloat16"):
        make(policy, weights_dtype="int8")
    engine = make(policy)
    for bad, message in (
        (Request([], SAMPLING), "prompt 0 is empty"),
        (Request([5] * 33, SAMPLING), "prompt 0 has 33 tokens; this engine takes at most 32"),
        (Request([5], Sampling(max_new_tokens=65)), "asks for 65 new tokens; this engine gives at most 64"),
        (Request([5], Sampling(max_new_tokens=9, stop=("x",))), "stop texts, which need an engine with a tokenizer"),
    ):
        with pytest.raises(ValueError, match=message):
            engine.generate([bad])
    assert complete(engine, []) == []
    chex.assert_shape(complete(engine, requests()[:1])[0].logp, (None,))


def test_rows_shrink_in_few_sizes(monkeypatch):
    def rows(most, shards=1):
        return Sizes.of(max_rows=most, max_prompt_tokens=8, max_new_tokens=8, shards=shards).rows

    assert [rows(most) for most in (1, 6, 32, 256)] == [(1,), (1, 2, 6), (1, 2, 8, 16, 32), (1, 2, 8, 16, 64, 256)]
    assert rows(32, shards=4) == (4, 8, 16, 32)
    monkeypatch.setattr(sizes, "FEW", {})  # what accelerators have
    assert [rows(most) for most in (1, 12, 128)] == [(1,), (2, 3, 12), (2, 8, 32, 128)]
