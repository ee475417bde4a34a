"""One grading process seen from outside: started, asked, and ended by force where it must be.

Between the pool and `worker`. A plain subprocess and pipes instead of multiprocessing, so that it can be used from
a thread, a notebook, and a script without a main guard, and inherits nothing of a parent that runs jax.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

GRACE = 2.0  # seconds between SIGTERM and SIGKILL
MEMORY = 4 * 2**30  # bytes of address space of one process; sympy and its parser need about 0.3 GB

_SOURCE = Path(__file__).resolve().parents[2]  # the folder that holds egrsd_jax


class DeadlinePassed(Exception):
    """No answer came in time."""


class WorkerDied(Exception):
    """The process ended without an answer."""


class WorkerCannotStart(RuntimeError):
    """The process ended, or said nothing, before it was ready: no pair can be graded here."""


class WorkerProcess:
    """A process that grades pairs one after the other. It starts at once, and is ready some seconds later."""

    def __init__(self, deadline: float) -> None:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  (closed by close)
        # Replies have a pipe of their own: whatever prints to standard output cannot get among them.
        self._replies, for_worker = os.pipe()
        limits = [str(deadline + 2 * GRACE), str(MEMORY)]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "egrsd_jax.verify.worker", str(for_worker), *limits],
            stdin=subprocess.PIPE,
            stdout=self._said,
            stderr=self._said,
            pass_fds=[for_worker],
            env=_environment(),
            start_new_session=True,  # Ctrl-C is for the parent, which ends its workers in order
        )
        os.close(for_worker)
        self._received = b""
        self._is_ready = False

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def wait_until_ready(self, seconds: float) -> None:
        """Wait for the imports; WorkerCannotStart where they fail or take longer than `seconds`."""
        if self._is_ready:
            return
        try:
            greeting = self._next_message(seconds)
        except DeadlinePassed:
            raise WorkerCannotStart(
                f"a grading process was not ready after {seconds:g} s{self._last_words()}"
            ) from None
        except WorkerDied as death:
            raise WorkerCannotStart(f"a grading process could not start: {death}{self._last_words()}") from None
        if "failed" in greeting:
            raise WorkerCannotStart(f"a grading process could not start: {greeting['failed']}")
        self._is_ready = True

    def ask(self, prediction: str, answer: str, seconds: float) -> dict[str, Any]:
        """Have one pair graded; DeadlinePassed after `seconds`, WorkerDied where the process ends. Then close it."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"prediction": prediction, "answer": answer}).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise WorkerDied(self._how_it_ended()) from None
        return self._next_message(seconds)

    def end(self) -> None:
        """End the process: SIGTERM, and SIGKILL where that is not heard."""
        end_process(self._process, GRACE)

    def close(self) -> None:
        """End the process and let go of its pipes."""
        self.end()
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        os.close(self._replies)
        self._said.close()

    def _next_message(self, seconds: float) -> dict[str, Any]:
        end = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self._replies, select.POLLIN)
        while b"\n" not in self._received:
            if not poll.poll(max(0.0, end - time.monotonic()) * 1e3):
                raise DeadlinePassed
            if not (read := os.read(self._replies, 65536)):
                raise WorkerDied(self._how_it_ended())
            self._received += read
        line, _, self._received = self._received.partition(b"\n")
        return json.loads(line)

    def _how_it_ended(self) -> str:
        try:
            status = self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            return "the grading process closed its output"
        if status < 0:
            return f"the grading process was ended by {signal.Signals(-status).name}"
        return f"the grading process ended with status {status}"

    def _last_words(self) -> str:
        self._said.seek(0)
        output = self._said.read().decode(errors="replace").strip()
        return f"; its output:\n{output[-2000:]}" if output else ""


def end_process(process: subprocess.Popen[bytes], grace: float) -> None:
    """SIGTERM, then SIGKILL after `grace` seconds; returns when the process is gone."""
    process.terminate()
    try:
        process.wait(grace)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _environment() -> dict[str, str]:
    """Ours, with this very egrsd_jax found first, whatever the working directory is."""
    search = [str(_SOURCE), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(search)}
