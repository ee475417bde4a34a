"""The engine of a run whose completions come from servers, vLLM's or SGLang's. Imports jax to write weights alone.

A `requests.Sampler`, as the engine on the mesh is: `update_params(params, lora)` gives a new version of the weights to
every server and returns its number, and `generate(requests)` samples with the version that was the last one when it was
called. A completion's `version` says which that was, whatever is given meanwhile: completions may be asked for in one
thread while another gives new weights, with one lock around `update_params` and the call of `generate` after it.
Adapters of different versions are at a server at the same time. Of all weights it has one version, so that
`update_params` waits until no completion of an older one is under way.

What passes is waited for. A server that cannot be reached, answers 429 or 5xx, is silent, or was started again without
the weights, is tried again until `wait` seconds of waits are over, and gets the weights again before any request; its
requests go to the other servers meanwhile. Whoever waits, a line says why and until when. Where no server is left, or
one refuses for good, the call ends with one ServerError and no completion is used twice.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from egrsd_jax.rollout.http import server as http_server
from egrsd_jax.rollout.http.server import CallEnded, Server, ServerError
from egrsd_jax.rollout.http.waits import Announce, clock, on_stderr
from egrsd_jax.rollout.requests import Completion, OnTokens, Request, Sampling
from egrsd_jax.rollout.served.batch import Batch
from egrsd_jax.rollout.served.remote import Remote
from egrsd_jax.rollout.served.weights import SharedFolder, Weights

OPTIONS = "--rollout.server_"  # what the options that bound waits begin with


@dataclass
class _State:
    """How a server does: whether it has failed since its last completion, and what was waited since then."""

    error: ServerError | None = None
    waited: float = 0.0
    next_wait: float = 0.0
    gone: bool = False  # nothing was heard of it in all of the time that it has
    tries: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class ServedEngine:
    """Completions of a policy that is trained here, from servers that are given its weights.

    Args:
        urls: the servers, which have the same model.
        stop_ids: tokens that end a completion.
        folder: where versions of the weights are written for them.
        trains: `adapter`, or `all` weights.
        base: the parameters under the adapter; given without an adapter they are the base model itself.
        vocab_size: the model's.
        model: the model's name there, by default the only one.
        in_flight: requests that each server has at once.
        wait: seconds that a server is waited for, in all, until it completes something again.
        timeout: seconds without a word after which a request is tried again.
        api_key: goes with every request.
        announce: is given a line for each wait.

    Raises ServerError or ValueError, one line, for servers that cannot be reached or cannot take part.
    """

    def __init__(
        self,
        urls: Sequence[str],
        stop_ids: Sequence[int],
        folder: SharedFolder,
        *,
        trains: Literal["adapter", "all"],
        vocab_size: int,
        model: str | None = None,
        in_flight: int = 64,
        wait: float = 1800.0,
        timeout: float = 3600.0,
        api_key: str | None = None,
        announce: Announce = on_stderr,
    ):
        self.announce = announce
        servers = [
            Server(url, api_key=api_key, wait=wait, timeout=timeout, announce=self._say, options=OPTIONS)
            for url in urls
        ]
        self._remotes = [
            Remote(server, stop_ids, model=model, vocab_size=vocab_size, of_run=folder.of_run) for server in servers
        ]
        self._states = {remote.url: _State() for remote in self._remotes}
        self._trains: Literal["adapter", "all"] = trains
        self._folder, self._in_flight, self._wait, self._timeout = folder, in_flight, wait, timeout
        self._current: Weights | None = None
        self._arrays: list[Any] | None = None  # of the current version
        self._users: dict[Weights, int] = {}  # calls that are under way, by version
        self._changed = threading.Condition()
        self._batches: set[Batch] = set()
        self._trial: tuple[list[int], Sampling] | None = None
        self.seconds_push = 0.0  # of the last version: written, loaded, and the one before it removed

    def check(self, prompt: Sequence[int], sampling: Sampling, longest: int) -> None:
        """Checks every server as far as that is possible before it has weights: the length of its context, and whether
        it can be given what is trained. `prompt` and `sampling` are of the run; a few tokens are tried out with them
        once the first version is there. Raises ServerError or ValueError, one line that says how to fix it."""
        for remote in self._remotes:
            remote.check(self._trains, longest, tied=self._folder.tied)
            if remote.kind == "sglang" and sampling.temperature not in (0.0, 1.0):
                raise ValueError(
                    f"{remote.url} is SGLang, whose log-probabilities are of the logits divided by the temperature: "
                    f"with rollout.temperature {sampling.temperature} they are not the policy's; make it 1, or serve "
                    "with vLLM"
                )
        self._trial = [*prompt], sampling

    def update_params(self, params: Any, lora: Any = None) -> int:
        """The weights of all completions from now on: an adapter, or all parameters where all are trained; without an
        adapter, where one is trained, the base model. Returns their version. Weights that the servers have already are
        not given again.

        Arrays are read before this returns. Servers that cannot be reached get them later, before their next request.
        Raises ServerError for one that refuses, OSError for a folder that cannot be written.
        """
        arrays = _leaves((params, lora))
        if self._current is not None and self._arrays is not None and _same(self._arrays, arrays):
            return self._current.version
        start, first = time.perf_counter(), self._current is None
        if first:
            self._folder.clear()
        version = 1 if self._current is None else self._current.version + 1
        if self._trains == "all":
            self._wait_for_users()
            weights = self._folder.write_all(version, params)
        elif lora is None:
            weights = Weights(version, "base", "")
        else:
            weights = self._folder.write_adapter(version, lora)
        self._arrays = arrays
        with self._changed:
            self._current = weights
            self._users.setdefault(weights, 0)
        for remote in self._remotes:
            self._give(remote, weights)
        if self._trial is not None:
            self._try_out(weights)
        self._remove_unused()
        self.seconds_push = time.perf_counter() - start
        return version

    def generate(
        self, requests: Sequence[Request], *, on_tokens: OnTokens | None = None
    ) -> Iterator[tuple[int, Completion]]:
        """Each request's number and completion, in the order in which they end; see `Sampler`.

        `on_tokens` is called with all of one's tokens at its end. Closing the iterator early drops what is in flight.
        Raises ServerError where no server completes them, RuntimeError before weights were given.
        """
        if (weights := self._current) is None:
            raise RuntimeError("the servers have no weights yet; call update_params first")
        for number, request in enumerate(requests):
            if not request.prompt:
                raise ValueError(f"prompt {number} is empty; a completion needs a token before it")
        return self._generate(weights, requests, on_tokens)

    def close(self) -> None:
        """Drops what is in flight, and takes every version from the servers and from the folder."""
        for batch in list(self._batches):
            batch.end()
        with self._changed:
            unused = [*self._users]
            self._users.clear()
            self._current = self._arrays = None
        self._remove(unused)

    def _generate(
        self, weights: Weights, requests: Sequence[Request], on_tokens: OnTokens | None
    ) -> Iterator[tuple[int, Completion]]:
        batch, count = Batch(len(requests)), len(requests)
        for state in self._states.values():
            state.gone = False
        threads = [
            threading.Thread(target=self._work, args=(remote, batch, requests, weights), daemon=True)
            for remote in self._remotes
            for _ in range(min(self._in_flight, count))
        ]
        with self._changed:
            self._users[weights] = self._users.get(weights, 0) + 1
            self._batches.add(batch)
        try:
            for thread in threads:
                thread.start()
            for number, completion in batch.completions(count, lambda seconds: self._announce_silence(batch, seconds)):
                if on_tokens is not None:
                    on_tokens(number, completion.tokens)
                yield number, completion
        finally:
            batch.end()
            for thread in threads:
                if thread.ident is not None:
                    thread.join()
            with self._changed:
                self._batches.discard(batch)
                if weights in self._users:
                    self._users[weights] -= 1
                self._changed.notify_all()

    def _work(self, remote: Remote, batch: Batch, requests: Sequence[Request], weights: Weights) -> None:
        """Asks a server for one completion after the other."""
        state = self._states[remote.url]
        try:
            if state.error is not None and not self._revive(remote, batch, weights, state.tries):
                return
            while (number := batch.take()) is not None:
                tries = state.tries
                try:
                    completion = remote.complete(requests[number], weights, batch.call)
                except ServerError as error:
                    batch.give_back(number)
                    if not error.passes or (error.silent and batch.silences(number) >= http_server.SILENCES):
                        raise
                    state.error = error
                    if not self._revive(remote, batch, weights, tries):
                        return
                except BaseException:
                    batch.give_back(number)
                    raise
                else:
                    state.error, state.waited, state.next_wait = None, 0.0, 0.0
                    batch.complete(number, completion)
        except CallEnded:
            pass
        except Exception as error:
            batch.fail(error)

    def _revive(self, remote: Remote, batch: Batch, weights: Weights, tries: int) -> bool:
        """Waits until a server can be asked again, and has the weights; False where the time for it is over.

        Of the threads that ask a server one waits, for all. `tries` is how often it had been revived before.
        """
        state = self._states[remote.url]
        with state.lock:
            while state.tries == tries and not state.gone:
                if batch.call.over:
                    raise CallEnded
                error = state.error
                if error is None:
                    break
                state.next_wait = state.next_wait or http_server.FIRST_WAIT
                seconds = max(error.after, state.next_wait)
                if state.waited + seconds > self._wait:
                    state.gone = True
                    self._give_up(remote, batch, error)
                    break
                rest = self._wait - state.waited
                self._say(
                    f"{error}; the step waits for {remote.url}, the next try is in {seconds:,.1f} s, at "
                    f"{clock(seconds)}, and it is given up at {clock(rest)} ({OPTIONS}wait {self._wait:g} s)"
                )
                batch.call.wait(seconds)
                state.waited += seconds
                state.next_wait = min(2 * state.next_wait, http_server.LONGEST_WAIT)
                try:
                    remote.give(weights, self._in_use())
                except ServerError as again:
                    if not again.passes:
                        raise
                    state.error = again
                else:
                    state.tries += 1
            return not state.gone

    def _give_up(self, remote: Remote, batch: Batch, error: ServerError) -> None:
        """A server that was waited for long enough: the others do without it, if there are any."""
        if all(state.gone for state in self._states.values()):
            batch.fail(
                ServerError(
                    f"{error}; {remote.url} was waited for {self._states[remote.url].waited:,.0f} s, and "
                    f"{OPTIONS}wait makes it more"
                )
            )
        else:
            self._say(f"{error}; {remote.url} is given up for this step, and the other servers complete it")

    def _give(self, remote: Remote, weights: Weights) -> None:
        state = self._states[remote.url]
        try:
            remote.give(weights, self._in_use())
        except ServerError as error:
            if not error.passes:
                raise
            state.error = error
        else:
            state.error = None

    def _try_out(self, weights: Weights) -> None:
        """The first completion of each server, once; of one that cannot be reached it is the next time."""
        assert self._trial is not None
        prompt, sampling = self._trial
        try:
            for remote in self._remotes:
                if self._states[remote.url].error is None:
                    remote.try_out(prompt, weights, sampling)
        except ServerError as error:
            if not error.passes:
                raise
            return
        self._trial = None

    def _in_use(self) -> set[str]:
        """The names of versions that a call is under way with, and of the current one."""
        with self._changed:
            kept = {weights.name for weights, users in self._users.items() if users}
            return kept | ({self._current.name} if self._current is not None else set())

    def _wait_for_users(self) -> None:
        with self._changed:
            while any(self._users.values()):
                self._changed.wait()

    def _remove_unused(self) -> None:
        with self._changed:
            unused = [weights for weights, users in self._users.items() if not users and weights is not self._current]
            for weights in unused:
                del self._users[weights]
        self._remove(unused)

    def _remove(self, unused: Sequence[Weights]) -> None:
        for weights in unused:
            for remote in self._remotes:
                if self._states[remote.url].error is None:
                    remote.take(weights)
            self._folder.remove(weights)

    def _announce_silence(self, batch: Batch, seconds: float) -> None:
        asked = batch.in_flight
        if asked and all(state.error is None for state in self._states.values()):
            self._say(
                f"nothing was completed for {seconds:,.0f} s, and {asked} requests are with the servers; each is tried "
                f"again after {self._timeout:g} s without a word ({OPTIONS}timeout)"
            )

    def _say(self, line: str) -> None:
        self.announce(line)


def _leaves(tree: Any) -> list[Any]:
    import jax  # imported late: what only asks servers needs none

    return jax.tree.leaves(tree)


def _same(one: Sequence[Any], other: Sequence[Any]) -> bool:
    return len(one) == len(other) and all(a is b for a, b in zip(one, other, strict=True))
