"""Waits for a server are announced: why, how long, until when, and which option bounds them. Imports no jax."""

import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta

Announce = Callable[[str], None]  # takes one line

FIRST_SILENCE = 60.0  # seconds without any completion after which it is announced, then after twice as long, and so on


def on_stderr(line: str) -> None:
    """Where waits are announced by default."""
    print(line, file=sys.stderr, flush=True)


def clock(seconds: float) -> str:
    """The time of day in some seconds, of this machine's clock; with the date where it is another day."""
    now = datetime.now().astimezone()
    then = now + timedelta(seconds=seconds)
    return f"{then:%H:%M:%S}" if then.date() == now.date() else f"{then:%Y-%m-%d %H:%M:%S}"


class Announcer:
    """Announces each wait once: requests that wait at the same time for the same reason are one line."""

    def __init__(self, announce: Announce, options: str = "--server_"):
        self._announce, self._options, self._lock = announce, options, threading.Lock()
        self._until: dict[str, float] = {}

    def wait(self, reason: str, seconds: float, spent: float, most: float) -> None:
        """Before a wait of some seconds; `spent` of the `most` that one request may wait are over."""
        end = time.monotonic() + seconds
        with self._lock:
            if end <= self._until.get(reason, 0.0):
                return
            self._until[reason] = end
        self._announce(
            f"{reason}; the next try is in {seconds:,.1f} s, at {clock(seconds)} (a request waits {most:g} s in all, "
            f"{self._options}wait, and has waited {spent:,.1f})"
        )

    def silence(self, seconds: float, in_flight: int, timeout: float) -> None:
        """No completion has come for some seconds."""
        rest = max(timeout - seconds, 0.0)
        self._announce(
            f"the server has completed nothing for {seconds:,.0f} s, and {in_flight} requests wait for it; each is "
            f"given up after {timeout:g} s without a word ({self._options}timeout), which is {clock(rest)} at the "
            "earliest"
        )
