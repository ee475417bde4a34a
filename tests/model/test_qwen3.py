"""The port against transformers' own PyTorch model, and its cached form against its uncached one."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egrsd_jax.model.config import ModelConfig
from egrsd_jax.model.hub import load_pretrained, save_pretrained
from egrsd_jax.model.lora import Lora, init_lora, merge_lora
from egrsd_jax.model.qwen3 import decode, forward, init_params, output_head, prefill
from egrsd_jax.model.sharding import make_mesh

CONFIG = ModelConfig(
    vocab_size=97,
    hidden_size=32,
    intermediate_size=48,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    rope_theta=10_000.0,
    rms_norm_eps=1e-6,
    tie_embeddings=True,
    max_positions=256,
    dtype="float32",
)
SHAPES = {
    "tied": CONFIG,
    "untied, other theta": CONFIG.replace(tie_embeddings=False, rope_theta=1_000_000.0),
    "one key-value head, wide heads": CONFIG.replace(num_kv_heads=1, head_dim=24),
    "as many key-value heads": CONFIG.replace(num_kv_heads=4, rope_theta=500.0),
}


def random_params(config: ModelConfig, seed: int = 0):
    """Parameters far from their initial values, norms included, so that no term is hidden."""
    params = init_params(jax.random.key(seed), config)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    noisy = [leaf + 0.2 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, noisy)


def random_adapter(config: ModelConfig) -> Lora:
    lora = init_lora(jax.random.key(5), config, rank=3, alpha=6.0)
    return jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(jax.random.key(leaf.size), leaf.shape), lora)


def logits(params, config, tokens, **kwargs):
    return forward(params, config, tokens, **kwargs) @ output_head(params, config)


@pytest.mark.parametrize("name", SHAPES)
def test_matches_transformers_in_both_directions(name, tmp_path):
    torch = pytest.importorskip("torch", reason="needs torch==2.13.0 for transformers' own model")
    from transformers import AutoModelForCausalLM

    config, params = SHAPES[name], random_params(SHAPES[name])
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (2, 19))
    ours = logits(params, config, jnp.asarray(tokens))

    save_pretrained(tmp_path / "ours", config, params)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "ours", dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        expected = theirs(torch.from_numpy(tokens)).logits.numpy()
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5 * np.abs(expected).max())

    theirs.save_pretrained(tmp_path / "theirs")
    config_back, params_back = load_pretrained(tmp_path / "theirs", dtype="float32")
    assert config_back == config
    chex.assert_trees_all_equal(params_back, params)


def test_bfloat16_is_within_its_rounding_of_float32():
    params = random_params(CONFIG)
    tokens = jnp.arange(20).reshape(2, 10)
    wide = logits(params, CONFIG, tokens)
    narrow = forward(params, CONFIG.replace(dtype="bfloat16"), tokens)
    assert narrow.dtype == jnp.bfloat16
    error = jnp.abs(narrow.astype(jnp.float32) @ output_head(params, CONFIG) - wide).max() / jnp.abs(wide).max()
    assert error < 2**-8 * 2 * CONFIG.num_layers  # one rounding to 8 bits a residual branch


@pytest.mark.parametrize("lora", [None, "adapter"])
def test_prefill_and_decode_give_what_the_whole_sequence_gives(lora):
    params, lora = random_params(CONFIG), random_adapter(CONFIG) if lora else None
    tokens = jax.random.randint(jax.random.key(2), (3, 12), 0, CONFIG.vocab_size)
    lengths = jnp.array([4, 2, 5])  # prompts; the rest of each row is decoded
    whole = forward(params, CONFIG, tokens, lora=lora)

    prompt_mask = jnp.arange(5)[None, :] < lengths[:, None]
    hidden, cache = prefill(params, CONFIG, jnp.where(prompt_mask, tokens[:, :5], 0), prompt_mask, slots=12, lora=lora)
    for row, length in enumerate(lengths):
        np.testing.assert_allclose(hidden[row, length - 1], whole[row, length - 1], rtol=1e-5, atol=1e-5)
    step = jax.jit(lambda token, position, cache, slot: decode(params, CONFIG, token, position, cache, slot, lora=lora))
    for offset in range(6):
        position = lengths + offset
        token = jnp.take_along_axis(tokens, position[:, None], axis=1)[:, 0]
        hidden, cache = step(token, position, cache, jnp.asarray(5 + offset))
        expected = jnp.take_along_axis(whole, position[:, None, None], axis=1)[:, 0]
        np.testing.assert_allclose(hidden, expected, rtol=1e-5, atol=1e-5)


def test_padding_changes_nothing():
    params = random_params(CONFIG)
    tokens = jnp.arange(1, 9)[None]
    plain = forward(params, CONFIG, tokens)
    right = forward(params, CONFIG, jnp.pad(tokens, ((0, 0), (0, 5)), constant_values=96))
    np.testing.assert_allclose(right[:, :8], plain, rtol=1e-5, atol=1e-5)
    mask = jnp.pad(jnp.ones((1, 8), bool), ((0, 0), (5, 0)))
    left = forward(params, CONFIG, jnp.pad(tokens, ((0, 0), (5, 0)), constant_values=96), mask=mask)
    np.testing.assert_allclose(left[:, 5:], plain, rtol=1e-5, atol=1e-5)


def test_a_new_adapter_changes_nothing_and_a_merged_one_is_the_same_model():
    params = random_params(CONFIG)
    tokens = jnp.arange(14).reshape(2, 7)
    fresh = init_lora(jax.random.key(0), CONFIG, rank=4, alpha=8.0)
    chex.assert_trees_all_equal(forward(params, CONFIG, tokens, lora=fresh), forward(params, CONFIG, tokens))
    lora = random_adapter(CONFIG)
    adapted = logits(params, CONFIG, tokens, lora=lora)
    merged = merge_lora(params, lora)
    np.testing.assert_allclose(adapted, logits(merged, CONFIG, tokens), rtol=0, atol=1e-5 * jnp.abs(adapted).max())
    assert jnp.abs(adapted - logits(params, CONFIG, tokens)).max() > 0.1


def test_rematerialisation_changes_no_gradient():
    params, tokens = random_params(CONFIG), jnp.arange(14).reshape(2, 7)

    def gradient(config):
        return jax.grad(lambda p: jnp.sum(jnp.tanh(logits(p, config, tokens))))(params)

    plain = gradient(CONFIG.replace(rematerialise=False))
    chex.assert_trees_all_close(gradient(CONFIG.replace(rematerialise=True)), plain, rtol=1e-5, atol=1e-5)


def test_loading_onto_a_mesh_gives_the_same_numbers(tmp_path):
    config, params = SHAPES["untied, other theta"].replace(vocab_size=96), None
    params = random_params(config)
    save_pretrained(tmp_path, config, params)
    mesh = make_mesh(2, 2, 2)
    _, sharded = load_pretrained(tmp_path, mesh=mesh, dtype="float32")
    chex.assert_trees_all_equal(sharded, params)
    assert sharded["layers"]["mlp"]["down_proj"]["weight"].sharding.spec == (None, "fsdp", "tensor")
    _, narrow = load_pretrained(tmp_path, dtype="bfloat16")
    chex.assert_trees_all_equal(narrow, jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params))
