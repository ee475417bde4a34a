"""Which checkpoints of a run stay."""

import jax
import jax.numpy as jnp
from orbax.checkpoint import v1 as ocp

from egrsd_jax.config import Config, TrainSettings
from egrsd_jax.objective.reward import init_moments
from egrsd_jax.train.checkpoint import Checkpoints
from egrsd_jax.train.state import TrainState


def test_the_newest_and_the_best_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, Config(train=TrainSettings(keep_checkpoints=2)))

    def save(step: int) -> None:
        place, key = jnp.int32(step), jax.random.key_data(jax.random.key(0))
        checkpoints.save(TrainState({"w": jnp.ones(2)}, (), {}, init_moments(), place, place, key))

    for step in range(1, 4):
        save(step)
    checkpoints.keep([2])
    for step in range(4, 7):
        save(step)
    checkpoints.close()
    with ocp.training.Checkpointer(tmp_path) as found:
        assert [each.step for each in found.checkpoints] == [2, 5, 6]
