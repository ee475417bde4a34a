"""What the probes find in a completion's tokens: a tail that repeats, and stretches that occur again."""

from collections.abc import Sequence

import numpy as np

LONGEST_PERIOD = 512  # tokens of what is repeated, at most: longer ones would have to come in very long completions
REPEATS = 4  # times that a tail is repeated, at least


def loop_period(tokens: Sequence[int], least: int) -> int | None:
    """How many tokens the completion repeats at its end, the shortest such number; None where it ends in no loop.

    A loop is a tail of at least `least` tokens that consists of the same stretch at least `REPEATS` times. So a number
    of many zeros is none, and a phrase that is written four times in a row at the end is one.
    """
    ids = np.asarray(tokens)
    for period in range(1, min(LONGEST_PERIOD, len(ids) // REPEATS) + 1):
        tail = max(REPEATS * period, least)
        if tail > len(ids) or ids[-1] != ids[-1 - period]:
            continue
        if np.array_equal(ids[-tail + period :], ids[-tail:-period]):
            return period
    return None


def repeated_stretches(tokens: Sequence[int], n: int) -> tuple[int, int]:
    """(again, all): the stretches of n tokens that occurred before in the same completion, and all of them."""
    stretches = list(zip(*(tokens[start:] for start in range(n)), strict=False))  # the shortest of these ends it
    return len(stretches) - len(set(stretches)), len(stretches)
