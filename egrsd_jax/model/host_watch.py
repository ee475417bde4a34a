"""Hosts of one run that watch each other, so that a host which is gone is named within a stated time. No jax.

jax ends a process whose coordinator is gone, or that another host no longer reaches, with lines of its own that name
no host; a collective with a host that is frozen ends in no error at all. So each host writes a number that grows to the
store that jax's coordinator, on host 0, keeps, and reads those of the others. A host whose number has not grown for the
heartbeat's seconds is lost; where the store cannot be reached for as long, host 0 is. Where jax is faster and ends this
process, a small process that was started before says so.
"""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

BEATS = "egrsd_jax/beats/"  # of every host, in the coordinator's store
FAILED, ENDED = "failed: ", "ended"  # what a host writes last, in place of a number
NOTICE_SECONDS = 2.0  # for a host that has failed in the same way to say so itself
HOW_TO_FIX = "start the same commands again on all hosts, and they resume from the newest checkpoint"
# Waits until the process that started it has ended. Where that has said nothing of its own and host 0 no longer
# listens, it is jax that ended it, for the want of host 0.
_LAST_WORDS = """
import os, socket, sys
address, port, line = sys.argv[1:]
if not sys.stdin.buffer.read():
    try:
        socket.create_connection((address, int(port)), 5).close()
    except OSError:
        os.write(2, line.encode() + b"\\n")
"""


