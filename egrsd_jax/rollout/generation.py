"""One call of `Engine.generate`, from requests to completions: the queue, the active rows, the device state."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from egrsd_jax.rollout.programs import DecodeState, PrefilledPrompts, SampledTokens
from egrsd_jax.rollout.requests import Completion, OnTokens, Request
from egrsd_jax.rollout.runner import LoadedParams, ModelRunner
from egrsd_jax.rollout.sizes import at_least
from egrsd_jax.rollout.stop_texts import StopTexts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DECODE_STEPS = 32  # of a chunk, at most: then the host sees what was sampled


class Queue:
    """Requests that have not begun, by length of prompt, in groups with at most `prompts_per_group` prompts.

    Prompts that begin with a common prefix come first and are in groups of their own.
    """

    def __init__(self, requests: Sequence[Request], prompts_per_group: int, begins: Callable[[Sequence[int]], bool]):
        by_prompt: dict[tuple[int, ...], list[int]] = {}
        for number, request in enumerate(requests):
            by_prompt.setdefault(tuple(request.prompt), []).append(number)
        prompts = sorted(by_prompt, key=len)
        groups = [
            kind[start : start + prompts_per_group]
            for kind in ([p for p in prompts if begins(p)], [p for p in prompts if not begins(p)])
            for start in range(0, len(kind), prompts_per_group)
        ]
        self._prompts = groups
        self._numbers = [[number for prompt in group for number in by_prompt[prompt]] for group in groups]
        self.prefilled: PrefilledPrompts | None = None  # the first group's prompts

    def __len__(self) -> int:
        return sum(map(len, self._numbers))

    @property
    def prompts(self) -> list[tuple[int, ...]]:
        """The different prompts of the first group."""
        return self._prompts[0]

    @property
    def group(self) -> list[int]:
        """The requests of the first group, by their numbers."""
        return self._numbers[0]

    def remove(self, count: int) -> None:
        """The first requests of the first group have begun."""
        del self._numbers[0][:count]
        if not self._numbers[0]:
            del self._numbers[0], self._prompts[0]
            self.prefilled = None


@dataclass
class ActiveRow:
    """A row's request, how many tokens of the prompt the row holds, and its completion so far."""

    number: int
    request: Request
    prompt_tokens: int
    stop_texts: StopTexts | None
    started: float
    tokens: list[int] = field(default_factory=list)
    logp: list[np.ndarray] = field(default_factory=list)

    @property
    def needed_capacity(self) -> int:
        """Tokens that the row may hold after the next chunk, its prompt included."""
        return most_tokens(self.prompt_tokens, len(self.tokens), self.request)


