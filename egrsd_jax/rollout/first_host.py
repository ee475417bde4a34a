"""A server's completions on several hosts: the first host asks, and every host has the same ones.

If each host asked, a server would sample everything once per host, and where it rounds otherwise the hosts would train
on different completions. Each array is broadcast once.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from egrsd_jax.model.hosts import FirstHostFailed, broadcast, fetch, on_first_host
from egrsd_jax.model.lora import Lora
from egrsd_jax.rollout.requests import Completion, OnTokens, Request, Sampler, complete


class _Arrays(NamedTuple):
    """Completions as NumPy arrays of shapes that every host has beforehand, [B] and [B, T]."""

    tokens_BT: Any
    logp_BT: Any
    length_B: Any
    stopped_B: Any
    seconds_B: Any
    version_B: Any


class FirstHostEngine:
    """A `Sampler` for every host of a run, of an engine that the first one alone has and asks.

    Args:
        engine: the first host's; None on the others.
    """

    def __init__(self, engine: Sampler | None):
        self.engine = engine

    def update_params(self, params: Any, lora: Lora | None = None) -> int:
        """The parameters of all completions from now on; every host calls it, since each has a part of them. The other
        hosts return 0. Raises FirstHostFailed on every host."""
        params, lora = (fetch(params), None) if lora is None else (params, replace(lora, layers=fetch(lora.layers)))
        return _first_host(lambda: self._own.update_params(params, lora), "give the server its weights") or 0

    def generate(
        self, requests: Sequence[Request], *, on_tokens: OnTokens | None = None
    ) -> Iterator[tuple[int, Completion]]:
        """Each request's number and completion, in order, once the first host has them all; `on_tokens` is called with
        all of one's tokens. Errors are those of `to_all_hosts`."""
        most = max((request.sampling.max_new_tokens for request in requests), default=0)
        for number, completion in enumerate(to_all_hosts(lambda: complete(self._own, requests), len(requests), most)):
            if on_tokens is not None:
                on_tokens(number, completion.tokens)
            yield number, completion

    @property
    def _own(self) -> Sampler:
        assert self.engine is not None  # the first host has one
        return self.engine

    def close(self) -> None:
        """Frees what the engine holds."""
        if self.engine is not None:
            self.engine.close()


def own_engine(engine: Sampler) -> Sampler | None:
    """The engine that this host asks itself: of several hosts and a server the first one has it, the others none."""
    return engine.engine if isinstance(engine, FirstHostEngine) else engine


def to_all_hosts(work: Callable[[], list[Completion]], count: int, most: int) -> list[Completion]:
    """The completions that `work()` returns on the first host, on every host; the others do not call it.

    There are `count` of them, each of at most `most` tokens. Raises FirstHostFailed on every host, with what `work`
    raised on the first one, so that all of them end in the same way and none waits.
    """
    sent = _first_host(lambda: _arrays(work(), _empty(count, most)), "get completions")
    return _completions(_Arrays(*broadcast(tuple(sent or _empty(count, most)))))


def _first_host(work: Callable[[], Any], what: str) -> Any:
    """`on_first_host`, with FirstHostFailed on every host, so that all end a run in the same way."""
    try:
        return on_first_host(work, what)
    except Exception as error:
        raise FirstHostFailed(str(error)) from error


def _empty(count: int, most: int) -> _Arrays:
    return _Arrays(
        tokens_BT=np.zeros((count, most), np.int32),
        logp_BT=np.zeros((count, most), np.float32),
        length_B=np.zeros(count, np.int32),
        stopped_B=np.zeros(count, np.bool_),
        seconds_B=np.zeros(count, np.float32),
        version_B=np.zeros(count, np.int32),
    )


def _arrays(completions: list[Completion], into: _Arrays) -> _Arrays:
    for row, completion in enumerate(completions):
        if completion.text is not None:
            raise ValueError("a server without token ids cannot sample for several hosts; start it so that it has them")
        length = len(completion.tokens)
        into.tokens_BT[row, :length], into.logp_BT[row, :length] = completion.tokens, completion.logp
        into.length_B[row], into.stopped_B[row] = length, completion.stopped
        into.seconds_B[row], into.version_B[row] = completion.seconds, completion.version
    return into


def _completions(arrays: _Arrays) -> list[Completion]:
    return [
        Completion(
            tokens=arrays.tokens_BT[row, :length].tolist(),
            logp=arrays.logp_BT[row, :length],
            ended="stop" if arrays.stopped_B[row] else "length",
            seconds=float(arrays.seconds_B[row]),
            version=int(arrays.version_B[row]),
        )
        for row, length in enumerate(arrays.length_B.tolist())
    ]
