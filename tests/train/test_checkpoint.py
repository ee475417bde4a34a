"""Which checkpoints of a run stay."""

import asyncio
import resource
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore
from orbax.checkpoint import v1 as ocp

from egrsd_jax.config import Config, TrainSettings
from egrsd_jax.objective.reward import init_moments
from egrsd_jax.runs import checksums
from egrsd_jax.runs.files import NotWritten
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


async def waits_for(future: tensorstore.Future) -> None:
    await future


def test_a_checkpoint_that_does_not_fit_is_one_line_and_the_one_before_it_stays(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)  # in place of pytest's
    checkpoints = Checkpoints(tmp_path, Config())
    place, key = jnp.int32(1), jax.random.key_data(jax.random.key(0))
    state = TrainState({"w": jnp.ones(10_000)}, (), {}, init_moments(), place, place, key)
    checkpoints.save(state)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    noise = np.random.default_rng(0).standard_normal(10_000, np.float32)  # does not compress
    resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, limit[1]))
    try:
        with pytest.raises(
            NotWritten, match=r"step 2 could not be written .*; the newest whole one is of step 1"
        ) as full:
            checkpoints.save(state._replace(step=jnp.int32(2), trainable={"w": jnp.asarray(noise)}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert "\n" not in str(full.value)
    loop = asyncio.new_event_loop()
    promise, future = tensorstore.Promise.new()
    waits = loop.create_task(waits_for(future))
    loop.run_until_complete(asyncio.sleep(0.01))
    loop.close()
    assert not waits.done()
    late = threading.Thread(target=promise.set_result, args=[None])  # a write that ends when nobody waits any more
    late.start()
    late.join()
    printed = capfd.readouterr()
    assert "Traceback" not in printed.out + printed.err
    checkpoints.close()
    assert checksums.checkpoint_steps(tmp_path) == [1]
    assert checksums.damage(tmp_path, 1) is None
