"""The port's own laws: cached equals uncached, padding and rematerialisation change nothing, adapters merge."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from egrsd_jax.model.cache import empty_cache, insert, resize
from egrsd_jax.model.decode import decode, lay_out, split_adapters, split_prefix
from egrsd_jax.model.decoder import abstract_params, forward, prefill
from egrsd_jax.model.hf.hub import load_pretrained, save_pretrained
from egrsd_jax.model.lora import init_lora, merge_lora
from egrsd_jax.model.sharding import batch_sharding, make_mesh, tree_shardings
from tests.model.examples import FAMILIES, LLAMA, OLMO3, QWEN2, SHAPES, YARN, logits, random_adapter, random_params

hidden_states = jax.jit(forward, static_argnames="config")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "adapted"), list(zip(FAMILIES, (False, True, False, True, False), strict=True)))
def test_prefill_and_decode_give_what_the_whole_sequence_gives(name, adapted):
    config = SHAPES[name]
    params, lora = random_params(config), random_adapter(config) if adapted else None
    tokens = jax.random.randint(jax.random.key(2), (3, 12), 0, config.vocab_size)
    lengths = jnp.array([4, 2, 5])  # prompts; the rest of each row is decoded
    before = jnp.zeros(3, jnp.int32)
    whole = hidden_states(params, config, tokens, lora=lora)

    read = jax.jit(partial(prefill, config=config))
    prompts = jnp.where(jnp.arange(5)[None, :] < lengths[:, None], tokens[:, :5], 0)
    last, keys, values = read(params, tokens_NP=prompts, length_N=lengths, lora=lora)
    for row, length in enumerate(lengths):
        np.testing.assert_allclose(last[row], whole[row, length - 1], rtol=1e-5, atol=1e-5)

    weights, adapters = lay_out(params, config), split_adapters(lora, config)
    step = jax.jit(lambda token, cache: decode(weights, config, token, cache, adapters, split_prefix(None, config)))
    cache = empty_cache(config, 3, 8, "float32")
    first, late = jnp.array([0, 2]), jnp.array([1])
    cache = insert(cache, keys, values, lengths, before, first, first)
    begun = jnp.zeros(3, jnp.int32)  # steps since each row began
    for number in range(7):
        if number == 1:  # after a cursor that has moved, with rows that are already running
            cache, begun = insert(cache, keys, values, lengths, before, late, late), begun.at[1].set(0)
        if number == 3:
            cache = resize(cache, 13)
        if number == 5:
            cache = resize(cache, 12)
        position = jnp.minimum(lengths + begun, 11)
        token = jnp.take_along_axis(tokens, position[:, None], axis=1)[:, 0]
        hidden, cache = step(token, cache)
        expected = jnp.take_along_axis(whole, position[:, None, None], axis=1)[:, 0]
        rows = jnp.arange(3) if number else first
        np.testing.assert_allclose(hidden[rows], expected[rows], rtol=1e-5, atol=1e-5)
        begun = begun + 1


def test_padding_changes_nothing():
    config, params = OLMO3, random_params(OLMO3)
    tokens = jnp.arange(1, 9)[None]
    plain = hidden_states(params, config, tokens)
    right = hidden_states(params, config, jnp.pad(tokens, ((0, 0), (0, 5)), constant_values=96))
    np.testing.assert_allclose(right[:, :8], plain, rtol=1e-5, atol=1e-5)
    mask = jnp.pad(jnp.ones((1, 8), bool), ((0, 0), (5, 0)))
    left = hidden_states(params, config, jnp.pad(tokens, ((0, 0), (5, 0)), constant_values=96), mask=mask)
    np.testing.assert_allclose(left[:, 5:], plain, rtol=1e-5, atol=1e-5)


def test_a_sliding_layer_forgets_what_is_behind_its_window():
    layers = 2
    config = OLMO3.replace(num_layers=layers, sliding_layers=(True,) * layers, sliding_window=4)
    params = random_params(config)
    tokens = jnp.arange(12)[None]
    changed = tokens.at[0, 1].set(96)
    difference = jnp.abs(hidden_states(params, config, changed) - hidden_states(params, config, tokens))
    reach = 1 + layers * (config.sliding_window - 1)  # each layer hands on what it saw
    assert difference[0, 1 : reach + 1].max(axis=-1).min() > 1e-3
    chex.assert_trees_all_equal(difference[0, reach + 1 :], jnp.zeros_like(difference[0, reach + 1 :]))


def test_a_new_adapter_changes_nothing_and_a_merged_one_is_the_same_model():
    config, params = QWEN2, random_params(QWEN2)
    tokens = jnp.arange(14).reshape(2, 7)
    fresh = init_lora(jax.random.key(0), config, rank=4, alpha=8.0)
    bare = logits(params, config, tokens)
    chex.assert_trees_all_equal(logits(params, config, tokens, lora=fresh), bare)
    lora = random_adapter(config)
    adapted = logits(params, config, tokens, lora=lora)
    merged = logits(merge_lora(params, lora), config, tokens)
    np.testing.assert_allclose(adapted, merged, rtol=0, atol=1e-5 * jnp.abs(adapted).max())
    assert jnp.abs(adapted - bare).max() > 0.1


@pytest.mark.slow
def test_rematerialisation_changes_no_gradient_and_orders_what_is_kept():
    config = OLMO3
    params, tokens = random_params(config), jnp.arange(64).reshape(1, 64)

    def gradient(name):
        chosen = config.replace(rematerialise=name)
        compiled = jax.jit(jax.grad(lambda p: jnp.sum(jnp.tanh(logits(p, chosen, tokens))))).lower(params).compile()
        return compiled(params), compiled.memory_analysis().temp_size_in_bytes

    plain, most = gradient("none")
    dots, some = gradient("dots")
    full, least = gradient("full")
    chex.assert_trees_all_close(dots, plain, rtol=1e-5, atol=1e-5)
    chex.assert_trees_all_close(full, plain, rtol=1e-5, atol=1e-5)
    assert least < some < most


@pytest.mark.parametrize("name", FAMILIES[::2])
def test_bfloat16_is_within_its_rounding_whatever_parameters_are_kept_in(name):
    config = SHAPES[name].replace(dtype="bfloat16")
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), random_params(config))
    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), narrow)
    tokens = jnp.arange(20).reshape(2, 10)
    hidden = hidden_states(narrow, config, tokens)
    assert hidden.dtype == jnp.bfloat16
    chex.assert_trees_all_equal(hidden_states(wide, config, tokens), hidden)
    exact = hidden_states(wide, config.replace(dtype="float32"), tokens)
    error = jnp.linalg.norm(hidden.astype(jnp.float32) - exact) / jnp.linalg.norm(exact)
    assert 0 < error < 2**-8 * 2 * config.num_layers  # a rounding to 8 bits for each of a layer's residual branches


def test_parameters_lie_on_a_mesh_by_the_table(tmp_path):
    config = QWEN2.replace(vocab_size=96)
    params = random_params(config)
    save_pretrained(tmp_path, config, params)
    _, sharded = load_pretrained(tmp_path, mesh=make_mesh(2, 2, 2), dtype="float32")
    chex.assert_trees_all_equal(sharded, params)
    layers = sharded["layers"]
    assert layers["mlp"]["down_proj"]["weight"].sharding.spec == PartitionSpec(None, "fsdp", "tensor")
    assert layers["self_attn"]["k_proj"]["bias"].sharding.spec == PartitionSpec(None, "tensor")
    _, narrow = load_pretrained(tmp_path, dtype="bfloat16")
    chex.assert_trees_all_equal(narrow, jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params))


def test_biases_are_split_as_the_outputs_that_they_are_added_to():
    config = LLAMA.replace(attention_bias=True, mlp_bias=True, vocab_size=96)
    params = abstract_params(config)
    layers = tree_shardings(params, make_mesh(2, 2, 2))["layers"]
    for block in (layers["self_attn"], layers["mlp"]):
        for projection in (value for name, value in block.items() if name.endswith("_proj")):
            assert projection["bias"].spec == PartitionSpec(None, projection["weight"].spec[1])


def test_a_mesh_changes_no_hidden_state():
    config = OLMO3.replace(vocab_size=96, rope_scaling=YARN)
    params, tokens = random_params(config), jnp.arange(40).reshape(4, 10)
    mesh = make_mesh(2, 2, 2)
    spread = jax.device_put(params, tree_shardings(params, mesh)), jax.device_put(tokens, batch_sharding(mesh))
    expected = hidden_states(params, config, tokens)
    np.testing.assert_allclose(hidden_states(spread[0], config, spread[1]), expected, rtol=1e-5, atol=1e-5)
