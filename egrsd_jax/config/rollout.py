"""How completions are sampled, here or by servers."""

from dataclasses import dataclass
from typing import Any, Literal

from egrsd_jax.objective.settings import OPEN
from egrsd_jax.ranges import SAMPLING_RANGES, UNIT, at_least, check_ranges, over, require

SERVER_WAIT, SERVER_TIMEOUT, SERVER_IN_FLIGHT = 1800.0, 3600.0, 64


@dataclass(frozen=True)
class RolloutSettings:
    """How the student's completions are sampled.

    Args:
        temperature: divides the logits; 0 is greedy. By default what the method was published with, as the next two.
        top_p: the most likely tokens that together reach this probability; 1 is no limit.
        top_k: the k most likely tokens; 0 is no limit.
        min_p: tokens at least this much as likely as the most likely one; 0 is no limit.
        max_new_tokens: L_max, tokens of a completion at most, its end of turn included.
        samples_per_problem: completions of each problem in a step; by default what the method was published with.
        max_rows: completions decoded together, at most; by default all of a step's.
        weights_dtype: what prompts and sampled tokens are multiplied with, in evaluations too; by default model.dtype.
        server: address of a vLLM or SGLang server that samples instead of this process, evaluations included, with the
            weights of each step; several are separated by commas. It needs no memory for rollouts here.
        served: the model's name there, where a server has several.
        shared: folder that run and servers both read, where each step's weights are written for them; by default
            `served` in the run's folder.
        shared_on_server: that folder's path on the servers, where it is another one.
        in_flight: completions that each server is asked for at once.
        server_wait: seconds that a server which is gone or busy is waited for, in all, before the others do without it,
            or the run ends.
        server_timeout: seconds without a word after which a completion is asked for again.
        gap_warns: nats per token; a run warns where sampler and trainer differ by more, on average.
        gap_stops: nats per token; a run ends where they differ by more. By default 0.05 where both are here and
            multiply in float32, 0.5 with a server, else never.
        ahead: a step's completions are sampled by the student of so many steps before, at most. 0 is strictly
            on-policy. method.importance corrects for it; docs/cluster.md has what it is for.
        stored: a file of completions by the policy before training, from which every step takes its own. What it lacks
            is sampled and added, so that the first run fills it and later ones, of other methods too, sample nothing.
    """

    temperature: float = OPEN
    top_p: float = OPEN
    top_k: int = OPEN
    min_p: float = 0.0
    max_new_tokens: int = 1024
    samples_per_problem: int = OPEN
    max_rows: int = OPEN
    weights_dtype: Literal["float32", "bfloat16"] | None = None
    server: str | None = None
    served: str | None = None
    shared: str | None = None
    shared_on_server: str | None = None
    in_flight: int = SERVER_IN_FLIGHT
    server_wait: float = SERVER_WAIT
    server_timeout: float = SERVER_TIMEOUT
    gap_warns: float = 0.02
    gap_stops: float | None = None
    ahead: int = 0
    stored: str | None = None

    @property
    def servers(self) -> tuple[str, ...]:
        """The addresses of the servers; none where this process samples."""
        return () if self.server is None else tuple(url.strip() for url in self.server.split(","))

    def __post_init__(self):
        check_ranges(
            "rollout.",
            self,
            {
                **SAMPLING_RANGES,
                "min_p": UNIT.noted("0 is no limit"),
                "max_rows": at_least(1),
                "in_flight": at_least(1),
                "server_wait": at_least(0),
                "server_timeout": over(0),
                "gap_warns": over(0),
                "gap_stops": over(0),
                "ahead": at_least(0).noted("0 is on-policy"),
            },
        )
        _check_server(self)


def _check_server(settings: RolloutSettings) -> None:
    """Raises ValueError for fields about a server that contradict each other."""
    alone: dict[str, Any] = {"served": None, "shared": None, "shared_on_server": None}
    alone |= {"in_flight": SERVER_IN_FLIGHT, "server_wait": SERVER_WAIT, "server_timeout": SERVER_TIMEOUT}
    urls, warns, stops = settings.servers, settings.gap_warns, settings.gap_stops
    fix = "it must be an address such as http://localhost:8000, or several that are separated by commas"
    require(
        *(
            (urls or getattr(settings, name) == value, f"rollout.{name} is for a rollout.server, and there is none")
            for name, value in alone.items()
        ),
        *((url.startswith(("http://", "https://")), f"rollout.server has {url!r}; {fix}") for url in urls),
        (len(set(urls)) == len(urls), f"rollout.server {settings.server} names a server twice"),
        (
            not urls or settings.stored is None,
            "rollout.stored is sampled in this process, with the weights before training; leave out rollout.server",
        ),
        (
            not urls or settings.weights_dtype is None,
            "rollout.weights_dtype is not for a rollout.server: it has its own",
        ),
        (
            stops is None or stops >= warns,
            f"rollout.gap_stops is {stops}; it must be at least rollout.gap_warns, {warns}",
        ),
    )
