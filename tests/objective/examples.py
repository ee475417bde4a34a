"""Batches for the tests of the objective: the worked example of the method, and random ones with poisoned padding.

All are 5 by 6 unless a test asks for more, so that JAX compiles each operation once for all of them.
"""

from typing import NamedTuple

import numpy as np

POISON = np.array([np.nan, np.inf, -np.inf, 1e38, -7.0], np.float32)


class Batch(NamedTuple):
    """The positional arguments of `egrsd_loss`, in its order."""

    student_logp_BT: np.ndarray
    teacher_logp_BT: np.ndarray
    entropy_BT: np.ndarray
    advantage_B: np.ndarray
    mask_BT: np.ndarray


def poisoned(values_BT, mask_BT):
    """The values with NaN, infinities and large numbers wherever the mask is False."""
    poison_BT = np.resize(POISON, mask_BT.shape)
    return np.where(mask_BT, values_BT, poison_BT).astype(np.float32)


def worked_example():
    """Two sequences of 4 and 3 tokens with H_max = 3, padded to 5 by 6; `batch.mask_BT` picks their tokens in order."""
    mask_BT = np.zeros((5, 6), bool)
    mask_BT[0, :4] = mask_BT[1, :3] = True

    def placed(tokens):
        values_BT = np.zeros(mask_BT.shape)
        values_BT[mask_BT] = tokens
        return poisoned(values_BT, mask_BT)

    student = np.array([-0.1, -2.0, -0.3, -1.0, -0.5, -0.2, -0.7])
    delta = np.array([0.05, -0.5, 0.3, 0.0, -0.1, 0.4, -0.02])
    return Batch(
        placed(student),
        placed(student + delta),
        placed([2.0, 0.1, 0.5, 1.5, 0.3, 3.0, 2.5]),
        np.array([1.0, -0.5, np.nan, np.inf, -1.0], np.float32),
        mask_BT,
    )


def random_batch(seed, lengths=(4, 0, 6, 1, 5), width=6):
    """Sequences of the given lengths, right-padded with poison; one has advantage 0, an empty one a NaN advantage."""
    rng = np.random.default_rng(seed)
    lengths = np.array(lengths)
    shape = (len(lengths), width)
    mask_BT = np.arange(width)[None, :] < lengths[:, None]
    student_BT = -rng.exponential(1.0, shape)
    advantage_B = rng.normal(size=len(lengths))
    advantage_B[len(lengths) // 2] = 0.0
    return Batch(
        poisoned(student_BT, mask_BT),
        poisoned(student_BT + rng.normal(0.0, 0.3, shape), mask_BT),
        poisoned(rng.exponential(1.0, shape), mask_BT),
        np.where(lengths > 0, advantage_B, np.nan).astype(np.float32),
        mask_BT,
    )


def rows(batch, selection):
    """The sequences that `selection` picks, in its order."""
    return Batch(*(array[selection] for array in batch))


def with_extra_padding(batch, extra_rows=2, extra_columns=3):
    """The same sequences in a larger batch: poisoned columns at the end, and poisoned empty sequences below."""
    wider = ((0, extra_rows), (0, extra_columns))
    mask_BT = np.pad(batch.mask_BT, wider)
    padded_BT = [
        poisoned(np.pad(array, wider), mask_BT)
        for array in (batch.student_logp_BT, batch.teacher_logp_BT, batch.entropy_BT)
    ]
    advantage_B = np.pad(batch.advantage_B, (0, extra_rows), constant_values=np.inf)
    return Batch(*padded_BT, advantage_B, mask_BT)
