"""Area under the ROC curve, with an interval from resampled completions."""

from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

RESAMPLES = 2000


class Auroc(NamedTuple):
    """The area and its 95% interval; NaN where all outcomes are the same."""

    value: float
    low: float
    high: float


def area(score: np.ndarray, outcome: np.ndarray) -> float:
    """The chance that a true case has a higher score than a false one, ties counted half (Mann and Whitney)."""
    true = int(outcome.sum())
    false = len(outcome) - true
    if not true or not false:
        return float("nan")
    return float((rankdata(score)[outcome].sum() - true * (true + 1) / 2) / (true * false))


def auroc(score: np.ndarray, outcome: np.ndarray, cluster: np.ndarray, *, seed: int = 0) -> Auroc:
    """Of scores [N] for outcomes [N], bool; cases of one `cluster` are drawn together, as they depend on each other.

    Resamples without both outcomes say nothing and are left out of the interval.
    """
    score, outcome, cluster = np.asarray(score, float), np.asarray(outcome, bool), np.asarray(cluster)
    members = [np.flatnonzero(cluster == label) for label in np.unique(cluster)]
    source = np.random.default_rng(seed)
    drawn = []
    for _ in range(RESAMPLES if members else 0):
        rows = np.concatenate([members[place] for place in source.integers(0, len(members), len(members))])
        drawn.append(area(score[rows], outcome[rows]))
    known = np.array([value for value in drawn if not np.isnan(value)])
    low, high = np.quantile(known, [0.025, 0.975]) if len(known) else (np.nan, np.nan)
    return Auroc(area(score, outcome), float(low), float(high))
