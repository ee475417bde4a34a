"""The sizes that the engine compiles for: few, and known beforehand, so that the list of its programs is short."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import jax

from egrsd_jax.model.sharding import round_up
from egrsd_jax.ops.cached_attention import BLOCK, DENSE

SMALLEST_PROMPT, SMALLEST_CAPACITY = 16, 128  # tokens; the next sizes double
READ_AFTER_PREFIX = 16  # prompts of one prefill, at most, where they follow a prefix: what is left of them is short
AFTER_PREFIX = 32  # tokens; a cache that is read whole has room for a multiple of it, where rows follow a prefix
REFILL = 8  # rows are refilled when one in so many has ended
READ_ROWS, READ_TOGETHER = 4, 8  # prompts of one prefill: one for so many rows, up to 8; few at a time take longer
FEWER = 4  # when the queue is empty, so many times fewer rows are decoded, and at last these few. On a CPU the time of
# a step follows its rows; elsewhere it does not for so few, and each number of rows is one more program to compile.
FEW = {"cpu": (16, 8, 2, 1)}
FEW_ELSEWHERE = (2,)


@dataclass(frozen=True)
class Sizes:
    """Sizes of rows, prompts and caches, each ascending.

    Attributes:
        rows: how many rows are decoded together; the last is the most, `max_rows`.
        refill_rows: how many rows have ended before others begin.
        prefill_rows: prompts of one prefill, and requests of one insertion.
        prompts: tokens that the prompts of a prefill are padded to.
        prefix: tokens that prompts begin with and that are read once for all of them.
        after_prefix: what the tokens after it are padded to; none without one.
        capacities: tokens that a cache has room for in each row; a prefix is not among them.
        shards: the mesh's batch shards, which divide the numbers of rows.
    """

    rows: tuple[int, ...]
    refill_rows: int
    prefill_rows: int
    prompts: tuple[int, ...]
    capacities: tuple[int, ...]
    shards: int
    prefix: int = 0
    after_prefix: tuple[int, ...] = ()

    @classmethod
    def of(cls, *, max_rows: int, max_prompt_tokens: int, max_new_tokens: int, shards: int, prefix: int = 0) -> "Sizes":
        """The sizes for the longest request. Raises ValueError for one that is out of range."""
        if max_rows < 1 or max_rows % shards:
            raise ValueError(
                f"max_rows is {max_rows}; it must be a positive multiple of the mesh's {shards} batch shards"
            )
        if max_prompt_tokens < 1 or max_new_tokens < 1:
            raise ValueError(
                f"max_prompt_tokens is {max_prompt_tokens} and max_new_tokens {max_new_tokens}; both must be at least 1"
            )
        refill_rows = max(max_rows // REFILL, 1)
        read_rows = min(max_rows // READ_ROWS, READ_AFTER_PREFIX if prefix else READ_TOGETHER)
        capacities = _doubling(SMALLEST_CAPACITY, round_up(max_prompt_tokens + max_new_tokens, BLOCK))
        if prefix:  # rows that follow it come first, and no larger than they need
            own = max_prompt_tokens - prefix + max_new_tokens
            own = round_up(own, AFTER_PREFIX if own <= DENSE else BLOCK)
            after_prefix = _doubling(min(SMALLEST_CAPACITY, own), own)
            capacities = (*after_prefix, *(capacity for capacity in capacities if capacity > own))
        return cls(
            rows=_row_counts(max_rows, shards),
            refill_rows=round_up(refill_rows, shards),
            prefill_rows=round_up(max(refill_rows, read_rows), shards),
            prompts=_doubling(SMALLEST_PROMPT, max_prompt_tokens),
            capacities=capacities,
            shards=shards,
            prefix=prefix,
            after_prefix=_doubling(SMALLEST_PROMPT, max_prompt_tokens - prefix) if prefix else (),
        )

    @property
    def max_rows(self) -> int:
        """The most rows that are decoded together."""
        return self.rows[-1]

    def program_names(self) -> list[str]:
        """Every program that an engine of these sizes may compile."""
        capacities, prefix = self.capacities, self.prefix
        widths = dict.fromkeys((*self.prompts, *self.after_prefix))
        inserted = [(width, capacity) for width in widths for capacity in capacities if capacity > width // 2]
        fewer_rows = [(many, few) for few in self.rows for many in self.rows if few < many]
        neighbours = [pair for one, other in itertools.pairwise(capacities) for pair in ((one, other), (other, one))]
        return [
            *(empty_name(self.max_rows, capacity) for capacity in capacities),
            *([prefix_name(prefix)] if prefix else []),
            *(prefill_name(self.prefill_rows, prompt) for prompt in self.prompts),
            *(prefill_name(self.prefill_rows, width, prefix) for width in self.after_prefix),
            *(insert_name(width, capacity) for width, capacity in inserted),
            *(decode_name(rows, capacity) for rows in self.rows for capacity in capacities),
            *(resize_name(rows, one, other) for rows in self.rows for one, other in neighbours),
            *(compact_name(many, few, capacity) for many, few in fewer_rows for capacity in capacities),
        ]


def empty_name(rows: int, capacity: int) -> str:
    """The program that makes a state without completions."""
    return f"empty state of {rows} rows at capacity {capacity}"


def prefix_name(tokens: int) -> str:
    """The program that reads what all prompts begin with."""
    return f"prefix of {tokens}"


def prefill_name(prompts: int, width: int, prefix: int = 0) -> str:
    """The program that reads so many prompts, padded to `width` tokens, that may follow a prefix."""
    return f"prefill {prompts} prompts of {width}" + (f" after a prefix of {prefix}" if prefix else "")


def insert_name(width: int, capacity: int) -> str:
    """The program that begins completions of prompts of a prefill of this width."""
    return f"insert prompts of {width} at capacity {capacity}"


def decode_name(rows: int, capacity: int) -> str:
    """The program that samples a chunk of tokens in so many rows."""
    return f"decode {rows} rows at capacity {capacity}"


def resize_name(rows: int, capacity: int, other: int) -> str:
    """The program that copies so many rows into a cache of another capacity."""
    return f"resize {rows} rows from capacity {capacity} to {other}"


def compact_name(rows: int, fewer: int, capacity: int) -> str:
    """The program that copies some of the rows into a state of fewer."""
    return f"compact {rows} rows to {fewer} at capacity {capacity}"


def at_least(sizes: Sequence[int], needed: int) -> int:
    """The smallest of the ascending sizes that holds what is needed."""
    return next(size for size in sizes if size >= needed)


def _row_counts(most: int, shards: int) -> tuple[int, ...]:
    """`most` rows and, for when the queue is empty, the fewer ones."""
    few = FEW.get(jax.default_backend(), FEW_ELSEWHERE)
    counts = {most, *(round_up(count, shards) for count in few)}
    fewer = most
    while (fewer := fewer // FEWER) > few[0]:
        counts.add(round_up(fewer, shards))
    return tuple(sorted(count for count in counts if count <= most))


def _doubling(least: int, most: int) -> tuple[int, ...]:
    """least, twice that, ..., and `most` itself or, where that is less, `least`."""
    sizes = [least]
    while sizes[-1] < most:
        sizes.append(min(2 * sizes[-1], most))
    return tuple(sizes)
