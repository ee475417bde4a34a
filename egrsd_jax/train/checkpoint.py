"""Checkpoints of a run (orbax): the whole TrainState, the configuration that made it, and checksums of the files."""

import logging
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from egrsd_jax.config import Config, binding
from egrsd_jax.model.hosts import from_first_host, is_first_host, wait_for_all
from egrsd_jax.runs import checksums
from egrsd_jax.runs.binding import RESTART, by_their_content
from egrsd_jax.runs.files import NotWritten, differences
from egrsd_jax.runs.lock import check_held
from egrsd_jax.train.state import TrainState

NONE, REFUSED = -1, -2  # sent by the first host in place of a step
HISTORY = "history"  # next to the sections of the configuration


class CheckpointMismatch(ValueError):
    """A checkpoint was made by another configuration than the one that would resume from it."""


class CheckpointDamaged(ValueError):
    """A checkpoint is not what was written."""


class Checkpoints:
    """The checkpoints under one run's folder: the newest few, and those to `keep`. A half-written one is never seen.

    With `older` a run resumes from the newest whole checkpoint where the newest is damaged; `notes` then says so.
    `history` is what was saved next to the state that was restored; empty where that is of an earlier version.
    """

    def __init__(self, folder: Path, config: Config, *, older: bool = False):
        self._folder, self._settings, self._older = folder.absolute(), binding(asdict(config)), older
        self._newest, self._best = config.train.keep_checkpoints, frozenset[int]()
        self._opened: Any = None
        self.notes: list[str] = []
        self.history: dict[str, Any] = {}

    def save(self, state: TrainState, history: dict[str, Any] | None = None) -> None:
        """Writes the state and returns when it is on disk: the next step donates these very arrays. Then it is read
        back, and only after that are older checkpoints removed.

        `history` are values of JSON that later steps depend on and that are no arrays, so that no row or evaluation of
        the run's folder has to be whole for what comes after it.

        Raises OSError, one line that says which checkpoint is the newest whole one, where it cannot be written, or
        that the folder is gone.
        """
        check_held()
        step = int(state.step)
        before = checksums.checkpoint_steps(self._folder)
        try:
            metadata = self._settings | {HISTORY: history or {}}
            with _without_tracebacks(), _without_late_errors():
                self._checkpointer().save(step, _kept(state), force=True, overwrite=True, custom_metadata=metadata)
            if is_first_host():
                checksums.record(self._folder, step)
        except Exception as error:  # orbax's and tensorstore's are of many types
            self._opened = None  # it would raise the same again when it is closed
            logging.getLogger("absl").setLevel(logging.CRITICAL)  # for the threads that still write
            warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)  # writes not begun
            raise NotWritten(self._not_written(step, before, error)) from error
        wait_for_all(f"checkpoint {step} is read back")
        if is_first_host():
            for old in self._no_longer_needed():
                checksums.remove(self._folder, old)

    def keep(self, steps: Iterable[int]) -> None:
        """From the next save on, the checkpoints of these steps are kept whatever comes after them."""
        self._best = frozenset(steps)

    def restore(self, state: TrainState) -> TrainState | None:
        """The newest state, in the shards of `state`, or None where there is no checkpoint.

        Raises CheckpointMismatch that names every setting that differs, and CheckpointDamaged that names a file.
        """
        wait_for_all("nobody writes checkpoints")
        if is_first_host():
            checksums.finish_removals(self._folder)
        while True:
            refusal, step = None, NONE
            if is_first_host():
                refusal, step = self._choose()
            if (step := from_first_host(step)) == NONE:
                return None
            if step == REFUSED:
                raise refusal or CheckpointDamaged(f"{self._folder}: the first host says which checkpoint is damaged")
            try:
                return self._load(step, state)
            except CheckpointMismatch:
                raise
            except Exception as error:  # orbax's and tensorstore's are of many types
                reason = (str(error).strip() or repr(error)).splitlines()[0][:200]
                self._put_aside_or_refuse(step, f"{self._folder / str(step)} cannot be read ({reason})")

    def close(self) -> None:
        """Lets go of the folder."""
        if self._opened is not None:
            self._opened.close()

    def _choose(self) -> tuple[Exception | None, int]:
        """The newest checkpoint that is whole, after those that are not are out of the way; or what refuses it."""
        while steps := checksums.recorded_steps(self._folder):
            if (what := checksums.damage(self._folder, steps[-1])) is None:
                break
            try:
                self._put_aside_or_refuse(steps[-1], what)
            except CheckpointDamaged as refusal:
                return refusal, REFUSED
        for step in checksums.unfinished(self._folder):
            to = checksums.set_aside(self._folder, step)
            self.notes.append(f"{self._folder / str(step)} is no finished checkpoint; it is kept as {to}")
        return None, steps[-1] if steps else NONE

    def _put_aside_or_refuse(self, step: int, what: str) -> None:
        older = [
            other
            for other in checksums.checkpoint_steps(self._folder)
            if other < step and checksums.damage(self._folder, other) is None
        ]
        if not self._older or not older:
            fix = (
                f"put it back, or resume from step {older[-1]} with --run.older_checkpoint true"
                if older
                else f"put it back; no older checkpoint is whole: {RESTART}"
            )
            raise CheckpointDamaged(f"the newest checkpoint, of step {step}, is damaged: {what}; {fix}")
        if is_first_host():
            to = checksums.set_aside(self._folder, step)
            self.notes.append(f"the checkpoint of step {step} is damaged: {what}; what is left of it is kept as {to}")

    def _load(self, step: int, state: TrainState) -> TrainState:
        kept = dict(self._checkpointer().metadata(step).custom_metadata)
        history = kept.pop(HISTORY, {})
        if different := differences(*by_their_content(self._folder.parent, kept, self._settings)):
            raise CheckpointMismatch(
                f"the checkpoint of step {step} was made with another configuration: {'; '.join(different)}; "
                "give those settings, or another --run.name"
            )
        abstract = jax.tree.map(_abstract, _kept(state))
        self._check_padding(step, state)
        with _without_tracebacks():
            restored = TrainState(**self._checkpointer().load(step, abstract))
        if is_first_host() and not checksums.has_checksums(self._folder, step):
            checksums.record(self._folder, step)
            self.notes.append(f"the checkpoint of step {step} had no checksums; it has from now on")
        self.history = history
        return restored

    def _check_padding(self, step: int, state: TrainState) -> None:
        """All weights are kept with the rows that the mesh's tensor axis added to the vocabulary's."""
        if (table := state.trainable.get("embed_tokens")) is None:
            return
        kept = self._checkpointer().metadata(step).metadata["trainable"]["embed_tokens"]["weight"].shape[0]
        if kept != (rows := table["weight"].shape[0]):
            raise CheckpointMismatch(
                f"the checkpoint of step {step} has an embedding of {kept:,} rows, and this mesh takes {rows:,}: the "
                "vocabulary does not divide over both; resume with the model.tensor that it was made with"
            )

    def _no_longer_needed(self) -> list[int]:
        steps = checksums.checkpoint_steps(self._folder)
        return [step for step in steps[: -self._newest] if step not in self._best]

    def _not_written(self, step: int, before: list[int], error: Exception) -> str:
        safe = f"the newest whole one is of step {before[-1]}" if before else "there is none before it"
        reason = (str(error).strip() or repr(error)).splitlines()[0][:300]
        return (
            f"the checkpoint of step {step} could not be written to {self._folder} ({reason}); {safe}, and nothing "
            "that was there is lost: make room on the disk, and the same command resumes"
        )

    def _checkpointer(self) -> Any:
        """orbax's, which reads the folder when it is made: after everything that is no checkpoint is out of it."""
        if self._opened is None:
            training: Any = ocp.training  # its annotations refuse the very values that its documentation gives
            self._opened = training.Checkpointer(
                self._folder,
                save_decision_policy=training.save_decision_policies.InitialSavePolicy(),
                cleanup_tmp_directories=True,
            )
        return self._opened


@contextmanager
def _without_tracebacks() -> Iterator[None]:
    """orbax's threads log each error with its traceback before it reaches the one that waits for them, which is ours to
    report."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def _without_late_errors() -> Iterator[None]:
    """Where a save fails, some of orbax's threads still write, and tensorstore prints what their callbacks raise once
    the event loop that they belong to is closed, before the error of the save is raised and after it. From here on that
    is not shown, unless the save succeeds; the run ends with the error that was raised first."""
    shown = sys.unraisablehook

    def show(raised: Any) -> None:
        if not (isinstance(raised.exc_value, RuntimeError) and str(raised.exc_value) == "Event loop is closed"):
            shown(raised)

    sys.unraisablehook = show
    yield
    sys.unraisablehook = shown


def _kept(state: TrainState) -> dict[str, Any]:
    """What a checkpoint has of a state: as before `rollout.ahead`, unless there are older weights."""
    return {name: part for name, part in state._asdict().items() if name != "older" or part}


def _abstract(array: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=array.sharding)
