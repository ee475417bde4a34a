"""Where metrics go besides metrics.jsonl: TensorBoard where it is installed, on request Weights & Biases or trackio.

Offline modes are the trackers' own: with `WANDB_MODE=offline` Weights & Biases writes into the run's folder alone, and
trackio keeps everything on this machine.
"""

import os
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from egrsd_jax.config import Config
from egrsd_jax.runs import layout
from egrsd_jax.runs.files import NotWritten

PROJECT = "egrsd_jax"


class Tracker(Protocol):
    """Takes a run's metrics, step by step."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """The metrics of one step."""
        ...

    def close(self) -> None:
        """The run has ended."""
        ...


class TensorBoard:
    """Event files in the run's folder; what an earlier, killed run wrote from `step` on is dropped.

    A step's points are in the file when `log` returns, and a full disk is an error there. tensorboardX's SummaryWriter
    leaves both to a thread, whose last points a kill loses and whose errors nobody hears.
    """

    def __init__(self, folder: Path, step: int):
        from tensorboardX.event_file_writer import EventsWriter  # imported late: an optional dependency
        from tensorboardX.proto import event_pb2
        from tensorboardX.summary import scalar

        messages: Any = event_pb2  # generated, so that a type checker knows none of it
        self._event, self._scalar = messages.Event, scalar
        (folder / layout.EVENTS).mkdir(exist_ok=True)
        self._folder = folder / layout.EVENTS
        with self._named():
            self._folder.mkdir(exist_ok=True)
            self._events = EventsWriter(str(self._folder / "events"), f".{os.getpid()}")
            start = messages.SessionLog(status=messages.SessionLog.START)
            self._events.write_event(messages.Event(wall_time=time.time(), step=step, session_log=start))
            self._events.flush()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """One point per value."""
        with self._named():
            for name, value in values.items():
                event = self._event(wall_time=time.time(), step=step, summary=self._scalar(name, value))
                self._events.write_event(event)
            self._events.flush()

    def close(self) -> None:
        """Closes the event file."""
        with self._named():
            self._events.close()

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Errors of the system say which folder they are about."""
        try:
            yield
        except OSError as error:
            raise NotWritten(error.errno, error.strerror, str(self._folder)) from None


class WandB:
    """Weights & Biases. A resumed run continues under its id; the steps that it repeats are ignored there."""

    def __init__(self, folder: Path, name: str, settings: dict[str, Any], step: int):
        self._run = import_module("wandb").init(
            project=PROJECT, name=name, id=_run_id(folder, step), resume="allow", config=settings, dir=str(folder)
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """One row."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Marks the run as finished."""
        self._run.finish()


class Trackio:
    """trackio, on this machine. A resumed run continues under its name."""

    def __init__(self, name: str, settings: dict[str, Any], step: int):
        self._trackio = import_module("trackio")
        self._trackio.init(project=PROJECT, name=name, config=settings, resume="allow" if step else "never")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """One row."""
        self._trackio.log(dict(values), step=step)

    def close(self) -> None:
        """Marks the run as finished."""
        self._trackio.finish()


MODULES = {"tensorboard": "tensorboardX", "wandb": "wandb", "trackio": "trackio"}
NO_TENSORBOARD = "metrics go to metrics.jsonl, not to TensorBoard: pip install 'egrsd-jax[plots]' brings tensorboardX"


def check_tracker(track: str) -> None:
    """Raises ValueError, one line, where the tracker of `run.track` is not installed."""
    if track in MODULES and not is_installed(track):
        raise ValueError(f"run.track is {track}, which is not installed: pip install {MODULES[track]}")


def is_installed(tracker: str) -> bool:
    """Whether a tracker's module can be imported."""
    return find_spec(MODULES[tracker]) is not None


def open_trackers(folder: Path, name: str, config: Config, step: int) -> list[Tracker]:
    """The trackers of `run.track`, for a run that begins or resumes at `step`: none for `none`, else TensorBoard where
    it is installed, and next to it the one that is named."""
    track = config.run.track
    check_tracker(track)
    trackers: list[Tracker] = []
    if track != "none" and is_installed("tensorboard"):
        trackers.append(TensorBoard(folder, step))
    if track == "wandb":
        trackers.append(WandB(folder, name, asdict(config), step))
    elif track == "trackio":
        trackers.append(Trackio(name, asdict(config), step))
    return trackers


def _run_id(folder: Path, step: int) -> str:
    """The id that an earlier start of the run left; a new one for a run that begins."""
    file = folder / layout.TRACKER_ID
    if step == 0 or not file.is_file():
        file.write_text(uuid.uuid4().hex[:16], encoding="utf-8")
    return file.read_text(encoding="utf-8")
