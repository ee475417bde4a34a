"""Random keys: every use folds a constant of its own into the run's key first, so that no two uses share a key.

Distinct numbers alone do not keep uses apart: `split(key, n)[i]` is `fold_in(key, i)`, and the bits sampled from a key
are the key data of its children. So a key is either folded or sampled from, never both, and nothing else in the package
splits a run's key. Held-out and benchmark evaluations, and completions on request, fold (problem, sample) into a key of
their seed directly, as they always did: their completions stay comparable between versions.
"""

from enum import IntEnum

import jax
from jax.typing import ArrayLike


class Use(IntEnum):
    """What a key is for. The constants exceed any count of problems, so no evaluation's key is one of these."""

    ADAPTER = 0x6B000001  # initial weights of the adapter
    ROLLOUT = 0x6B000002  # step, problem, sample
    CONTROL_GATE = 0x6B000003  # step
    DROPOUT = 0x6B000004  # step, row
    ANALYSIS = 0x6B000005  # new completions of an analysis: problem, sample
    BRANCHES = 0x6B000006  # continuations after a token that another replaced: branch, sample
    RESAMPLING = 0x6B000007  # bootstrap of an analysis
    STORED = 0x6B000008  # completions that are kept for other runs: problem, sample


def key_for(run_key: jax.Array, use: Use, *numbers: ArrayLike) -> jax.Array:
    """The key of a use and of the numbers that distinguish its keys (see `Use`), each a scalar below 2^32.

    Every use always gives the same count of numbers: a key of fewer is the parent of many, and is not sampled from.
    """
    key = jax.random.fold_in(run_key, int(use))
    for number in numbers:
        key = jax.random.fold_in(key, number)
    return key
