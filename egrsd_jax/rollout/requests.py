"""What an engine is asked and what it returns: the three calls of every engine. Imports no jax."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Protocol

import numpy as np

from egrsd_jax.ranges import SAMPLING_RANGES, UNIT, check_ranges, require

OnTokens = Callable[[int, list[int]], None]  # a request's number, and the tokens sampled for it since the last call


class SamplingSettings(Protocol):
    """Settings that say how to sample: a training run's, an evaluation's, a benchmark's protocol."""

    @property
    def temperature(self) -> float: ...  # noqa: D102
    @property
    def top_k(self) -> int: ...  # noqa: D102
    @property
    def top_p(self) -> float: ...  # noqa: D102
    @property
    def max_new_tokens(self) -> int: ...  # noqa: D102


@dataclass(frozen=True)
class Sampling:
    """How a completion is sampled. `max_new_tokens` counts the stop token.

    `stop` are texts that end a completion, as the model's stop tokens do: it ends with the token that completes one.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    max_new_tokens: int = 1024
    stop: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: SamplingSettings, **changes: Any) -> "Sampling":
        """The fields that `settings` have, but for the `changes`; `min_p` and `stop` keep their defaults without."""
        names = {field.name for field in fields(cls)} - changes.keys()
        return cls(**{name: getattr(settings, name) for name in names if hasattr(settings, name)}, **changes)

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
    """A prompt's token ids, how its completion is sampled, and the random key for it (raw data, uint32 words).

    The completion depends on these and the parameters alone, not on the other requests.
    """

    prompt: Sequence[int]
    sampling: Sampling
    key: np.ndarray = field(default_factory=lambda: np.zeros(2, np.uint32))


@dataclass(frozen=True)
class Completion:
    """What the policy wrote.

    `tokens` include the stop token; `logp` are their log-probabilities, nats, under the policy's whole distribution,
    before any rule of sampling, or NaN where a server does not return them. `ended` is `length` where max_new_tokens
    cut it off. `seconds` is the wall-clock time from its begin to its end, and `version` the version of the parameters
    that sampled it: how often they had been given by then. `text` is set where a server returned text and no token ids:
    then there are as many `tokens` as it sampled, from encoding the text, and -1 where the text does not determine
    them.
    """

    tokens: list[int]
    logp: np.ndarray
    ended: Literal["stop", "length"]
    seconds: float = 0.0
    version: int = 0
    text: str | None = None

    @property
    def stopped(self) -> bool:
        """Whether it ended by itself."""
        return self.ended == "stop"


OnCompletion = Callable[[Completion], None]


class Sampler(Protocol):
    """An engine, as training and evaluation use it: here on a mesh, or a server somewhere else."""

    def generate(
        self, requests: Sequence[Request], *, on_tokens: OnTokens | None = None
    ) -> Iterator[tuple[int, Completion]]:
        """Each request's number and completion, in the order in which they end.

        `on_tokens` is called with tokens as they come, some at a time. Raises ValueError for a request that cannot be
        served, before any is.
        """
        ...

    def update_params(self, params: Any, lora: Any = None) -> int:
        """The parameters of all completions from now on; returns their version."""
        ...

    def close(self) -> None:
        """Frees what the engine holds."""
        ...


def complete(
    engine: Sampler, requests: Sequence[Request], *, on_completion: OnCompletion | None = None
) -> list[Completion]:
    """All completions, in the order of their requests; `on_completion` is called with each when it ends."""
    completions = {}
    for number, completion in engine.generate(requests):
        completions[number] = completion
        if on_completion is not None:
            on_completion(completion)
    return [completions[number] for number in range(len(requests))]
