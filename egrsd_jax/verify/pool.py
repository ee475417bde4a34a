"""Many answers graded under a deadline: what needs algebra is worked out in processes that can be killed.

Used by training (the reward) and by evaluation. Nothing is silently a zero or a one: an answer that could not be graded
says so, and why.
"""

import os
import queue
import threading
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Self

from egrsd_jax.verify.grade import bare, refusal, settle
from egrsd_jax.verify.process import DeadlinePassed, WorkerDied, WorkerProcess

DEADLINE = 5.0  # seconds for one pair
TASKS_PER_WORKER = 500  # after which a process is replaced: sympy's caches only grow
START_LIMIT = 120.0  # seconds for the imports of a process, 1 to 2 on an idle machine

Pair = tuple[str, str]


class Outcome(StrEnum):
    """How grading ended."""

    CORRECT = "correct"
    WRONG = "wrong"
    UNGRADABLE = "ungradable"

    @classmethod
    def _missing_(cls, value: object) -> "Outcome | None":
        """Read what earlier versions wrote into their files: a correct answer was called "right"."""
        return Outcome.CORRECT if value == "right" else None


@dataclass(frozen=True)
class Verdict:
    """The outcome of one pair, how or why it came about, and the seconds that it took, a worker's start included."""

    outcome: Outcome
    reason: str
    seconds: float = field(default=0.0, compare=False)

    @property
    def correct(self) -> bool:
        """Whether the prediction is correct."""
        return self.outcome is Outcome.CORRECT

    @property
    def ungradable(self) -> bool:
        """Whether it could not be graded."""
        return self.outcome is Outcome.UNGRADABLE


