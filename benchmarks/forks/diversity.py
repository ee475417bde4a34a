"""Diversity at forks, from several samples of each problem: whether a policy still uses every correct continuation.

A route is what a sample chose at one fork after the other; None stands for a sample that is no valid derivation, and
belongs to no pair. N problems, K samples of each.
"""

from collections.abc import Hashable, Sequence
from itertools import combinations

import numpy as np

Route = Sequence[Hashable]


def agreement(routes_NK: Sequence[Sequence[Route | None]], forks: int | None = None) -> np.ndarray:
    """The chance that two samples of a problem take the same way at the first `forks` forks (None: at all), [N].

    Over all pairs of its valid samples, so an unbiased estimate of Σ p² (Simpson's index), whatever K is; NaN where a
    problem has fewer than two valid samples.
    """
    return np.array([_agreement([tuple(route[:forks]) for route in routes if route]) for routes in routes_NK])


def distinct(routes_NK: Sequence[Sequence[Route | None]]) -> np.ndarray:
    """Different valid routes among a problem's K samples, [N]; it grows with K, so compare equal K alone."""
    return np.array([len({tuple(route) for route in routes if route}) for routes in routes_NK])


def _agreement(choices: Sequence[Hashable]) -> float:
    pairs = [first == second for first, second in combinations(choices, 2)]
    return float(np.mean(pairs)) if pairs else float("nan")
