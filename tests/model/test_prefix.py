"""Prefill and decoding after a prefix that is kept once are those of prompts that hold it, in float64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egrsd_jax.model.cache import empty_cache, insert
from egrsd_jax.model.decode import decode, lay_out, split_adapters, split_prefix
from egrsd_jax.model.decoder import prefill, read_prefix
from tests.model.examples import CONFIG, LLAMA, OLMO3, SMOLLM3, random_adapter, random_params

PREFIX = [int(token) for token in np.random.default_rng(0).integers(0, 97, 16)]
OWN = (1, 3, 2, 4)  # tokens of the prompts after the prefix; the last one does not follow it
FOLLOWS = np.array([1, 1, 1, 0])
SHAPES = {
    "qwen3": CONFIG,
    "llama": LLAMA,
    "smollm3": SMOLLM3,
    "olmo3, a window within the own tokens": OLMO3,
    "olmo3, a window that ends in the prefix": OLMO3.replace(sliding_window=9),
    "olmo3, a window that leaves the prefix while decoding": OLMO3.replace(sliding_window=19),
}


def hidden_states(config, params, lora, tokens_NT, *, shared):
    """Of each row's last prompt token, and of four tokens after it that are decoded, [5, N, D]."""
    count = len(PREFIX)
    start_N = np.where(FOLLOWS & shared, count, 0)
    length_N = np.array(OWN) + np.where(FOLLOWS, count, 0)
    own_N, cache = length_N - start_N, empty_cache(config, len(OWN), 32, "float32")
    cache = cache._replace(layers=jax.tree.map(lambda leaf: leaf.astype(config.dtype), cache.layers))
    prefix = read_prefix(params, config, PREFIX, lora=lora) if shared else None
    hidden_ND = np.zeros((len(OWN), config.hidden_size))
    for follows in (1, 0):
        row_R = np.flatnonzero(follows == FOLLOWS).astype(np.int32)
        read_NP = np.zeros((len(row_R), max(own_N[row_R])), np.int32)
        for number, row in enumerate(row_R):
            read_NP[number, : own_N[row]] = tokens_NT[row, start_N[row] : length_N[row]]
        own_R, start_R = own_N[row_R].astype(np.int32), start_N[row_R].astype(np.int32)
        read = jax.jit(partial(prefill, config=config))
        last, keys, values = read(
            params, tokens_NP=read_NP, length_N=own_R, lora=lora, prefix=prefix if follows else None
        )
        hidden_ND[row_R] = last
        of_rows = (jnp.asarray(array) for array in (own_R, start_R, np.arange(len(row_R)), row_R))
        cache = insert(cache, keys, values, *of_rows)
    weights, adapters = lay_out(params, config), split_adapters(lora, config)
    step = jax.jit(lambda token, cache: decode(weights, config, token, cache, adapters, split_prefix(prefix, config)))
    states = [hidden_ND]
    for number in range(4):
        token_N = tokens_NT[np.arange(len(OWN)), length_N + number].astype(np.int32)
        hidden, cache = step(token_N, cache)
        states.append(np.asarray(hidden))
    return np.stack(states), cache


@pytest.mark.parametrize("name", SHAPES)
def test_a_prefix_that_is_kept_once_changes_no_hidden_state(name):
    config = SHAPES[name].replace(dtype="float64")
    draw = np.random.default_rng(1)
    tokens_NT = draw.integers(0, config.vocab_size, (len(OWN), 40))
    tokens_NT[FOLLOWS == 1, : len(PREFIX)] = PREFIX
    params, lora = random_params(SHAPES[name]), random_adapter(SHAPES[name])
    with jax.enable_x64(True):
        params, lora = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), (params, lora))
        shared, cache = hidden_states(config, params, lora, tokens_NT, shared=True)
        whole, _ = hidden_states(config, params, lora, tokens_NT, shared=False)
    assert np.abs(whole).max() > 1
    np.testing.assert_allclose(shared, whole, rtol=0, atol=1e-12 * np.abs(whole).max())
    np.testing.assert_array_equal(cache.length_B, np.array(OWN) + 4)  # no row holds the prefix
    np.testing.assert_array_equal(cache.before_B, len(PREFIX) * FOLLOWS)
