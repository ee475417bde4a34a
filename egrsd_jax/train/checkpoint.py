"""Checkpoints of a run (orbax): the whole TrainState, and the configuration that made it."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from egrsd_jax.config import Config, binding
from egrsd_jax.runs.files import differences
from egrsd_jax.train.state import TrainState


class CheckpointMismatch(ValueError):
    """A checkpoint was made by another configuration than the one that would resume from it."""


class Checkpoints:
    """The checkpoints under one run's folder: the newest few, and those to `keep`. A half-written one is never seen."""

    def __init__(self, folder: Path, config: Config):
        self._settings = binding(asdict(config))
        self._kept = _NewestAndBest(config.train.keep_checkpoints)
        training: Any = ocp.training  # its annotations refuse the very values that its documentation gives
        self._checkpointer = training.Checkpointer(
            folder.absolute(),
            preservation_policy=self._kept,
            save_decision_policy=training.save_decision_policies.InitialSavePolicy(),
            cleanup_tmp_directories=True,
        )

    def save(self, state: TrainState) -> None:
        """Writes the state and returns when it is on disk: the next step donates these very arrays."""
        self._checkpointer.save(
            int(state.step), state._asdict(), force=True, overwrite=True, custom_metadata=self._settings
        )

    def keep(self, steps: Iterable[int]) -> None:
        """From the next save on, the checkpoints of these steps are kept whatever comes after them."""
        self._kept.best = frozenset(steps)

    def restore(self, state: TrainState) -> TrainState | None:
        """The newest state, in the shards of `state`, or None where there is no checkpoint.

        Raises CheckpointMismatch that names every setting that differs.
        """
        if (newest := self._checkpointer.latest) is None:
            return None
        kept = self._checkpointer.metadata(newest.step).custom_metadata
        if different := differences(kept, self._settings):
            raise CheckpointMismatch(
                f"the checkpoint of step {newest.step} was made with another configuration: {'; '.join(different)}; "
                "give those settings, or another --run.name"
            )
        abstract = jax.tree.map(_abstract, state._asdict())
        return TrainState(**self._checkpointer.load(newest.step, abstract))

    def close(self) -> None:
        """Lets go of the folder."""
        self._checkpointer.close()


class _NewestAndBest:
    """Which checkpoints stay: the newest `newest`, and those of the steps in `best`."""

    def __init__(self, newest: int):
        self.newest, self.best = newest, frozenset[int]()

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:  # noqa: ARG002  (orbax's own)
        """Whether each checkpoint stays; they come oldest first."""
        last = len(checkpoints) - self.newest
        return [number >= last or checkpoint.step in self.best for number, checkpoint in enumerate(checkpoints)]


def _abstract(array: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=array.sharding)
