"""One server of a run: what is checked of it, how it gets weights, and how it is asked for a completion. No jax.

vLLM loads adapters by `/v1/load_lora_adapter`, SGLang by `/load_lora_adapter`. All weights go to SGLang by
`/update_weights_from_disk`, and to vLLM by the calls that it has under VLLM_SERVER_DEV_MODE=1. A call is one try: who
waits, and how long, is `engine`'s to say.
"""

import threading
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from egrsd_jax.rollout.http.dialects import Tokens
from egrsd_jax.rollout.http.models import Listed, listed_models
from egrsd_jax.rollout.http.server import Call, Server, ServerError
from egrsd_jax.rollout.requests import Completion, Request, Sampling
from egrsd_jax.rollout.served.weights import Kind, Weights

LOAD = {"vllm": "/v1/load_lora_adapter", "sglang": "/load_lora_adapter"}
UNLOAD = {"vllm": "/v1/unload_lora_adapter", "sglang": "/unload_lora_adapter"}
FROM_DISK = "/update_weights_from_disk"  # SGLang's
IN_PLACE = ("/pause", "/collective_rpc", "/reset_prefix_cache", "/update_weight_version", "/weight_info", "/resume")
TRIAL_TOKENS = 8


class Remote:
    """A server by its address. `model` is a name in its list of models, by default the only one there.

    Raises ServerError where it cannot be reached, or is neither vLLM nor SGLang, which alone return token ids and load
    weights; ValueError for a model that it lacks.
    """

    def __init__(self, server: Server, stop_ids: Sequence[int], *, model: str | None, vocab_size: int, of_run: str):
        self._server, self.url, self._of_run = server, server.url, of_run
        self._listed = listed_models(server, None, None)
        owners = {entry.owner for entry in self._listed}
        if not owners & {"vllm", "sglang"}:
            by = ", ".join(map(str, owners)) or "nobody"
            raise ServerError(
                f"{self.url} is neither vLLM nor SGLang (its models are owned by {by}), one of which it takes: a run "
                "trains on token ids and log-probabilities as they were sampled, and gives its weights"
            )
        self.kind: Literal["vllm", "sglang"] = "vllm" if "vllm" in owners else "sglang"
        self._dialect = Tokens(self.kind, stop_ids, vocab_size)
        models = [entry for entry in self._listed if entry.parent is None and not entry.name.startswith(of_run)]
        if model is None and len(models) != 1:
            raise ValueError(
                f"{self.url} has {len(models)} models: name one with rollout.served; it has {_names(models)}"
            )
        chosen = models[0] if model is None else next((entry for entry in models if entry.name == model), None)
        if chosen is None:
            raise ValueError(f"{self.url} has no model {model!r} (rollout.served); it has {_names(models)}")
        self._model = chosen
        self._lock = threading.Lock()  # one thread gives it weights at a time
        self._holds: str | None = None  # of versions of all weights, the one that it was given

    @property
    def model(self) -> str:
        """The model's name there."""
        return self._model.name

    def check(self, kind: Kind, longest: int, *, tied: bool) -> None:
        """Raises ServerError or ValueError, one line that says how to start the server, where it cannot take part in a
        run: weights of this `kind`, `longest` tokens of a prompt with its completion, and a model whose output head is
        `tied` to its embedding."""
        if (most := self._model.max_model_len) is not None and longest > most:
            raise ValueError(
                f"a prompt with its completion may have {longest:,} tokens, and {self.url} takes {most:,} "
                "(max_model_len): start it with a longer context (--max-model-len, --context-length), or lower "
                "data.max_prompt_tokens or rollout.max_new_tokens"
            )
        paths = self._paths()
        if paths is None or kind == "base":
            return
        if kind == "adapter" and LOAD[self.kind] not in paths:
            how = (
                "start vLLM with VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 in its environment, --enable-lora and "
                "--max-lora-rank"
                if self.kind == "vllm"
                else "start an SGLang that has it with --enable-lora, --max-lora-rank and --lora-target-modules all"
            )
            raise ServerError(f"{self.url} cannot load adapters while it runs, it has no {LOAD[self.kind]}: {how}")
        needed = () if kind == "adapter" else IN_PLACE if self.kind == "vllm" else (FROM_DISK,)
        if missing := [path for path in needed if path not in paths]:
            how = "start vLLM with VLLM_SERVER_DEV_MODE=1, or " if self.kind == "vllm" else ""
            raise ServerError(
                f"{self.url} cannot be given all weights (lora.rank is 0): it has no {missing[0]}; {how}train an "
                "adapter (--lora.rank)"
            )
        if kind == "all" and self.kind == "vllm" and tied and self._is_on_cpu():
            raise ServerError(
                f"{self.url} is vLLM on a CPU, which keeps the old output head when it loads all weights of a model "
                "whose head is its embedding: train an adapter (--lora.rank), or serve with SGLang or on a GPU"
            )

    def give(self, weights: Weights, keep: Collection[str] = ()) -> None:
        """Lets the server have a version, in one try; it may have it already. Adapters of this run that are neither it
        nor in `keep` are unloaded: a process that was killed left them.

        Raises ServerError, which `passes` where the server cannot be reached or is busy, and does not where it serves
        another model than at the start or refuses.
        """
        with self._lock:
            listed = listed_models(self._server, self.kind, None)
            self._check_same(listed)
            if weights.kind == "all":
                self._give_all(weights)
                return
            names = {entry.name for entry in listed}
            if weights.kind == "adapter" and weights.name not in names:
                self._load(weights)
            for name in names:
                if name.startswith(self._of_run) and name != weights.name and name not in keep:
                    self._unload(name)

    def take(self, weights: Weights) -> None:
        """Unloads a version's adapter; a server that is gone has none."""
        if weights.kind == "adapter":
            with self._lock, suppress(ServerError):
                self._unload(weights.name)

    def complete(self, request: Request, weights: Weights, call: Call) -> Completion:
        """A request's completion by a version, in one try.

        Raises ServerError: it `passes` for what may succeed later, a server that has lost the version included.
        """
        start = time.perf_counter()
        names = {"model": self.model}
        if weights.kind == "adapter":  # vLLM calls an adapter a model; SGLang has a field for it
            names = {"model": weights.name} if self.kind == "vllm" else {**names, "lora_path": weights.name}
        body = {**names, **self._dialect.fields(request, logp=True)}
        try:
            answer = self._server.ask(self._dialect.path, body, tries=1, call=call)
        except ServerError as error:
            if weights.kind == "adapter" and self._is_lost(error, weights):
                raise ServerError(f"{self.url} has no adapter {weights.name} any more", passes=True) from None
            raise
        self._check_version(answer, weights)
        completion = self._dialect.completion(request, answer)
        if not np.isfinite(completion.logp).all():
            raise ServerError(f"{self.url} returned no log-probabilities of its tokens, which a run is checked by")
        return replace(completion, version=weights.version, seconds=time.perf_counter() - start)

    def try_out(self, prompt: Sequence[int], weights: Weights, sampling: Sampling) -> None:
        """Asks for a few tokens, as a run does. Raises ServerError for a server whose token ids or log-probabilities
        cannot be trained with, ValueError for a temperature at which it returns none that can."""
        likeliest = replace(sampling, temperature=1.0, top_k=1, top_p=1.0, min_p=0.0, max_new_tokens=TRIAL_TOKENS)
        completion = self.complete(Request(prompt, likeliest), weights, Call())
        if completion.logp.max() > 0:
            raise ServerError(f"{self.url} returned {completion.logp.max():g} as a log-probability, which is above 0")
        if len(completion.tokens) > 1 and not completion.logp.any():
            raise ServerError(
                f"{self.url} returns log-probabilities after top-k, of the one token that was left: start vLLM with "
                "--logprobs-mode raw_logprobs, its default"
            )

    def _is_lost(self, error: ServerError, weights: Weights) -> bool:
        """Whether a request was refused since the server was started again and has no adapters yet."""
        return error.status in (400, 404) and weights.name in str(error)

    def _check_same(self, listed: Sequence[Listed]) -> None:
        now = next((entry for entry in listed if entry.name == self.model and entry.parent is None), None)
        if now != self._model:
            there = _names([entry for entry in listed if entry.parent is None])
            raise ServerError(
                f"{self.url} served {_words(self._model)} when the run began, and now it serves "
                f"{there if now is None else _words(now)}: start the model again that the run samples from"
            )

    def _check_version(self, answer: Any, weights: Weights) -> None:
        """Raises ServerError where a completion is not of the version that it was asked of."""
        if not isinstance(answer, dict):
            return  # the dialect says what is wrong with it
        if self.kind == "vllm" and weights.kind != "all":
            name = self.model if weights.kind == "base" else weights.name
            if answer.get("model") not in (None, name):
                raise ServerError(f"{self.url} was asked for {name} and answered as {answer['model']!r:.80}")
        if weights.kind == "all":
            version = self._weight_version() if self.kind == "vllm" else _path(answer, "metadata", "weight_version")
            if version is not None and version != weights.name:
                raise ServerError(
                    f"{self.url} sampled with the weights {version!r:.80} and not with {weights.name}", passes=True
                )

    def _paths(self) -> Collection[str] | None:
        """The paths that the server has; None where it does not say."""
        with suppress(ServerError):
            paths = _path(self._server.ask("/openapi.json", tries=1), "paths")
            return paths.keys() if isinstance(paths, dict) else None
        return None

    def _is_on_cpu(self) -> bool:
        """Whether vLLM says so; it multiplies with a copy of the head there, in another layout."""
        with suppress(ServerError):
            return "device_config=cpu" in str(_path(self._server.ask("/server_info", tries=1), "vllm_config"))
        return False

    def _load(self, weights: Weights) -> None:
        try:
            body = {"lora_name": weights.name, "lora_path": weights.path}
            answer = self._server.ask(LOAD[self.kind], body, tries=1, plain=True)
            if isinstance(answer, dict) and answer.get("success") is False:
                raise ServerError(f"{self.url}{LOAD[self.kind]}: {answer.get('error_message') or answer}")
        except ServerError as error:
            if "already" in str(error) and weights.name in str(error):
                return  # names are used once, so it is this one: its answer was lost
            raise _explained(error, weights) from None

    def _unload(self, name: str) -> None:
        with suppress(ServerError):
            self._server.ask(UNLOAD[self.kind], {"lora_name": name}, tries=1, plain=True)

    def _give_all(self, weights: Weights) -> None:
        if self._holds == weights.name and self._weight_version() == weights.name:
            return
        self._holds = None
        if self.kind == "sglang":
            body = {"model_path": weights.path, "flush_cache": True, "weight_version": weights.name}
            answer = self._server.ask(FROM_DISK, body, tries=1)
            if not (isinstance(answer, dict) and answer.get("success")):
                raise ServerError(f"{self.url}{FROM_DISK}: {_path(answer, 'message') or answer}")
        else:
            self._server.ask("/pause?mode=wait", {}, tries=1, plain=True)
            try:
                reload = {"method": "reload_weights", "kwargs": {"weights_path": weights.path}}
                self._server.ask("/collective_rpc", reload, tries=1, plain=True)
                if _path(self._server.ask("/reset_prefix_cache", {}, tries=1), "success") is False:
                    raise ServerError(f"{self.url} kept its prefix cache, of older weights", passes=True)
                self._server.ask("/update_weight_version", {"new_version": weights.name}, tries=1)
            finally:
                with suppress(ServerError):
                    self._server.ask("/resume", {}, tries=1, plain=True)
        self._holds = weights.name

    def _weight_version(self) -> Any:
        path = "/weight_info" if self.kind == "vllm" else "/get_weight_version"
        return _path(self._server.ask(path, tries=1), "weight_version")


def _explained(error: ServerError, weights: Weights) -> ServerError:
    """A refusal to load an adapter, with what is to be done about it."""
    text = str(error).lower()
    if "rank" in text:
        return ServerError(f"{error}; the adapter has rank {weights.rank}: start the server with --max-lora-rank of it")
    if "not found" in text or "no such file" in text or "does not exist" in text or "no adapter" in text:
        return ServerError(
            f"{error}; the server has to read {weights.path}: give a folder that both reach with rollout.shared, and "
            "rollout.shared_on_server where it has another path there"
        )
    if "lora" in text and ("not enabled" in text or "disabled" in text or "enable" in text):
        return ServerError(f"{error}; start the server with --enable-lora")
    return error


def _path(answer: Any, *names: str) -> Any:
    """A field of nested mappings; None where it is not there."""
    for name in names:
        answer = answer.get(name) if isinstance(answer, dict) else None
    return answer


def _names(entries: Sequence[Listed]) -> str:
    return ", ".join(entry.name for entry in entries) or "none"


def _words(entry: Listed) -> str:
    return f"{entry.name} with a context of {entry.max_model_len}"
