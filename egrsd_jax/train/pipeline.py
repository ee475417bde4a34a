"""The rollouts of a run's steps, in order: each sampled when its step begins, or while those before it are computed.

A server that samples has its own machine, so with `rollout.ahead` n the completions of the next n steps are asked for
before a step's gradient, and sampled and graded during it. Which weights sample which step follows from the state
(`TrainState.older`), so that sampling in turn, concurrent sampling, and a run that resumes give the same rollouts. An
engine on the run's own devices would only compete with the gradient: it samples in turn, by the same weights.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from queue import SimpleQueue
from typing import Any, NamedTuple

import jax

from egrsd_jax.model.hosts import fetch, is_first_host
from egrsd_jax.policy import Policy, student
from egrsd_jax.rollout.engine import Engine
from egrsd_jax.rollout.first_host import own_engine, to_all_hosts
from egrsd_jax.rollout.grading import Grade, Grader
from egrsd_jax.rollout.requests import Completion, OnCompletion, Sampling, complete
from egrsd_jax.train.collect import Asked, Rollout, ask, collect, graded, judged, version_of
from egrsd_jax.train.setup import Prepared
from egrsd_jax.train.state import TrainState, copied


class _Worker:
    """A thread that does one job after the other. It is a daemon: a server that never answers keeps no run alive."""

    def __init__(self, name: str):
        self._jobs: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def submit(self, job: Callable[[], Any]) -> "Future[Any]":
        """The future result of a job that begins when those before it have ended."""
        future: Future[Any] = Future()
        self._jobs.put((future, job))
        return future

    def end(self) -> None:
        """No job begins any more; one that runs is not waited for."""
        self._jobs.put(None)

    def _work(self) -> None:
        while (entry := self._jobs.get()) is not None:
            future, job = entry
            try:
                future.set_result(job())
            except BaseException as error:  # whoever waits for the result raises it
                future.set_exception(error)


class _Pending(NamedTuple):
    """A step's completions that are on their way: each as it ends, then None; all of them; and all with their grades.

    Futures are those of the first host; the others have what it will send them.
    """

    asked: Asked
    ended: "SimpleQueue[Completion | None]"
    completions: "Future[tuple[list[Completion], float]] | None"
    grades: "Future[tuple[list[Grade], float]] | None"


class Pipeline:
    """The rollouts of a run's steps, in order.

    With `rollout.ahead`, `concurrent` says whether completions are sampled while the steps before are computed: by
    default where the engine is not on the run's own devices.
    """

    def __init__(self, run: Prepared, grader: Grader, *, concurrent: bool | None = None):
        self._run, self._grader = run, grader
        elsewhere = not isinstance(run.engine, Engine)
        self._concurrent = run.config.rollout.ahead > 0 and (elsewhere if concurrent is None else concurrent)
        self._pending: dict[int, _Pending] = {}
        self._given: tuple[int, Policy] | None = None  # the newest version that was asked with
        self._threads: dict[str, _Worker] = {}
        if self._concurrent and is_first_host():
            self._threads = {name: _Worker(name) for name in ("sampling", "grading")}

    def rollout(self, state: TrainState, *, on_completion: OnCompletion | None = None) -> Rollout:
        """The state's next step: graded, rewarded, and asked for at most `rollout.ahead` steps ago.

        The next steps are asked for first. Raises what sampling or grading raised.
        """
        if not self._concurrent:
            return collect(self._run, state, self._grader, on_completion=on_completion)
        for after, weights in enumerate((*state.older, state.trainable)):
            asked = ask(self._run, state, after)
            if asked.step not in self._pending and asked.step < self._run.config.train.steps:
                self._pending[asked.step] = self._submit(asked, self._policy(asked, weights))
        return self._receive(state, self._pending.pop(int(state.step)), on_completion)

    def finish_pending(self) -> None:
        """Returns when nothing is being sampled or graded, so that another may ask the engine."""
        futures: list[Future[Any]] = []
        for pending in self._pending.values():
            futures += [future for future in (pending.completions, pending.grades) if future is not None]
        wait(futures)

    def close(self) -> None:
        """Nothing is asked for any more."""
        for thread in self._threads.values():
            thread.end()

    def _policy(self, asked: Asked, weights: Any) -> Policy:
        """The student with these weights, on this host and in no array that a step donates; every host takes part.

        One version is one object, so that a server gets it once.
        """
        version = version_of(self._run.config, asked.step)
        if self._given is None or self._given[0] != version:
            self._given = version, student(fetch(copied(weights)), self._run.base, self._run.config.lora)
        return self._given[1]

    def _submit(self, asked: Asked, policy: Policy) -> _Pending:
        run, ended = self._run, SimpleQueue()
        engine = own_engine(run.engine)
        if engine is None or not self._threads:
            return _Pending(asked, ended, None, None)
        requests = asked.requests(
            run.problems.student_prompts, Sampling.of(run.config.rollout), range(len(asked.problem))
        )

        def sample() -> tuple[list[Completion], float]:
            started = time.perf_counter()
            try:
                engine.update_params(*policy)
                completions = complete(engine, requests, on_completion=ended.put)
            finally:
                ended.put(None)
            return completions, time.perf_counter() - started

        completions = self._threads["sampling"].submit(sample)

        def grade() -> tuple[list[Grade], float]:
            written, _ = completions.result()
            started = time.perf_counter()
            return graded(run, self._grader, asked, written), time.perf_counter() - started

        alone = jax.process_count() == 1  # several hosts grade together, each a part, when all have the completions
        return _Pending(asked, ended, completions, self._threads["grading"].submit(grade) if alone else None)

    def _receive(self, state: TrainState, pending: _Pending, on_completion: OnCompletion | None) -> Rollout:
        run, asked, seconds = self._run, pending.asked, {}
        if pending.completions is not None:
            for completion in iter(pending.ended.get, None):
                if on_completion is not None:
                    on_completion(completion)

        def sampled() -> list[Completion]:
            assert pending.completions is not None  # the first host has asked
            completions, seconds["seconds_sampling"] = pending.completions.result()
            return completions

        if pending.grades is not None:
            completions = sampled()
            grades, seconds["seconds_grading"] = pending.grades.result()
        else:
            completions = to_all_hosts(sampled, len(asked.problem), run.config.rollout.max_new_tokens)
            started = time.perf_counter()
            grades = graded(run, self._grader, asked, completions)
            seconds["seconds_grading"] = time.perf_counter() - started
        rollout = judged(run, state, self._grader, asked, completions, grades)
        return rollout._replace(metrics=rollout.metrics | seconds)
