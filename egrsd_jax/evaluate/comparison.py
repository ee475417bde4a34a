"""Two policies on the same problems: the paired difference, whether it can be chance, and what it takes to see one.

N problems, K samples of each, which may differ between the two.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from egrsd_jax.evaluate.intervals import error_over_problems, percentile_interval, replicates
from egrsd_jax.evaluate.scores import Scores

EXACT_STATES = 2**18  # largest total of whole-number differences whose signs are all enumerated
FLIPS, FLIPS_AT_A_TIME = 19_999, 1000  # random sign flips beyond that
# Standard errors that a difference must be away from 0 for a two-sided test at 5% to find it with 80% power: 2.80.
NEEDED_ERRORS = NormalDist().inv_cdf(0.975) + NormalDist().inv_cdf(0.8)


@dataclass(frozen=True)
class Difference:
    """After minus before, with its standard error over problems, 95% interval and two-sided p-value."""

    value: float
    error: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Components:
    """Variance of a paired difference of accuracy: of problems, and of one sample of each policy within a problem."""

    between: float
    within: float


@dataclass(frozen=True)
class Comparison:
    """Two policies on one benchmark. Shares are between 0 and 1, lengths in tokens.

    `components` is None where a policy has one sample per problem: then the two variances cannot be told apart.
    """

    benchmark: str
    problems: int
    samples: tuple[int, int]
    accuracy: Difference
    length: Difference
    components: Components | None

    @property
    def visible(self) -> float:
        """The smallest difference of accuracy that such a comparison finds with 80% power."""
        return NEEDED_ERRORS * self.accuracy.error


def compare(before: Scores, after: Scores, *, seed: int = 0) -> Comparison:
    """Paired differences of accuracy and length on the problems that both have. Raises as `paired` does."""
    before, after = paired(before, after)
    replicates_RC = replicates(difference_arms(before, after), seed=seed)
    accuracy, length = (
        difference(np.asarray(was), np.asarray(now), replicates_RC[:, channel], seed=seed)
        for channel, (was, now) in enumerate(((before.correct, after.correct), (before.tokens, after.tokens)))
    )
    several = min(before.samples, after.samples) > 1
    components = variance_components(before.correct_NK, after.correct_NK) if several else None
    return Comparison(
        before.benchmark, len(before.problems), (before.samples, after.samples), accuracy, length, components
    )


def paired(before: Scores, after: Scores) -> tuple[Scores, Scores]:
    """Both, on the problems that both have, in the order of the first.

    Raises ValueError where they are of other problem sets, or have fewer than two problems in common.
    """
    if before.identity != after.identity:
        raise ValueError(
            f"{before.benchmark} was read from two different sets ({before.identity[:12]} and {after.identity[:12]}), "
            "whose problems cannot be paired"
        )
    have = set(after.problems)
    if len(common := [problem for problem in before.problems if problem in have]) < 2:
        raise ValueError(f"{before.benchmark} has {len(common)} problems that both have, and pairs need 2")
    return before.only(common), after.only(common)


def difference_arms(before: Scores, after: Scores) -> list[tuple[float, np.ndarray]]:
    """After less before, as `replicates` takes it."""
    return [(-1.0, before.channels_NKC), (1.0, after.channels_NKC)]


def change(before_NK: np.ndarray, after_NK: np.ndarray, *, seed: int = 0) -> tuple[float, float, float]:
    """After minus before on the same problems: the difference, its standard error over problems, and its p-value."""
    difference_N = after_NK.mean(axis=1) - before_NK.mean(axis=1)
    whole_N = after_NK.sum(axis=1) * before_NK.shape[1] - before_NK.sum(axis=1) * after_NK.shape[1]
    return (
        float(difference_N.mean()),
        error_over_problems(difference_N[:, None]),
        sign_flip_test(whole_N, seed=seed),
    )


def difference(before_NK: np.ndarray, after_NK: np.ndarray, replicates_R: np.ndarray, *, seed: int = 0) -> Difference:
    """`change` with the 95% interval of its bootstrap replicates."""
    value, error, p = change(before_NK, after_NK, seed=seed)
    return Difference(value, error, *percentile_interval(replicates_R), p)


def sign_flip_test(differences_N: np.ndarray, *, seed: int = 0) -> float:
    """Two-sided p-value of the hypothesis that each difference is as likely as its negative; whole numbers, [N].

    Exact, over all 2^N flips, where the differences are small enough in total for the distribution of their sum to be
    built up problem by problem; otherwise (k + 1) / (n + 1) over n random flips (Phipson and Smyth 2010). Differences
    of counts of correct answers, or of tokens, are whole numbers.
    """
    sizes = np.abs(differences_N[differences_N != 0])
    if len(sizes) == 0:
        return 1.0
    unit = np.gcd.reduce(sizes)
    sizes, observed = sizes // unit, abs(int(differences_N.sum())) // int(unit)
    exact = int(sizes.sum()) <= EXACT_STATES
    return _exact_flips(sizes, observed) if exact else _random_flips(sizes, observed, seed)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for several tests by Holm's step-down rule (1979), in the same order."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def variance_components(before_NK: np.ndarray, after_NK: np.ndarray) -> Components:
    """What a paired difference varies by, from at least two samples per problem of each policy.

    The difference of problem means has the variance `between` + `within` / K. An estimate of `between` under 0, which
    small sets give where problems hardly differ, counts as 0.
    """
    arms = [before_NK.astype(np.float64), after_NK.astype(np.float64)]
    within = [float(values.var(axis=1, ddof=1).mean()) for values in arms]
    total = float((arms[1].mean(axis=1) - arms[0].mean(axis=1)).var(ddof=1))
    noise = sum(variance / values.shape[1] for variance, values in zip(within, arms, strict=True))
    return Components(max(0.0, total - noise), sum(within))


def problems_needed(components: Components, difference: float, samples: int) -> int:
    """How many problems with `samples` samples each show a difference of this size with 80% power."""
    variance = components.between + components.within / samples
    return max(2, math.ceil(variance * (NEEDED_ERRORS / difference) ** 2))


def samples_needed(components: Components, difference: float, problems: int) -> int | None:
    """How many samples of each of `problems` problems do; None where no number does, since problems differ too much."""
    left = problems * (difference / NEEDED_ERRORS) ** 2 - components.between
    return max(1, math.ceil(components.within / left)) if left > 0 else None


def _exact_flips(sizes: np.ndarray, observed: int) -> float:
    """The share of all sign patterns whose sum is at least as far from 0, from the sum's whole distribution."""
    total = int(sizes.sum())
    share = np.zeros(2 * total + 1)  # of sums from -total to total
    share[total] = 1.0
    reached = 0
    for size in map(int, sizes):
        reached += size
        now = slice(total - reached, total + reached + 1)
        inside = share[now]
        share[now] = 0.5 * (np.pad(inside[size:], (0, size)) + np.pad(inside[:-size], (size, 0)))
    return float(min(1.0, share[: total - observed + 1].sum() + share[total + observed :].sum())) if observed else 1.0


def _random_flips(sizes: np.ndarray, observed: int, seed: int) -> float:
    source = np.random.default_rng(seed)
    extreme = 0
    for start in range(0, FLIPS, FLIPS_AT_A_TIME):
        signs = 2 * source.integers(0, 2, (min(FLIPS_AT_A_TIME, FLIPS - start), len(sizes))) - 1
        extreme += int((np.abs(signs @ sizes) >= observed).sum())
    return (extreme + 1) / (FLIPS + 1)
