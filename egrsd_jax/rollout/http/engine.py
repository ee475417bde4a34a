"""Completions from an OpenAI-compatible server: vLLM, SGLang or `transformers serve`. Imports no jax.

It has the same three calls as the engine on a mesh (`requests.Sampler`), for evaluation at scale.
"""

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from egrsd_jax.rollout.http.dialects import Text, Tokens
from egrsd_jax.rollout.http.server import ANSWER_TIMEOUT, Call, CallEnded, Server, ServerError
from egrsd_jax.rollout.requests import Completion, OnTokens, Request

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IN_FLIGHT = 64  # requests that a server has at once
API_KEY = "EGRSD_SERVER_KEY"  # the environment variable that launchers take a server's key from


class HttpEngine:
    """Gets completions from a server, at most `in_flight` at a time.

    `model` is a name in the server's list of models, by default the only one there; `adapter` one that the server has
    loaded on it. Tokenizer and stop tokens are those of the same model. Greedy completions are those of the engine on a
    mesh, as far as two programs round alike; sampled ones depend on the server's random numbers too, seeded from each
    request's key. What each server returns of tokens and log-probabilities is in `dialects`.

    Raises ServerError where the server cannot be reached or is none of the three, ValueError for a name that it lacks.
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
    ):
        if in_flight < 1:
            raise ValueError(f"in_flight is {in_flight}; it must be at least 1")
        self._server = Server(url, api_key=api_key, tries=tries, timeout=timeout)
        self.kind = _kind(self._server)
        self._dialect = Text(tokenizer, stop_ids) if self.kind == "transformers" else Tokens(self.kind, stop_ids)
        self._in_flight, self._logp, self._version = in_flight, logp, 0
        self.model, self.adapter = self._found(model, adapter)
        self._calls: set[Call] = set()

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
        if self.kind == "transformers" or _models(self._server).get(params, "") is None:
            self.model, self.adapter = self._found(params, None)
        else:
            self.model, self.adapter = self._found(self.model, params)
        self._version += 1
        return self._version

    def close(self) -> None:
        """Drops what is in flight."""
        for call in list(self._calls):
            call.end()

    def _found(self, model: str | None, adapter: str | None) -> tuple[str, str | None]:
        """The names of a model and an adapter, where the server has them as far as it says."""
        parents = _models(self._server)
        models = [name for name, parent in parents.items() if parent is None]
        adapters = [name for name in parents if name not in models]
        has = f"it has {', '.join(models)}" + (f" and the adapters {', '.join(adapters)}" if adapters else "")
        if model is None:
            if len(models) != 1:
                raise ValueError(f"{self._server.url} has {len(models)} models: name one; {has}")
            model = models[0]
        if self.kind == "transformers":  # it loads models that it does not list, and refuses in its own words
            if adapter is not None:
                raise ValueError(
                    "`transformers serve` has no adapters; serve the merged model, which `egrsd export` writes"
                )
        elif model not in models:
            raise ValueError(f"{self._server.url} has no model {model!r}; {has}")
        elif self.kind == "vllm" and adapter is not None and adapter not in adapters:
            raise ValueError(f"{self._server.url} has no adapter {adapter!r}; {has}")
        return model, adapter

    def _body(self, number: int, request: Request) -> dict[str, Any]:
        if not request.prompt:
            raise ValueError(f"prompt {number} is empty; a completion needs a token before it")
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
                while (ended := finished.get()) is not None:
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

    def _complete(self, request: Request, body: dict[str, Any], call: Call) -> Completion:
        start = time.perf_counter()
        answer = self._server.ask("/v1/completions", body, call=call)
        try:
            completion = self._dialect.completion(request, answer)
        except (KeyError, TypeError, ValueError) as error:
            raise ServerError(f"{self._server.url} gave an answer that is no completion: {error!r}") from None
        return replace(completion, seconds=time.perf_counter() - start)


def _kind(server: Server) -> Literal["vllm", "sglang", "transformers"]:
    """Which of the three a server is. Raises ServerError for any other: it may sample otherwise than it is asked to."""
    owners = {entry["owned_by"] for entry in _listed(server)}
    if "vllm" in owners:
        return "vllm"
    if "sglang" in owners:
        return "sglang"
    with suppress(ServerError, KeyError):
        paths = server.ask("/openapi.json", tries=1)["paths"]
        if {"/load_model", "/v1/completions"} <= paths.keys():
            return "transformers"
    raise ServerError(f"{server.url} is neither vLLM, nor SGLang, nor a `transformers serve` that has /v1/completions")


def _models(server: Server) -> dict[str, str | None]:
    """The names that a server can be asked for; those of adapters with the name of their model."""
    return {entry["id"]: entry["parent"] for entry in _listed(server)}


def _listed(server: Server) -> list[dict[str, Any]]:
    """A server's list of models: asked for once, so that a wrong address is reported at once."""
    try:
        entries = server.ask("/v1/models", tries=1)["data"]
        return [{"id": entry["id"], "owned_by": entry["owned_by"], "parent": entry.get("parent")} for entry in entries]
    except (KeyError, TypeError) as error:
        raise ServerError(f"{server.url}/v1/models is no list of models: {error!r}") from None
