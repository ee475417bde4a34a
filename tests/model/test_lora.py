"""Dropout of the adapter's inputs: its mean, whose masks are whose, and what must not change them."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egrsd_jax.model.decode import split_adapters
from egrsd_jax.model.decoder import forward, prefill
from egrsd_jax.model.lora import PROJECTIONS, Adapter, Lora, drop, layer_keys, position_keys
from egrsd_jax.model.sharding import batch_sharding, make_mesh, tree_shardings
from tests.model.examples import CONFIG as ODD_CONFIG
from tests.model.examples import random_adapter, random_params

CONFIG = ODD_CONFIG.replace(vocab_size=96)  # divides over a mesh
KEY = jax.random.key(11)
ROW_KEYS = jax.random.split(KEY, 4)
TOKENS = jnp.arange(40).reshape(4, 10)

hidden_states = jax.jit(forward, static_argnames="config")


@partial(jax.jit, static_argnames="config")
def slopes(params, config, tokens, lora):
    """The gradient of some loss with respect to the adapter's layers."""
    return jax.grad(
        lambda layers: jnp.sum(jnp.tanh(forward(params, config, tokens, lora=lora.replace(layers=layers))))
    )(lora.layers)


def dropping(config, key, rate: float = 0.5) -> Lora:
    return random_adapter(config).replace(dropout=rate, key=key)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropped_numbers_are_zero_and_the_others_keep_the_mean(rate):
    rows, size = 500, 200
    x = jnp.broadcast_to(jnp.linspace(-3.0, 3.0, size), (rows, size))
    dropped = np.asarray(drop(x, jax.random.split(KEY, rows), rate))
    kept = dropped != 0
    np.testing.assert_allclose(dropped[kept], np.asarray(x)[kept] / (1 - rate), rtol=1e-6)
    share_error = np.sqrt(rate * (1 - rate) / x.size)
    assert abs(1 - kept.mean() - rate) < 4 * share_error
    column_error = np.abs(x[0]) * np.sqrt(rate / (1 - rate) / rows)
    assert np.abs((dropped.mean(0) - x[0]) / column_error).max() < 5


def test_bfloat16_is_scaled_before_it_is_rounded():
    x = jnp.linspace(1.0, 2.0, 128, dtype=jnp.bfloat16)[None]
    dropped = drop(x, ROW_KEYS[:1], 0.1)
    assert dropped.dtype == jnp.bfloat16
    nearest = (x.astype(jnp.float32) / 0.9).astype(jnp.bfloat16)
    chex.assert_trees_all_equal(dropped, jnp.where(dropped == 0, 0, nearest).astype(jnp.bfloat16))


def test_an_adapter_drops_its_input_and_nothing_else():
    a, b = jax.random.normal(KEY, (3, 16)), jax.random.normal(ROW_KEYS[0], (8, 3))
    x = jax.random.normal(ROW_KEYS[1], (4, 5, 16))
    y = Adapter(a, b, scale=2.0, dropout=0.5, keys=ROW_KEYS)(x)
    np.testing.assert_allclose(y, 2 * drop(x, ROW_KEYS, 0.5) @ a.T @ b.T, rtol=1e-5, atol=1e-5)


def test_a_key_per_position_makes_masks_that_move_with_it():
    keys = position_keys(jnp.broadcast_to(ROW_KEYS[:1], (1, 5)), jnp.arange(5)[None])
    x = jax.random.normal(KEY, (1, 5, 16))
    shift = partial(jnp.roll, shift=2, axis=1)
    moved = drop(shift(x), keys[:, jnp.array([3, 4, 0, 1, 2])], 0.5)
    chex.assert_trees_all_equal(moved, shift(drop(x, keys, 0.5)))
    assert len(np.unique(np.asarray(drop(jnp.ones((1, 5, 16)), keys, 0.5))[0], axis=0)) == 5


@pytest.mark.slow
def test_every_layer_projection_and_row_draws_its_own_mask():
    """The gradient of A is 0 in the columns whose inputs were dropped at every token, so that it shows the masks."""
    config, params = CONFIG, random_params(CONFIG)

    def masks(key):
        slope = slopes(params, config, TOKENS[:1, :2], dropping(config, key))
        found = {name: np.any(slope[block][name]["a"] != 0, axis=1) for block in slope for name in slope[block]}
        assert set(found) == set(PROJECTIONS)
        return [tuple(row.tolist()) for name in PROJECTIONS for row in found[name]]

    first, second = masks(ROW_KEYS[:1]), masks(ROW_KEYS[1:2])
    assert len(set(first + second)) == 2 * len(PROJECTIONS) * config.num_layers
    assert 0.65 < np.mean(np.concatenate(first)) < 0.85  # two tokens: a column is lost with probability 1/4


