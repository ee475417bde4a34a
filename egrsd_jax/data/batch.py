"""Ragged token ids -> one right-padded Batch of a bucketed shape: what a policy scores outside the update.

Padding is known by length and never by token id, since the id that pads may also be a real token.
B sequences; S student, U teacher and T completion tokens.
"""

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any, NamedTuple

import numpy as np

SMALLEST_BUCKET = 16  # tokens


class Batch(NamedTuple):
    """Sampled completions under both prompts; NumPy arrays from `make_batch`, JAX arrays inside a jitted step.

    `student_tokens_BS` and `teacher_tokens_BU` are prompt + completion + padding. The completion begins at
    `student_start_B` and `teacher_start_B`, its tokens are the same in both: the hidden state that predicts
    completion token t is at index start - 1 + t, which is in range for every row and every t < T, padding included.
    `mask_BT` marks the completion's tokens, the end of turn among them. A row that only pads the batch is a prompt
    of one padding token with an empty completion: it adds nothing to any sum, and attention still has one token.
    """

    student_tokens_BS: Any  # int32
    student_start_B: Any  # int32, at least 1
    teacher_tokens_BU: Any  # int32
    teacher_start_B: Any  # int32, at least 1
    completion_BT: Any  # int32
    mask_BT: Any  # bool

    @property
    def completion_length_B(self) -> Any:
        """Tokens of each completion, the end of turn included: int32 [B]."""
        return self.mask_BT.sum(-1, dtype=np.int32)

    @property
    def student_before_BT(self) -> Any:
        """Index of the student's position that predicts each completion token: int32 [B, T]."""
        return before_completion(self.student_start_B, self.completion_BT.shape[-1])

    @property
    def teacher_before_BT(self) -> Any:
        """Index of the teacher's position that predicts each completion token: int32 [B, T]."""
        return before_completion(self.teacher_start_B, self.completion_BT.shape[-1])

    @property
    def student_mask_BS(self) -> Any:
        """True on the student's prompt and completion, False on padding: bool [B, S]."""
        return length_mask(self.student_start_B + self.completion_length_B, self.student_tokens_BS.shape[-1])

    @property
    def teacher_mask_BU(self) -> Any:
        """True on the teacher's prompt and completion, False on padding: bool [B, U]."""
        return length_mask(self.teacher_start_B + self.completion_length_B, self.teacher_tokens_BU.shape[-1])


def length_mask(length_B: Any, width: int) -> Any:
    """True at the first `length` of `width` positions: bool [..., width], for any leading axes, of NumPy or JAX."""
    positions = np.arange(width, dtype=np.int32).reshape((1,) * length_B.ndim + (width,))
    return length_B[..., None] > positions


def before_completion(start_B: Any, length: int) -> Any:
    """Where each of `length` tokens that begin at `start_B` is predicted: int32 [..., length], of NumPy or JAX."""
    tokens = np.arange(length, dtype=np.int32).reshape((1,) * start_B.ndim + (length,))
    return start_B[..., None] - 1 + tokens


def bucket_length(length: int, buckets: Sequence[int] | None = None) -> int:
    """The smallest bucket that holds `length` tokens, so that few shapes are ever compiled.

    Without `buckets`: 16, 24, 32, 48, 64, 96, ..., powers of two and their halves again, so that at most a third of
    a row is padding (beyond 16). Raises ValueError if `length` exceeds the largest of the `buckets` given.
    """
    if length < 0:
        raise ValueError(f"a length is at least 0 tokens, not {length}")
    if buckets is None:
        return next(bucket for bucket in _default_buckets() if bucket >= length)
    if not buckets or min(buckets) < 1:
        raise ValueError(f"buckets must be one or more positive lengths, not {list(buckets)}")
    if length > max(buckets):
        raise ValueError(
            f"{length} tokens exceed the largest bucket, {max(buckets)}; add a bucket of at least {length}"
        )
    return min(bucket for bucket in buckets if bucket >= length)


def make_batch(
    student_prompts: Sequence[Sequence[int]],
    teacher_prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    *,
    pad_id: int = 0,
    rows: int | None = None,
    prompt_buckets: Sequence[int] | None = None,
    completion_buckets: Sequence[int] | None = None,
) -> Batch:
    """Join prompts and completions, one of each per row, and pad on the right.

    T is the bucket of the longest completion; S and U are T plus the bucket of the longest student and teacher
    prompt. Rows without content fill the batch up to `rows`, so that it divides over devices.

    Raises ValueError for lists of different lengths or none, an empty prompt, too few `rows`, or a sequence longer
    than the largest bucket given.
    """
    sequences = len(completions)
    if not (len(student_prompts) == len(teacher_prompts) == sequences > 0):
        raise ValueError(
            "a batch needs as many student prompts, teacher prompts and completions, at least one of each; got "
            f"{len(student_prompts)}, {len(teacher_prompts)} and {sequences}"
        )
    for whose, prompts in (("student", student_prompts), ("teacher", teacher_prompts)):
        empty = [row for row, prompt in enumerate(prompts) if len(prompt) == 0]
        if empty:
            raise ValueError(f"the {whose} prompt of row {empty[0]} is empty; a completion needs a token before it")

    padding = (rows or sequences) - sequences
    if padding < 0:
        raise ValueError(f"rows={rows} must hold {sequences} sequences")
    students = [*student_prompts, *[[pad_id]] * padding]
    teachers = [*teacher_prompts, *[[pad_id]] * padding]
    completions = [*completions, *[[]] * padding]
    completion_width = bucket_length(max(map(len, completions)), completion_buckets)
    student_width = bucket_length(max(map(len, students)), prompt_buckets) + completion_width
    teacher_width = bucket_length(max(map(len, teachers)), prompt_buckets) + completion_width
    return Batch(
        student_tokens_BS=pad_right(_joined(students, completions), student_width, pad_id),
        student_start_B=_lengths(students),
        teacher_tokens_BU=pad_right(_joined(teachers, completions), teacher_width, pad_id),
        teacher_start_B=_lengths(teachers),
        completion_BT=pad_right(completions, completion_width, pad_id),
        mask_BT=length_mask(_lengths(completions), completion_width),
    )


def _default_buckets() -> Iterator[int]:
    for doubling in count():
        yield SMALLEST_BUCKET << doubling
        yield (SMALLEST_BUCKET * 3 // 2) << doubling


def _joined(prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]) -> list[list[int]]:
    return [[*prompt, *completion] for prompt, completion in zip(prompts, completions, strict=True)]


def _lengths(sequences: Sequence[Sequence[int]]) -> np.ndarray:
    return np.array([len(sequence) for sequence in sequences], np.int32)


def pad_right(sequences: Sequence[Sequence[int]], width: int, pad_id: int) -> np.ndarray:
    """The sequences, one per row, followed by `pad_id`: int32 [B, width]."""
    tokens = np.full((len(sequences), width), pad_id, np.int32)
    for row, sequence in zip(tokens, sequences, strict=True):
        row[: len(sequence)] = sequence
    return tokens