class GradingPool:
    """Grades pairs of answers, the hard ones in parallel processes with a deadline; safe to use from several threads.

    Processes are started when the first pair needs one, replaced after `tasks_per_worker` pairs, killed (SIGTERM, then
    SIGKILL) when `deadline` seconds have passed for a pair, and ended by `close`, by leaving the `with` block, or when
    the interpreter exits. Starting up does not count against the deadline.
    """

    def __init__(
        self, workers: int | None = None, *, deadline: float = DEADLINE, tasks_per_worker: int = TASKS_PER_WORKER
    ) -> None:
        workers = workers if workers is not None else min(8, os.cpu_count() or 1)
        for name, value in (("workers", workers), ("tasks_per_worker", tasks_per_worker)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, and is {value}")
        if not deadline > 0:
            raise ValueError(f"deadline must be a positive number of seconds, and is {deadline}")
        self._seats = [_Seat(deadline, tasks_per_worker) for _ in range(workers)]
        self._free: queue.LifoQueue[_Seat] = queue.LifoQueue()  # last in, first out: as few processes as are needed
        for seat in self._seats:
            self._free.put(seat)
        self._finish = weakref.finalize(self, _close_all, self._seats)  # also runs at exit

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End every process. A `grade_many` that still runs in another thread raises RuntimeError."""
        self._finish()

    @property
    def worker_pids(self) -> list[int]:
        """The process ids of the workers that run now."""
        return [pid for seat in self._seats if (pid := seat.pid) is not None]

    def grade_many(self, pairs: Sequence[tuple[str | None, str]]) -> list[Verdict]:
        """Grade (prediction, gold answer) pairs of bare answers; a prediction of None, no answer, is wrong.

        One verdict for each pair, in order. Equal pairs are graded once. Raises WorkerCannotStart where no grading
        process can run (sympy is not installed), RuntimeError when the pool is closed.
        """
        if not self._finish.alive:
            raise RuntimeError("the grading pool is closed")
        verdicts: dict[tuple[str | None, str], Verdict] = {}
        hard: list[Pair] = []
        for prediction, answer in dict.fromkeys((prediction, answer) for prediction, answer in pairs):
            if prediction is None:
                verdicts[prediction, answer] = Verdict(Outcome.WRONG, "no answer")
            elif (verdict := _without_algebra(prediction, answer)) is not None:
                verdicts[prediction, answer] = verdict
            else:
                hard.append((prediction, answer))
        verdicts.update(zip(hard, self._work_out(hard), strict=True))
        return [verdicts[prediction, answer] for prediction, answer in pairs]

    def _work_out(self, pairs: list[Pair]) -> list[Verdict]:
        if not pairs:
            return []
        threads = ThreadPoolExecutor(min(len(pairs), len(self._seats)), thread_name_prefix="grading")
        try:
            return list(threads.map(self._work_out_one, pairs))
        finally:
            threads.shutdown(cancel_futures=True)

    def _work_out_one(self, pair: Pair) -> Verdict:
        seat = self._free.get()
        start = time.perf_counter()
        try:
            verdict = seat.grade(*map(bare, pair))
            return replace(verdict, seconds=time.perf_counter() - start)
        finally:
            self._free.put(seat)


def _without_algebra(prediction: str, answer: str) -> Verdict | None:
    """The verdict where this process can give it at once; None where a worker has to."""
    start = time.perf_counter()
    verdict = _settled(prediction, answer)
    return None if verdict is None else replace(verdict, seconds=time.perf_counter() - start)


def _settled(prediction: str, answer: str) -> Verdict | None:
    try:
        if (correct := settle(prediction, answer)) is not None:
            return Verdict(Outcome.CORRECT if correct else Outcome.WRONG, "settled without algebra")
        if (reason := refusal(prediction, answer)) is not None:
            return Verdict(Outcome.UNGRADABLE, reason)
    except Exception as error:
        return Verdict(Outcome.UNGRADABLE, f"{type(error).__name__}: {str(error)[:200]}")
    return None


class _Seat:
    """A place for one worker process, which is replaced when it is used up, dead, or late."""

    def __init__(self, deadline: float, tasks_per_worker: int) -> None:
        self._deadline, self._tasks_per_worker = deadline, tasks_per_worker
        self._in_use = threading.Lock()
        self._worker: WorkerProcess | None = None
        self._tasks = 0
        self._is_closed = False

    @property
    def pid(self) -> int | None:
        worker = self._worker
        return worker.pid if worker is not None and worker.is_alive else None

    def grade(self, prediction: str, answer: str) -> Verdict:
        with self._in_use:
            worker = self._fresh_worker()
            try:
                worker.wait_until_ready(START_LIMIT)
                self._tasks += 1
                reply = worker.ask(prediction, answer, self._deadline)
            except DeadlinePassed:
                self._vacate()
                return Verdict(Outcome.UNGRADABLE, f"the deadline of {self._deadline:g} s passed")
            except WorkerDied as death:
                self._vacate()
                return Verdict(Outcome.UNGRADABLE, str(death))
            except BaseException:
                self._vacate()
                raise
        if "error" in reply:
            return Verdict(Outcome.UNGRADABLE, reply["error"])
        return Verdict(Outcome.CORRECT if reply["correct"] else Outcome.WRONG, "worked out by algebra")

    def close(self) -> None:
        self._is_closed = True
        if (worker := self._worker) is not None:
            worker.end()  # a thread that waits for its answer sees it end, and leaves the seat
        with self._in_use:
            self._vacate()

    def _fresh_worker(self) -> WorkerProcess:
        if self._is_closed:
            raise RuntimeError("the grading pool was closed while it was grading")
        if self._worker is not None and (self._tasks >= self._tasks_per_worker or not self._worker.is_alive):
            self._vacate()
        if self._worker is None:
            self._worker, self._tasks = WorkerProcess(self._deadline), 0
        return self._worker

    def _vacate(self) -> None:
        if self._worker is not None:
            self._worker.close()
            self._worker = None


def _close_all(seats: list[_Seat]) -> None:
    for seat in seats:
        seat.close()