def test_without_a_key_or_a_rate_it_is_the_same_program_and_the_same_numbers():
    config, params, lora = CONFIG, random_params(CONFIG), random_adapter(CONFIG)

    def program(lora):
        return hidden_states.lower(params, config, TOKENS, lora=lora).as_text()

    assert program(lora.replace(dropout=0.5)) == program(lora)
    expected = hidden_states(params, config, TOKENS, lora=lora)
    for same in (lora.replace(dropout=0.5), lora.replace(key=KEY), lora.replace(key=ROW_KEYS)):
        chex.assert_trees_all_equal(hidden_states(params, config, TOKENS, lora=same), expected)
    changed = hidden_states(params, config, TOKENS, lora=dropping(config, ROW_KEYS))
    assert jnp.abs(changed - expected).max() > 0.1


@pytest.mark.slow
def test_rematerialisation_draws_the_same_masks_again():
    params, lora = random_params(CONFIG), dropping(CONFIG, ROW_KEYS[:1])
    plain, full = (
        slopes(params, CONFIG.replace(rematerialise=name), TOKENS[:1, :2], lora) for name in ("none", "full")
    )
    chex.assert_trees_all_close(full, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_row_keys_make_masks_that_micro_batches_padding_and_mesh_do_not_change():
    config, params, lora = CONFIG, random_params(CONFIG), dropping(CONFIG, ROW_KEYS)
    expected = hidden_states(params, config, TOKENS, lora=lora)
    for rows in (slice(0, 2), slice(2, 4)):
        padded = jnp.pad(TOKENS[rows], ((0, 0), (0, 3)))
        hidden = hidden_states(params, config, padded, lora=lora.replace(key=ROW_KEYS[rows]))
        np.testing.assert_allclose(hidden[:, :10], expected[rows], rtol=1e-5, atol=1e-5)
    mesh = make_mesh(2, 2, 2)
    spread = jax.device_put((params, lora.layers), tree_shardings((params, lora.layers), mesh))
    tokens, keys = jax.device_put((TOKENS, ROW_KEYS), batch_sharding(mesh))
    on_mesh = hidden_states(spread[0], config, tokens, lora=lora.replace(layers=spread[1], key=keys))
    np.testing.assert_allclose(on_mesh, expected, rtol=1e-5, atol=1e-5)


def test_one_key_is_folded_with_the_number_of_the_row():
    by_row = layer_keys(dropping(CONFIG, jax.vmap(partial(jax.random.fold_in, KEY))(jnp.arange(4))), 4, 10)
    assert by_row is not None
    chex.assert_trees_all_equal(layer_keys(dropping(CONFIG, KEY), 4, 10), by_row)
    assert by_row.shape == (CONFIG.num_layers, len(PROJECTIONS), 4)
    assert len(np.unique(jax.random.key_data(by_row).reshape(-1, 2), axis=0)) == by_row.size


def test_a_rate_or_a_key_that_cannot_be_is_named():
    for rate in (1.0, -0.1):
        with pytest.raises(ValueError, match=rf"dropout is {rate}; it must be at least 0 and under 1"):
            random_adapter(CONFIG).replace(dropout=rate)
    params = random_params(CONFIG)
    for key, message in (
        (jax.random.key_data(KEY), r"lora.key is uint32 of shape \(2,\)"),
        (
            ROW_KEYS[:3],
            r"lora.key is key<fry> of shape \(3,\); it must be one key .* 4, one per row, or 4 × 10, one per position",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            forward(params, CONFIG, TOKENS, lora=dropping(CONFIG, key))


def test_sampling_refuses_an_adapter_that_drops():
    params, lora = random_params(CONFIG), random_adapter(CONFIG)
    with pytest.raises(ValueError, match=r"lora.key is given, and sampling drops nothing out"):
        prefill(params, CONFIG, TOKENS, jnp.full(4, 10), lora=lora.replace(key=KEY))
    with pytest.raises(ValueError, match=r"lora.key is given, and sampling drops nothing out"):
        split_adapters(lora.replace(key=KEY), CONFIG)
