"""What an engine is asked and what it answers: the three calls that any engine stands behind. Imports no jax."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from egrsd_jax.ranges import SAMPLING_RANGES, UNIT, check_ranges, require

OnTokens = Callable[[int, list[int]], None]  # a request's number, and tokens that it has been given since the last call


@dataclass(frozen=True)
class Sampling:
    """How a completion is drawn. `max_new_tokens` counts the stop token.

    `stop` are texts that end a completion, beside the model's stop tokens: it ends with the token that completes one.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    max_new_tokens: int = 1024
    stop: tuple[str, ...] = ()

    def __post_init__(self):
        check_ranges("", self, SAMPLING_RANGES | {"min_p": UNIT.noted("0 is no limit")})
        require(
            (
                "" not in self.stop and not isinstance(self.stop, str),
                f"stop is {self.stop!r}; it must be a tuple of texts that are not empty",
            )
        )


@dataclass(frozen=True)
class Request:
    """A prompt's token ids, how its completion is drawn, and the random key for it (raw data, uint32 words).

    The completion depends on these and the parameters alone, not on what else is drawn beside it.
    """

    prompt: Sequence[int]
    sampling: Sampling
    key: np.ndarray = field(default_factory=lambda: np.zeros(2, np.uint32))


@dataclass(frozen=True)
class Completion:
    """What the policy said.

    `tokens` hold the stop token; `logp` are their log-probabilities, nats, under the policy's whole distribution,
    before any rule of sampling, or NaN where a server does not tell them. `ended` is `length` where max_new_tokens cut
    it off. `seconds` is the wall-clock time from when it began to its end, and `version` says which parameters made it:
    how often they had been given by then. `text` is there where a server told text and no token ids: `tokens` are as
    many as it drew, found by encoding the text, and -1 where that does not tell them.
    """

    tokens: list[int]
    logp: np.ndarray
    ended: Literal["stop", "length"]
    seconds: float = 0.0
    version: int = 0
    text: str | None = None

    @property
    def stopped(self) -> bool:
        """Whether it came to an end by itself."""
        return self.ended == "stop"


class Sampler(Protocol):
    """An engine, as training and evaluation use it: here on a mesh, or a server somewhere else."""

    def generate(
        self, requests: Sequence[Request], *, on_tokens: OnTokens | None = None
    ) -> Iterator[tuple[int, Completion]]:
        """Each request's number and completion, in the order in which they end.

        `on_tokens` hears of tokens as they come, some at a time. Raises ValueError for a request that cannot be served,
        before any is.
        """
        ...

    def update_params(self, params: Any, lora: Any = None) -> int:
        """The parameters of all completions from now on; returns their version."""
        ...

    def close(self) -> None:
        """Gives back what the engine holds."""
        ...


def complete(engine: Sampler, requests: Sequence[Request]) -> list[Completion]:
    """All completions, in the order of their requests."""
    found = dict(engine.generate(requests))
    return [found[number] for number in range(len(requests))]