class Generation:
    """The completions of some requests, of which there is at least one, by one set of parameters."""

    def __init__(
        self,
        runner: ModelRunner,
        loaded: LoadedParams,
        requests: Sequence[Request],
        *,
        tokenizer: "PreTrainedTokenizerBase | None",
        on_tokens: OnTokens | None,
    ):
        self._runner, self._sizes, self._loaded = runner, runner.sizes, loaded
        self._requests, self._tokenizer, self._on_tokens = requests, tokenizer, on_tokens
        self.queue = Queue(requests, self._sizes.prefill_rows, runner.begins)
        self.active: dict[int, ActiveRow] = {}
        longest = max(
            most_tokens(runner.held(requests[number].prompt), 0, requests[number]) for number in self.queue.group
        )
        self.state: DecodeState = runner.empty_state(longest)

    def completions(self) -> Iterator[tuple[int, Completion]]:
        """Each request's number and completion, in the order in which they end."""
        while self.queue or self.active:
            self.admit()
            if not self.queue:
                self.compact()
            self.fit_cache()
            yield from self.collect(self.decode_chunk())

    def admit(self) -> None:
        """Begins queued requests in the rows that are free."""
        while self.queue and len(self.active) < self._sizes.max_rows:
            if self.queue.prefilled is None:
                self.queue.prefilled = self.prefill()
            free = [row for row in range(self._sizes.max_rows) if row not in self.active]
            count = min(len(free), len(self.queue.group), self._sizes.prefill_rows)
            self.insert(self.queue.prefilled, free[:count])
            self.queue.remove(count)

    def prefill(self) -> PrefilledPrompts:
        """Reads the prompts of the first group in the queue."""
        return self._runner.prefill(self._loaded, self.queue.prompts)

    def insert(self, prefilled: PrefilledPrompts, rows: Sequence[int]) -> None:
        """Begins the next requests of the first group in these rows."""
        numbers = self.queue.group[: len(rows)]
        requests = [self._requests[number] for number in numbers]
        held = [self._runner.held(request.prompt) for request in requests]
        capacity = max(self.state.cache.capacity, at_least(self._sizes.capacities, max(held) + 1))
        self.state = self._runner.resize(self.state, capacity)
        prompts = [self.queue.prompts.index(tuple(request.prompt)) for request in requests]
        self.state = self._runner.insert(self.state, prefilled, prompts, rows, requests)
        for row, number, request, tokens in zip(rows, numbers, requests, held, strict=True):
            self.active[row] = ActiveRow(number, request, tokens, self._stop_texts(request), time.perf_counter())

    def compact(self) -> None:
        """Decodes the active rows in as few rows as there is a size for; each stays on its batch shard."""
        shards = self._sizes.shards
        rows_per_shard = self.state.row_count // shards
        by_shard = [[row for row in self.active if row // rows_per_shard == shard] for shard in range(shards)]
        count = at_least(self._sizes.rows, shards * max(map(len, by_shard)))
        if count == self.state.row_count:
            return
        kept = [[row % rows_per_shard for row in rows] for rows in by_shard]
        self.state = self._runner.compact(self.state, kept, count)
        self.active = {
            shard * (count // shards) + number: self.active[row]
            for shard, rows in enumerate(by_shard)
            for number, row in enumerate(rows)
        }

    def fit_cache(self) -> None:
        """Gives the cache a capacity that holds what the next chunk may add, and not over twice that."""
        needed = at_least(self._sizes.capacities, max(row.needed_capacity for row in self.active.values()))
        if not needed <= self.state.cache.capacity <= 2 * needed:
            self.state = self._runner.resize(self.state, needed)

    def decode_chunk(self) -> SampledTokens:
        """Samples at most `DECODE_STEPS` tokens in each active row; fewer once enough rows are idle."""
        max_idle = min(self._sizes.refill_rows, len(self.queue)) if self.queue else self._idle_to_compact()
        self.state, sampled = self._runner.decode_chunk(
            self._loaded, self.state, self.active, steps=DECODE_STEPS, max_idle=max_idle
        )
        return sampled

    def collect(self, sampled: SampledTokens) -> Iterator[tuple[int, Completion]]:
        """Adds a chunk's tokens to the active rows; the completions that have ended leave them."""
        for row, active in list(self.active.items()):
            new = sampled.tokens_BT[row, : int(sampled.count_B[row])].tolist()
            end = None if active.stop_texts is None else active.stop_texts.end(new)
            new = new[:end]
            active.tokens += new
            active.logp.append(sampled.logp_BT[row, : len(new)])
            if self._on_tokens is not None and new:
                self._on_tokens(active.number, new)
            if end is not None or not sampled.running_B[row]:
                del self.active[row]
                yield active.number, self._completion(active, stopped_by_text=end is not None)

    def _completion(self, active: ActiveRow, *, stopped_by_text: bool) -> Completion:
        stopped = stopped_by_text or active.tokens[-1] in self._runner.stop_ids
        return Completion(
            tokens=active.tokens,
            logp=np.concatenate(active.logp),
            ended="stop" if stopped else "length",
            seconds=time.perf_counter() - active.started,
            version=self._loaded.version,
        )

    def _stop_texts(self, request: Request) -> StopTexts | None:
        if not request.sampling.stop:
            return None
        assert self._tokenizer is not None  # the engine has refused such a request otherwise
        return StopTexts(self._tokenizer, request.sampling.stop)

    def _idle_to_compact(self) -> int:
        """Rows that must be idle for a smaller size to hold the others; one more than now where they would fit
        already, but not shard by shard."""
        rows = self.state.row_count
        smaller = max((size for size in self._sizes.rows if size < rows), default=0)
        return rows - min(smaller, len(self.active) - 1)


def most_tokens(prompt_tokens: int, sampled: int, request: Request) -> int:
    """Tokens that a row may hold after its next chunk, those of its prompt that it holds included."""
    return prompt_tokens + min(sampled + DECODE_STEPS, request.sampling.max_new_tokens)
