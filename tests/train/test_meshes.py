"""A checkpoint written on one mesh is restored on any other, to the last bit."""

from dataclasses import replace
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egrsd_jax.config import Config, LoraSettings, ModelSettings
from egrsd_jax.model.sharding import make_mesh, tree_shardings
from egrsd_jax.train.checkpoint import Checkpoints
from egrsd_jax.train.state import TrainState, init_state, make_optimizer, state_shardings
from tests.model.examples import CONFIG, random_params

MODEL = CONFIG.replace(vocab_size=96, num_layers=2)
AXES = {"one device": (1, 1, 1), "fsdp 8": (1, 8, 1), "data 2, fsdp 2, tensor 2": (2, 2, 2)}
LORA, FULL = LoraSettings(rank=4, alpha=8.0), LoraSettings(rank=0)


def mesh_of(name: str) -> jax.sharding.Mesh:
    return make_mesh(*AXES[name], devices=jax.devices()[: int(np.prod(AXES[name]))])


def config_of(lora: LoraSettings, name: str) -> Config:
    data, fsdp, tensor = AXES[name]
    return Config(lora=lora, model=ModelSettings(data=data, fsdp=fsdp, tensor=tensor))


def fresh_state(lora: LoraSettings, name: str) -> TrainState:
    mesh, config = mesh_of(name), config_of(lora, name)
    base = random_params(MODEL)
    base = jax.device_put(base, tree_shardings(base, mesh))
    return init_state(jax.random.key(0), base, MODEL, lora, make_optimizer(config.train), mesh, schedule="ema")


def random_numbers(state: TrainState) -> TrainState:
    """Numbers that no leaf starts from, in the leaves' own shards: the moments of a new optimizer are all 0."""
    source = np.random.default_rng(7)

    def leaf(array: jax.Array) -> jax.Array:
        bits = source.integers(1, 2**20, array.shape)
        numbers = bits / 2**20 if jnp.issubdtype(array.dtype, jnp.floating) else bits
        return jax.device_put(numbers.astype(array.dtype), array.sharding)

    return jax.tree.map(leaf, state)


def in_checkpoints(folder: Path, config: Config, use):
    checkpoints = Checkpoints(folder, config)
    try:
        return use(checkpoints)
    finally:
        checkpoints.close()


@pytest.mark.slow
@pytest.mark.parametrize("lora", [LORA, FULL], ids=["lora", "all weights"])
def test_a_checkpoint_of_any_mesh_is_restored_on_any_other_to_the_last_bit(lora, tmp_path):
    fresh = {name: fresh_state(lora, name) for name in AXES}
    for name, state in fresh.items():
        kept = random_numbers(state)
        in_checkpoints(tmp_path / name, config_of(lora, name), lambda checkpoints, kept=kept: checkpoints.save(kept))
        for other in AXES.keys() - {name}:
            back = in_checkpoints(
                tmp_path / name,
                config_of(lora, other),
                lambda checkpoints, other=other: checkpoints.restore(fresh[other]),
            )
            chex.assert_trees_all_equal(back, kept)
            chex.assert_trees_all_equal_dtypes(back, kept)
            chex.assert_trees_all_equal(
                jax.tree.map(lambda array: array.sharding, back), state_shardings(back, mesh_of(other))
            )
            leaves = jax.tree.leaves(back.trainable)
            held = sum(leaf.addressable_shards[0].data.nbytes for leaf in leaves)
            assert (held < sum(leaf.nbytes for leaf in leaves)) == (other != "one device")


def test_another_setting_is_still_refused(tmp_path):
    config = config_of(LORA, "fsdp 8")
    state = fresh_state(LORA, "fsdp 8")
    in_checkpoints(tmp_path, config, lambda checkpoints: checkpoints.save(state))
    other = replace(config, lora=replace(LORA, dropout=0.5))
    with pytest.raises(ValueError, match=r"lora\.dropout was 0\.0 and is 0\.5"):
        in_checkpoints(tmp_path, other, lambda checkpoints: checkpoints.restore(state))
