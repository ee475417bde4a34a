"""Completions after their prompts, in rows of few shapes: what the update reads.

Several completions share a row where they fit, so that one compiled shape serves short and long ones with little
padding. Each attends to itself alone and counts its positions from 0: the layout never changes a result.

M micro-batches of R rows; S positions of a row, of which P predict a completion token. B completions of the step, T
tokens of one at most. Imports no jax.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from egrsd_jax.data.batch import bucket_length, length_mask, pad_right

SHORT = 1 / 3  # the shorter rows' length, as a share of the longest: measured in benchmarks/shapes.py
LEAST_TOKENS = 512  # of a micro-batch on a single device: products of fewer rows are slower (built-in model, two cores)
DRAWN, DRAWS = 64, 4  # completions of a step, and steps, by which the padding of a row's length is estimated
NEARLY = 1.06  # times the least padding: a longer row costs more attention
FINE, COARSE = 16, 128  # a row's length is a multiple of it: below 1,024 positions, and from there on


class Shape(NamedTuple):
    """A micro-batch: its rows, the positions of each, and how many of them can predict a completion token."""

    rows: int
    positions: int
    predicted: int


class Shapes(NamedTuple):
    """The shapes of a run's rows under the student's and under the teacher's prompts, the longest first."""

    student: tuple[Shape, ...]
    teacher: tuple[Shape, ...]


class Rows(NamedTuple):
    """Completions of a step after one policy's prompts, in micro-batches of one shape, [M, R, ...].

    The hidden state at `before_RP` predicts a token whose numbers are entry `place_RP` of all the step's, b T + t for
    token t of completion b, or B T where the row has no such token: a scatter drops that entry. The first
    `micro_batches` hold something; the others are not computed.
    """

    tokens_RS: Any  # int32
    completion_RS: Any  # int32: 1 + the completion that a position belongs to, 0 on padding
    before_RP: Any  # int32
    place_RP: Any  # int32
    micro_batches: Any  # int32, a scalar


class StepBatch(NamedTuple):
    """A step's completions: NumPy arrays from `step_batch`, JAX arrays inside a jitted step."""

    student: tuple[Rows, ...]  # one for each shape
    teacher: tuple[Rows, ...]
    completion_BT: Any  # int32
    mask_BT: Any  # bool: the tokens that count
    # The teacher's with K other prompts for each completion, B K of them (RLCSD), and which of them there are, bool.
    contrast: tuple[Rows, ...] = ()
    contrast_BK: Any = None


