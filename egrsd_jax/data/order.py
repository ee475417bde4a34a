"""Which problem comes next: a pure function of (seed, position), so that a checkpoint stores only a position."""

import numpy as np


def problem_indices(seed: int, start: int, count: int, size: int) -> np.ndarray:
    """The problems, as indices into `size` of them, at positions start, start + 1, ..., start + count - 1.

    Position p belongs to epoch p // size; each epoch is a fresh permutation of all the problems, derived from
    (seed, epoch), so every problem is used exactly once per epoch. Nothing else enters: any number of hosts, and a
    run that resumes, see the same order. Returns int64 [count]. Raises ValueError for a negative seed, start or
    count, and for size < 1.
    """
    for name, value, least in (("seed", seed, 0), ("start", start, 0), ("count", count, 0), ("size", size, 1)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, not {value}")
    epochs = range(start // size, -(-(start + count) // size))
    if not epochs:
        return np.empty(0, np.int64)
    order = np.concatenate([_epoch_order(seed, epoch, size) for epoch in epochs])
    first = start - epochs[0] * size
    return order[first : first + count]


def _epoch_order(seed: int, epoch: int, size: int) -> np.ndarray:
    """A uniformly random permutation: the ranks of `size` random 64-bit words.

    Not Generator.permutation, whose algorithm NumPy may change: a run resumed under another release must not
    see another order, and only the bit generators' own streams are promised to stay (NEP 19).
    """
    words = np.random.Philox(np.random.SeedSequence(seed, spawn_key=(epoch,))).random_raw(size)
    return np.argsort(words, kind="stable")
