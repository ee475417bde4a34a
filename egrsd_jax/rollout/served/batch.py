"""The requests of one call to the engine: each is with one server at a time, and completed once. Imports no jax."""

import threading
from collections import Counter, deque
from collections.abc import Iterator

from egrsd_jax.rollout.http.server import Call
from egrsd_jax.rollout.http.waits import FIRST_SILENCE
from egrsd_jax.rollout.requests import Completion


class Batch:
    """The numbers of requests that wait, that are with a server, and that are done; threads take them and give them
    back."""

    def __init__(self, count: int):
        self.call = Call()
        self._waiting, self._open = deque(range(count)), count
        self._done: deque[tuple[int, Completion]] = deque()
        self._failure: Exception | None = None
        self._condition = threading.Condition()
        self._silences: Counter[int] = Counter()

    @property
    def in_flight(self) -> int:
        """Requests that are with a server."""
        with self._condition:
            return self._open - len(self._waiting)

    def take(self) -> int | None:
        """A request that waits; None once there will be none any more."""
        with self._condition:
            while not self._over() and self._open and not self._waiting:
                self._condition.wait()
            return None if self._over() or not self._open else self._waiting.popleft()

    def give_back(self, number: int) -> None:
        """A request waits again: its server has not completed it."""
        with self._condition:
            self._waiting.appendleft(number)
            self._condition.notify_all()

    def silences(self, number: int) -> int:
        """Counts a try of a request that nothing was answered to; returns how many there were."""
        with self._condition:
            self._silences[number] += 1
            return self._silences[number]

    def complete(self, number: int, completion: Completion) -> None:
        """A request is done."""
        with self._condition:
            self._done.append((number, completion))
            self._open -= 1
            self._condition.notify_all()

    def fail(self, error: Exception) -> None:
        """No request can be completed any more."""
        with self._condition:
            self._failure = self._failure or error
            self._condition.notify_all()

    def end(self) -> None:
        """Nobody waits for the rest: open connections are closed, and a server gives up what it did for them."""
        self.call.end()
        with self._condition:
            self._condition.notify_all()

    def completions(self, count: int, on_silence) -> Iterator[tuple[int, Completion]]:
        """Each completion as it ends. `on_silence` is called with the seconds since the last one, now and then.

        Raises what `fail` was called with, after the completions that came before it.
        """
        for _ in range(count):
            silent, patience = 0.0, FIRST_SILENCE
            with self._condition:
                while not self._done and self._failure is None:
                    if not self._condition.wait_for(self._has_news, timeout=patience):
                        silent, patience = silent + patience, 2 * patience
                        on_silence(silent)
                if not self._done:
                    assert self._failure is not None
                    raise self._failure
                done = self._done.popleft()
            yield done

    def _has_news(self) -> bool:
        return bool(self._done) or self._failure is not None

    def _over(self) -> bool:
        return self._failure is not None or self.call.over
