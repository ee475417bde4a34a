"""Ctrl-C and SIGTERM: a command ends where its state is whole, or at once where there is nothing to save. No jax.

Signals reach a thread of their own, so they are heard while the main thread compiles or waits for a device, and none
raises in the middle of a write. What a command leaves on disk is whole at every moment, so ending at once loses no more
than a kill does.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import NoReturn

from egrsd_jax.runs import lock

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SECOND = 1.0  # seconds after which another signal is a second one: some that stop a job signal its processes twice
SHOW_CURSOR = "\x1b[?25h"  # progress bars hide it


class Stopped(BaseException):
    """A signal ended the command in order; `code` is its exit code, 130 or 143."""

    def __init__(self, code: int):
        super().__init__(code)
        self.code = code


class _Stop:
    """What this process knows of signals."""

    def __init__(self, says: str = ""):
        self.received: int | None = None
        self.first: float | None = None  # when it came
        self.grace: float | None = None  # seconds for an end in order; None ends at once
        self.says = says
        self.interruptible = False
        self.timer: threading.Timer | None = None  # ends the process when the grace is over


_stop = _Stop()


@contextlib.contextmanager
def listening(says: str) -> Iterator[None]:
    """Until the end of the block a signal ends this process with a line that begins with `stopped` and ends in `says`,
    and with the exit code 128 + its number; at once, or where the block ends by `Stopped`, in order."""
    if threading.current_thread() is not threading.main_thread() or sys.platform == "win32":
        yield
        return
    _stop.__init__(says)
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    before = {number: signal.getsignal(number) for number in SIGNALS}
    wakeup = signal.set_wakeup_fd(writes, warn_on_full_buffer=False)
    listen()
    threading.Thread(target=_listen, args=(reads,), name="signals", daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(writes)
        if _stop.timer is not None:
            _stop.timer.cancel()
        _stop.__init__()


def listen() -> None:
    """Takes the signals; again after a library has taken them for itself, as jax.distributed does with SIGTERM."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            signal.signal(number, _in_main_thread)


def stops_within(grace: float, says: str) -> None:
    """From now on a signal gives this command `grace` seconds to end in order; after that, and at a second signal, it
    ends at once."""
    _stop.grace, _stop.says = grace, says


def resumes(says: str) -> None:
    """What the line of a command that a signal ends is to end in."""
    _stop.says = says


def last_words() -> str:
    """The line that says that the command was stopped, and how it resumes."""
    return f"stopped; {_stop.says}" if _stop.says else "stopped"


def stopping() -> bool:
    """Whether a signal has come."""
    return _stop.received is not None


def code() -> int:
    """The exit code of a command that a signal ends; that of SIGTERM where it came to another host."""
    return 128 + (_stop.received or signal.SIGTERM)


def check() -> None:
    """Raises Stopped where a signal has come."""
    if stopping():
        raise Stopped(code())


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Work that changes nothing that is kept: a signal raises Stopped in the middle of it."""
    check()
    _stop.interruptible = True
    try:
        yield
    finally:
        _stop.interruptible = False
    check()  # where something in between has swallowed it


def _in_main_thread(number: int, _: object) -> None:
    if _stop.interruptible:
        _stop.interruptible = False
        _stop.received = _stop.received or number
        raise Stopped(128 + number)


def _listen(reads: int) -> None:
    """The thread that hears signals, as bytes in a pipe."""
    while numbers := os.read(reads, 64):
        for number in numbers:
            if number in SIGNALS:
                _hear(number)
    os.close(reads)


def _hear(number: int) -> None:
    now = time.monotonic()
    if _stop.grace is None or (_stop.first is not None and now - _stop.first > SECOND):
        _end(number)
    if _stop.first is None:
        _stop.received, _stop.first = number, now
        _stop.timer = threading.Timer(_stop.grace or 0.0, _end, [number])
        _stop.timer.daemon = True
        _stop.timer.start()


def end_with(line: str) -> NoReturn:
    """Ends this process at once, with exit code 1 and a line on why: from any thread."""
    _end_at_once(f"error: {line}", 1)


def _end(number: int) -> None:
    """Ends this process at once, with its last line."""
    _end_at_once(last_words(), 128 + number)


def _end_at_once(line: str, exit_code: int) -> NoReturn:
    with contextlib.suppress(OSError):
        lock.release_all()  # this host's locks are dead anyway, but another host would wait for their heartbeat
    cursor = SHOW_CURSOR if sys.stdout.isatty() else ""
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        os.write(2, f"{cursor}\n{line}\n".encode())
    os._exit(exit_code)
