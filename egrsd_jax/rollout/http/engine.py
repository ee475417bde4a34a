"""Completions from an OpenAI-compatible server: vLLM, SGLang, `transformers serve` or another. Imports no jax.

It has the same three calls as the engine on a mesh (`requests.Sampler`), for evaluation at scale.
"""

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from egrsd_jax.rollout.http.dialects import Text, Tokens
from egrsd_jax.rollout.http.models import Kind, kind_of, listed_models
from egrsd_jax.rollout.http.openai import Chat, Completions
from egrsd_jax.rollout.http.server import ANSWER_TIMEOUT, WAITS, Call, CallEnded, Server
from egrsd_jax.rollout.http.server import API_KEY as API_KEY
from egrsd_jax.rollout.http.waits import FIRST_SILENCE, Announce, on_stderr
from egrsd_jax.rollout.requests import Completion, OnTokens, Request

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IN_FLIGHT = 64  # requests that a server has at once


class HttpEngine:
    """Gets completions from a server, at most `in_flight` at a time.

    `model` is a name in the server's list of models, by default the only one there; `adapter` one that the server has
    loaded on it. Tokenizer and stop tokens are those of the same model. Greedy completions are those of the engine on a
    mesh, as far as two programs round alike; sampled ones depend on the server's random numbers too, seeded from each
    request's key. What each server returns of tokens and log-probabilities is in `dialects` and `openai`.

    `kind` is how the server is spoken to, by default what its list of models says it is. `wait` bounds the seconds that
    one request waits between its tries, `timeout` those without a word; `announce` is given a line for each wait.

    Raises ServerError where the server cannot be reached or its kind is not known, ValueError for a name that it lacks.
    """

    def __init__(
        self,
        url: str,
        tokenizer: "PreTrainedTokenizerBase",
        stop_ids: Sequence[int],
        *,
        model: str | None = None,
        adapter: str | None = None,
        in_flight: int = IN_FLIGHT,
        logp: bool = True,
        api_key: str | None = None,
        tries: int | None = None,
        timeout: float = ANSWER_TIMEOUT,
        wait: float = WAITS,
        announce: Announce = on_stderr,
        kind: Kind | None = None,
        vocab_size: int | None = None,
    ):
        if in_flight < 1:
            raise ValueError(f"in_flight is {in_flight}; it must be at least 1")
        self._server = Server(url, api_key=api_key, tries=tries, timeout=timeout, wait=wait, announce=announce)
        self._timeout = timeout
        self._listed = listed_models(self._server, kind, model)
        self.kind: Kind = kind or kind_of(self._server, self._listed)
        if self.kind in ("vllm", "sglang"):
            self._dialect = Tokens(self.kind, stop_ids, vocab_size)
        else:
            dialects = {"transformers": Text, "completions": Completions, "chat": Chat}
            self._dialect = dialects[self.kind](tokenizer, stop_ids)
        self._in_flight, self._logp, self._version = in_flight, logp, 0
        self.model, self.adapter = self._names(model, adapter)
        self._calls: set[Call] = set()

    @property
    def positions(self) -> int | None:
        """The tokens of a prompt with its completion that the server takes; None where it does not say."""
        lengths = {entry.name: entry.max_model_len for entry in self._listed}
        length = lengths.get(self.adapter or self.model) or lengths.get(self.model)
        return None if length is None else length - self._dialect.surplus

    def generate(
        self, requests: Sequence[Request], *, on_tokens: OnTokens | None = None
    ) -> Iterator[tuple[int, Completion]]:
        """Each request's number and completion, in the order in which they end; `on_tokens` is called with all
        of one's tokens at its end.

        A request that fails for good ends the iteration with its ServerError, once those in flight have ended too: no
        more are sent, and what was finished has been given. Closing the iterator early drops what is in flight.
        """
        bodies = [self._body(number, request) for number, request in enumerate(requests)]
        return self._completions(requests, bodies, self._version, on_tokens)

    def update_params(self, params: str, lora: None = None) -> int:
        """Samples from another model or adapter that the server has, by its name; returns the version that this makes.

        Raises ValueError for weights: a server holds its own.
        """
        if not isinstance(params, str) or lora is not None:
            raise ValueError(
                "a server has weights of its own: give the name of a model or an adapter that it has loaded; "
                "`egrsd export` writes folders that it can load"
            )
        self._listed = listed_models(self._server, self.kind, params)
        parents = {entry.name: entry.parent for entry in self._listed}
        if self.kind not in ("vllm", "sglang") or parents.get(params, "") is None:
            self.model, self.adapter = self._names(params, None)
        else:
            self.model, self.adapter = self._names(self.model, params)
        self._version += 1
        return self._version

    def close(self) -> None:
        """Drops what is in flight."""
        for call in list(self._calls):
            call.end()

    def _names(self, model: str | None, adapter: str | None) -> tuple[str, str | None]:
        """The names of a model and an adapter, where the server has them as far as it says."""
        url = self._server.url
        models = [entry.name for entry in self._listed if entry.parent is None]
        adapters = [entry.name for entry in self._listed if entry.parent is not None]
        has = f"it has {', '.join(models)}" + (f" and the adapters {', '.join(adapters)}" if adapters else "")
        if model is None:
            if len(models) != 1:
                raise ValueError(f"{url} has {len(models)} models: name one; {has}")
            model = models[0]
        if self.kind == "transformers" and adapter is not None:
            raise ValueError(
                "`transformers serve` has no adapters; serve the merged model, which `egrsd export` writes"
            )
        if self.kind in ("completions", "chat") and adapter is not None:
            raise ValueError(f"a server of kind {self.kind} has no field for an adapter: name it as the model")
        if self.kind in ("vllm", "sglang") and self._listed and model not in models:  # others load unlisted ones too
            raise ValueError(f"{url} has no model {model!r}; {has}")
        if self.kind == "vllm" and self._listed and adapter is not None and adapter not in adapters:
            raise ValueError(f"{url} has no adapter {adapter!r}; {has}")
        return model, adapter

    def _body(self, number: int, request: Request) -> dict[str, Any]:
        if not request.prompt:
            raise ValueError(f"prompt {number} is empty; a completion needs a token before it")
        length, most = len(request.prompt) + request.sampling.max_new_tokens, self.positions
        if most is not None and length > most:
            raise ValueError(
                f"prompt {number} has {len(request.prompt):,} tokens, {length:,} with max_new_tokens "
                f"{request.sampling.max_new_tokens:,}, and {self._server.url} takes {most:,} (max_model_len): ask for "
                "fewer, or start it with a longer context (--max-model-len, --context-length)"
            )
        try:
            fields = self._dialect.fields(request, logp=self._logp)
        except ValueError as error:
            raise ValueError(f"prompt {number}: {error}") from None
        names = {"model": self.model}
        if self.adapter is not None:  # vLLM calls an adapter a model; SGLang has a field for it
            names = {"model": self.adapter} if self.kind == "vllm" else {**names, "lora_path": self.adapter}
        return {**names, **fields}

    def _completions(
        self, requests: Sequence[Request], bodies: list[dict[str, Any]], version: int, on_tokens: OnTokens | None
    ) -> Iterator[tuple[int, Completion]]:
        call = Call()
        waiting, finished = queue.SimpleQueue[int](), queue.SimpleQueue[tuple[int, Completion] | None]()
        for number in range(len(requests)):
            waiting.put(number)
        failures: list[Exception] = []

        def work() -> None:
            """Asks for one completion after the other; it puts None at its end."""
            try:
                while not failures and not call.over:
                    number = waiting.get_nowait()
                    completion = self._complete(requests[number], bodies[number], call)
                    finished.put((number, replace(completion, version=version)))
            except (queue.Empty, CallEnded):
                pass
            except Exception as error:
                failures.append(error)
            finally:
                finished.put(None)

        threads = [threading.Thread(target=work, daemon=True) for _ in range(min(self._in_flight, len(requests)))]
        self._calls.add(call)
        try:
            for thread in threads:
                thread.start()
            for _ in threads:
                while (ended := self._next(finished, threads)) is not None:
                    if on_tokens is not None:
                        on_tokens(ended[0], ended[1].tokens)
                    yield ended
            if failures:
                raise failures[0]
        finally:
            call.end()
            self._calls.discard(call)
            for thread in threads:
                if thread.ident is not None:
                    thread.join()

    def _next(
        self, finished: "queue.SimpleQueue[tuple[int, Completion] | None]", threads: Sequence[threading.Thread]
    ) -> tuple[int, Completion] | None:
        """What ends next; a long silence is announced meanwhile."""
        begin, patience = time.monotonic(), FIRST_SILENCE
        while True:
            try:
                return finished.get(timeout=patience)
            except queue.Empty:
                silent, patience = time.monotonic() - begin, 2 * patience
                asked = sum(thread.is_alive() for thread in threads)
                self._server.announcer.silence(silent, asked, self._timeout)

    def _complete(self, request: Request, body: dict[str, Any], call: Call) -> Completion:
        start = time.perf_counter()
        answer = self._server.ask(self._dialect.path, body, call=call)
        completion = self._dialect.completion(request, answer)
        return replace(completion, seconds=time.perf_counter() - start)