class HostWatch:
    """What one host knows of the others. `store` is jax's client of its coordinator, at `coordinator`.

    `end` is called, in a thread, with the line that names a host that is lost; it does not return.
    """

    def __init__(
        self,
        store: Any,
        coordinator: str,
        hosts: int,
        host: int,
        *,
        heartbeat: float,
        end: Callable[[str], NoReturn],
    ):
        self._store, self._host, self._heartbeat, self._end = store, host, heartbeat, end
        self._others = [other for other in range(hosts) if other != host]
        self._interval = min(1.0, heartbeat / 5)
        self._coordinator = coordinator
        now = time.monotonic()
        self._reached, self._heard = now, dict.fromkeys(self._others, now)
        self._beats: dict[int, str] = {}
        self._stopped, self._writing = threading.Event(), threading.Lock()
        self._speaker = _speaker(coordinator, host) if host != 0 else None

    def start(self) -> None:
        """Begins to watch."""
        for work in (self._exchange, self._judge):
            threading.Thread(target=work, name="host watch", daemon=True).start()

    def stop(self) -> None:
        """This host comes to its end, and counts as lost no more. The reason of one that has failed stays."""
        if not self._stopped.is_set():
            self._leave(ENDED)
        self.say_nothing()

    def fail(self, reason: str, gone: Sequence[int] = ()) -> None:
        """This host ends by an error, whose reason the others are given. Host 0, with which their store goes and jax
        ends them, waits until those that are not `gone` have read it and ended as well."""
        if 0 not in gone:
            self._leave(f"{FAILED}{reason}")
        if self._host != 0:
            return
        until, others = time.monotonic() + 3 * NOTICE_SECONDS, set(self._others).difference(gone)
        while time.monotonic() < until and not all(map(self._has_left, others)):
            time.sleep(0.1)
            with contextlib.suppress(Exception):
                self._read()
        if others:
            time.sleep(NOTICE_SECONDS / 2)  # for what they still print

    def silent(self) -> list[int]:
        """The hosts that are gone, after an error that has no name: those that say no more, or that have failed.
        Takes a few seconds; all others where it cannot be known."""
        if self._host == 0:
            with contextlib.suppress(Exception):
                self._read()
        if len(self._others) == 1:
            return self._others
        if failed := [other for other in self._others if self.reason(other) is not None]:
            return failed
        before, until = dict(self._beats), time.monotonic() + 4 * self._interval
        while time.monotonic() < until:
            time.sleep(self._interval / 4)
        if time.monotonic() - self._reached > 2 * self._interval and self._host != 0:
            return [0]
        silent = [other for other in self._others if self._beats.get(other) == before.get(other)]
        return silent or self._others

    def reason(self, host: int) -> str | None:
        """Why a host has ended, where it gave a reason."""
        beat = self._beats.get(host, "")
        return beat.removeprefix(FAILED) if beat.startswith(FAILED) else None

    def say_nothing(self) -> None:
        """The end of this process has a line of its own: no other one is needed."""
        if self._speaker is not None:
            with contextlib.suppress(OSError):
                os.write(self._speaker, b".")

    def end(self, line: str) -> NoReturn:
        """Ends this process at once with a line, before jax does without one."""
        self.say_nothing()
        self._end(line)

    def _leave(self, last: str) -> None:
        self._stopped.set()

        def write() -> None:
            with contextlib.suppress(Exception), self._writing:  # the coordinator may be gone before this host
                self._store.key_value_set(f"{BEATS}{self._host}", last, allow_overwrite=True)

        writes = threading.Thread(target=write, daemon=True)
        writes.start()
        writes.join(NOTICE_SECONDS)  # where the network is gone it never returns

    def _has_left(self, other: int) -> bool:
        return self._beats.get(other, "").startswith((FAILED, ENDED))

    def _exchange(self) -> None:
        """Writes and reads, as long as the store answers; while it does not, these calls wait or fail."""
        number = 0
        while not self._stopped.is_set():
            with contextlib.suppress(Exception):  # jaxlib's are of many types: what counts is when it last worked
                with self._writing:
                    if not self._stopped.is_set():
                        self._store.key_value_set(f"{BEATS}{self._host}", str(number), allow_overwrite=True)
                self._read()
            number += 1
            self._stopped.wait(self._interval)

    def _read(self) -> None:
        beats = {int(name.rpartition("/")[2]): beat for name, beat in self._store.key_value_dir_get(BEATS)}
        now = time.monotonic()
        for other in self._others:
            if beats.get(other) != self._beats.get(other):
                self._heard[other] = now
        self._beats, self._reached = beats, now

    def _judge(self) -> None:
        looked = time.monotonic()
        while not self._stopped.wait(self._interval):
            now = time.monotonic()
            if now - looked > self._heartbeat / 2:  # it was this process that was stopped
                self._reached, self._heard = now, dict.fromkeys(self._others, now)
            looked = now
            for other in self._others:
                if (line := self.verdict(other, now)) is not None:
                    self.fail(line, gone=[other])
                    self.end(line)

    def verdict(self, other: int, now: float) -> str | None:
        """The line on another host that is lost; None where it is not."""
        if other == 0 and now - self._reached > self._heartbeat:
            return f"host {self._host} lost host 0: {self._silence()} at {self._coordinator}; {HOW_TO_FIX}"
        passed = now - self._heard[other]
        if (reason := self.reason(other)) is not None and passed > NOTICE_SECONDS:
            return f"host {self._host} ends, since host {other} has ended: {reason}"
        if not self._has_left(other) and passed > self._heartbeat:
            return f"host {self._host} lost host {other}: {self._silence()}; {HOW_TO_FIX}"
        return None

    def _silence(self) -> str:
        return f"no sign of life for {self._heartbeat:g} s (run.heartbeat)"


def _speaker(coordinator: str, host: int) -> int:
    """Starts the process of `_LAST_WORDS`; returns where to write that it is not needed."""
    address, _, port = coordinator.rpartition(":")
    line = f"error: host {host} lost host 0: nothing answers at {coordinator}; {HOW_TO_FIX}"
    reads, writes = os.pipe()
    command: Sequence[str] = [sys.executable, "-I", "-S", "-c", _LAST_WORDS, address.strip("[]"), port, line]
    process = subprocess.Popen(command, stdin=reads, stdout=subprocess.DEVNULL, start_new_session=True)
    process.returncode = 0  # nobody waits for it: it ends after this process
    os.close(reads)
    return writes