def choose_shapes(
    prompt_lengths: Sequence[int], *, max_new_tokens: int, shards: int = 1, micro_batch_tokens: int | None = None
) -> tuple[Shape, ...]:
    """The shapes of a run's rows, longest first, by the lengths of its prompts and before any completion is known.

    The first holds the longest prompt with a whole completion. `shards` devices share a micro-batch's rows and wait for
    each other: where there are several, shorter rows come second, since a few long ones would leave most without work.
    A micro-batch has as many rows as `micro_batch_tokens` positions on each device hold. By default it has a row per
    shard, and on a single device as many as 512 positions hold, or one; there a row of fewer may be half as long again,
    where completions then share rows with less padding. Raises ValueError where there is no prompt, or where
    `micro_batch_tokens` is fewer than the longest row takes.
    """
    if not len(prompt_lengths):
        raise ValueError("there is no prompt to choose the shapes of rows by")
    longest = _rounded(max(prompt_lengths) + max_new_tokens)
    if micro_batch_tokens is not None and micro_batch_tokens < longest:
        raise ValueError(
            f"train.micro_batch_tokens is {micro_batch_tokens}; the longest prompt with a whole completion takes a row "
            f"of {longest} tokens, so it must be at least that"
        )
    # the most that a row of average prompts holds: as many completions as fit where each is as long as it can be
    share = max_new_tokens / (float(np.mean(prompt_lengths)) + max_new_tokens)

    def shape(positions: int) -> Shape:
        predicted = min(max(int(positions * share), max_new_tokens), positions)
        rows = max((micro_batch_tokens or least) // positions, 1)
        return Shape(shards * rows, positions, -(-predicted // FINE) * FINE)

    least = LEAST_TOKENS if shards == 1 else 0
    if shards > 1:
        return tuple(map(shape, dict.fromkeys([longest, _rounded(int(longest * SHORT))])))
    longer = [] if micro_batch_tokens else range(longest + FINE, min(longest * 3 // 2, LEAST_TOKENS) + 1, FINE)
    shapes = [shape(positions) for positions in (longest, *longer)]
    return (shapes[0] if len(shapes) == 1 else _least_padded(shapes, prompt_lengths, max_new_tokens),)


def _least_padded(shapes: Sequence[Shape], prompt_lengths: Sequence[int], max_new_tokens: int) -> Shape:
    """The shortest with nearly the least padding, for these prompts and completions of all lengths alike."""
    draw = np.random.default_rng(0)
    computed = np.zeros(len(shapes))  # positions, for the same completions in each shape
    for _ in range(DRAWS):
        completions = -(-max_new_tokens * (1 + draw.permutation(DRAWN)) // DRAWN)
        positions = completions + draw.choice(prompt_lengths, DRAWN)
        sizes = dict(enumerate(zip(positions.tolist(), completions.tolist(), strict=True)))
        order = sorted(sizes, key=lambda index: -sizes[index][0])
        computed += [len(_first_fit(order, sizes, shape, None)[0]) * shape.positions for shape in shapes]
    return shapes[int(np.argmax(computed <= NEARLY * computed.min()))]


def packed_rows(
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    shapes: Sequence[Shape],
    *,
    max_new_tokens: int,
    pad_id: int = 0,
) -> tuple[Rows, ...]:
    """Completions after their prompts, several to a row where they fit; the empty ones are left out.

    Raises ValueError for lists of different lengths, an empty prompt, or a completion that no shape holds.
    """
    _check(prompts, completions)
    order = sorted(
        (index for index, completion in enumerate(completions) if len(completion)),
        key=lambda index: -len(prompts[index]) - len(completions[index]),
    )
    sizes = {index: (len(prompts[index]) + len(completions[index]), len(completions[index])) for index in order}
    shared = _share_rows(order, sizes, shapes)
    if shared is None:
        longest = sizes[order[0]]
        raise ValueError(f"a completion of {longest[1]} tokens, {longest[0]} with its prompt, exceeds {shapes[0]}")
    micro_batches = [-(-len(completions) // shape.rows) for shape in shapes]  # enough for a row each
    return tuple(
        lay_out(prompts, completions, rows, shape, most, max_new_tokens, pad_id)
        for rows, shape, most in zip(shared, shapes, micro_batches, strict=True)
    )


def ordered_rows(
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    size: int,
    *,
    max_new_tokens: int,
    pad_id: int = 0,
) -> tuple[Rows, ...]:
    """One completion per row in the given order, `size` rows at a time, as long as the longest prompt and completion.

    Lengths are rounded up to buckets (see `bucket_length`). Raises ValueError as `packed_rows` does.
    """
    _check(prompts, completions)
    predicted = bucket_length(max(map(len, completions)))
    shape = Shape(size, bucket_length(max(map(len, prompts))) + predicted, predicted)
    rows = [[index] for index in range(len(completions))]
    return (lay_out(prompts, completions, rows, shape, -(-len(rows) // size), max_new_tokens, pad_id),)


def step_batch(
    student: tuple[Rows, ...],
    teacher: tuple[Rows, ...],
    completions: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    pad_id: int = 0,
) -> StepBatch:
    """The rows of both policies with the completions themselves, [B, T] with T = `max_new_tokens`."""
    lengths = np.array([len(completion) for completion in completions], np.int32)
    completion_BT = pad_right(completions, max_new_tokens, pad_id)
    return StepBatch(student, teacher, completion_BT, length_mask(lengths, max_new_tokens))


def padding(rows: Sequence[Rows]) -> float:
    """Positions that are computed for each real one: 1 is no padding at all, and 0 that there are none."""
    computed = sum(int(part.micro_batches) * part.tokens_RS[0].size for part in rows)
    real = sum(int(np.count_nonzero(part.completion_RS)) for part in rows)
    return computed / real if real else 0.0


def _share_rows(
    order: list[int], sizes: dict[int, tuple[int, int]], shapes: Sequence[Shape]
) -> list[list[list[int]]] | None:
    """For each shape the completions of every row, with the fewest positions to compute; None where one fits nowhere.

    Longest first, each into the first row with room (first fit decreasing). With several shapes every number of
    micro-batches of the first is tried, and the others take what is left over.
    """
    first, *others = shapes
    if not others:
        rows, left = _first_fit(order, sizes, first, None)
        return None if left else [rows]
    best: tuple[int, list[list[list[int]]]] | None = None
    for micro_batches in range(len(order) + 1):
        rows, left = _first_fit(order, sizes, first, micro_batches * first.rows)
        if (rest := _share_rows(left, sizes, others)) is not None:
            shared = [rows, *rest]
            cost = sum(
                -(-len(rows) // shape.rows) * shape.rows * shape.positions
                for rows, shape in zip(shared, shapes, strict=True)
            )
            if best is None or cost < best[0]:
                best = cost, shared
        if not left:
            break
    return None if best is None else best[1]


def _first_fit(
    order: list[int], sizes: dict[int, tuple[int, int]], shape: Shape, most: int | None
) -> tuple[list[list[int]], list[int]]:
    """Rows of at most `most`, and what has no place in them."""
    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []
    left: list[int] = []
    for index in order:
        positions, predicted = sizes[index]
        fits = (row for row, free in enumerate(room) if positions <= free[0] and predicted <= free[1])
        if (row := next(fits, None)) is not None:
            rows[row].append(index)
            room[row] = room[row][0] - positions, room[row][1] - predicted
        elif positions > shape.positions or predicted > shape.predicted or len(rows) == most:
            left.append(index)
        else:
            rows.append([index])
            room.append((shape.positions - positions, shape.predicted - predicted))
    return rows, left


def lay_out(
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    rows: list[list[int]],
    shape: Shape,
    micro_batches: int,
    max_new_tokens: int,
    pad_id: int,
) -> Rows:
    """The arrays of these rows, filled up with empty ones to `micro_batches`."""
    total = micro_batches * shape.rows
    tokens_RS = np.full((total, shape.positions), pad_id, np.int32)
    completion_RS = np.zeros((total, shape.positions), np.int32)
    before_RP = np.zeros((total, shape.predicted), np.int32)
    place_RP = np.full((total, shape.predicted), len(completions) * max_new_tokens, np.int32)
    for row, indices in enumerate(rows):
        position = predicted = 0
        for index in indices:
            prompt, completion = prompts[index], completions[index]
            start, end = position + len(prompt), position + len(prompt) + len(completion)
            tokens_RS[row, position:end] = [*prompt, *completion]
            completion_RS[row, position:end] = 1 + index
            slots = slice(predicted, predicted + len(completion))
            before_RP[row, slots] = np.arange(start - 1, end - 1)
            place_RP[row, slots] = index * max_new_tokens + np.arange(len(completion))
            position, predicted = end, predicted + len(completion)
    return Rows(
        tokens_RS=tokens_RS.reshape(micro_batches, shape.rows, -1),
        completion_RS=completion_RS.reshape(micro_batches, shape.rows, -1),
        before_RP=before_RP.reshape(micro_batches, shape.rows, -1),
        place_RP=place_RP.reshape(micro_batches, shape.rows, -1),
        micro_batches=np.int32(-(-len(rows) // shape.rows)),
    )


def _check(prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]) -> None:
    if len(prompts) != len(completions) or not completions:
        raise ValueError(
            f"a step needs as many prompts as completions, at least one; got {len(prompts)} and {len(completions)}"
        )
    if empty := [index for index, prompt in enumerate(prompts) if not len(prompt)]:
        raise ValueError(f"the prompt of completion {empty[0]} is empty; a completion needs a token before it")


def _rounded(length: int) -> int:
    multiple = FINE if length < 1024 else COARSE
    return -(-length // multiple) * multiple
