"""Figures of one policy trained with several seeds, and the paired difference of two.

Two errors are kept apart, since two questions are asked: would other seeds, and would other problems, give another
figure? N problems, K samples of each; a seed has the same problems as the others.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from egrsd_jax.evaluate.comparison import change, paired
from egrsd_jax.evaluate.intervals import error_over_problems
from egrsd_jax.evaluate.scores import Scores

NORMAL_95 = 1.96


@dataclass(frozen=True)
class Spread:
    """A mean over seeds, its value for each, and its standard errors; that over seeds is None for a single one."""

    value: float
    each: list[float]
    over_seeds: float | None
    over_problems: float

    @property
    def error(self) -> float:
        """The standard error over seeds; of a single seed over problems."""
        return self.over_problems if self.over_seeds is None else self.over_seeds

    @property
    def reach(self) -> float:
        """Half of a 95% interval over seeds and problems, taken as independent; for one seed over problems alone."""
        return NORMAL_95 * math.hypot(self.over_seeds or 0.0, self.over_problems)


@dataclass(frozen=True)
class SeedDifference:
    """One figure after minus before, paired by seed and problem; p is of the sign-flip test over problems, and None for
    a mean over several benchmarks."""

    value: float
    over_problems: float
    over_seeds: float | None
    p: float | None

    @property
    def error(self) -> float:
        """The standard error over seeds; of a single seed over problems."""
        return self.over_problems if self.over_seeds is None else self.over_seeds


@dataclass(frozen=True)
class SeedComparison:
    """Two policies, with the seeds that both have; `problems` are those of all benchmarks."""

    seeds: list[int]
    problems: int
    accuracy: SeedDifference
    length: SeedDifference


def pooled(seeds: Sequence[Scores]) -> Scores:
    """Several seeds as one policy that has all their samples of each problem. Raises ValueError for other problems."""
    first, *others = seeds
    if any((each.identity, each.problems) != (first.identity, first.problems) for each in others):
        raise ValueError(f"{first.benchmark} was evaluated on other problems with one seed than with another")
    return replace(
        first,
        right=[[right for row in rows for right in row] for rows in zip(*(each.right for each in seeds), strict=True)],
        tokens=[
            [count for row in rows for count in row] for rows in zip(*(each.tokens for each in seeds), strict=True)
        ],
        cut_off=float(np.mean([each.cut_off for each in seeds])),
        ungradable=sum(each.ungradable for each in seeds),
        majority=None,
    )


def spread(seeds: Sequence[Sequence[Scores]], values_NK: Callable[[Scores], np.ndarray]) -> Spread:
    """A figure that is a mean over samples, for each seed the plain mean over its benchmarks."""
    each = [float(np.mean([values_NK(scores).mean() for scores in benchmarks])) for benchmarks in seeds]
    errors = [error_over_problems(values_NK(pooled(scores))) for scores in zip(*seeds, strict=True)]
    return Spread(float(np.mean(each)), each, error_over_seeds(each), math.hypot(*errors) / len(errors))


def accuracy(seeds: Sequence[Sequence[Scores]]) -> Spread:
    """The share of right samples, avg@K."""
    return spread(seeds, lambda scores: scores.right_NK)


def length(seeds: Sequence[Sequence[Scores]]) -> Spread:
    """Tokens of a completion."""
    return spread(seeds, lambda scores: scores.tokens_NK)


def efficiency(seeds: Sequence[Sequence[Scores]]) -> Spread:
    """Eff = 100 · accuracy / (length / 1000) of each seed; its error over problems by the delta method."""
    right, tokens = accuracy(seeds), length(seeds)
    each = [1e5 * share / mean for share, mean in zip(right.each, tokens.each, strict=True)]
    ratio, scale = right.value / tokens.value, 1e5 / tokens.value
    linear = spread(seeds, lambda scores: scale * (scores.right_NK - ratio * scores.tokens_NK))
    return Spread(float(np.mean(each)), each, error_over_seeds(each), linear.over_problems)


def error_over_seeds(each: Sequence[float]) -> float | None:
    """Standard error of a mean over seeds; None for one seed."""
    return error_over_problems(np.array(each)[:, None]) if len(each) > 1 else None


def compare_seeds(before: Mapping[int, Sequence[Scores]], after: Mapping[int, Sequence[Scores]]) -> SeedComparison:
    """The paired differences of two policies, given by seed, as plain means over the benchmarks.

    The test is over problems: it takes the trained weights of these seeds as they are. Whether other seeds would do the
    same is told by the error over seeds alone. Raises ValueError where the two have no seed, or no two problems of a
    benchmark, in common.
    """
    seeds = sorted(before.keys() & after.keys())
    if not seeds:
        raise ValueError(f"no seed is in common (seeds {sorted(before)} and {sorted(after)})")
    pairs = [[paired(*both) for both in zip(before[seed], after[seed], strict=True)] for seed in seeds]
    sides = [[pooled(side) for side in zip(*benchmark, strict=True)] for benchmark in zip(*pairs, strict=True)]
    found = []
    for values_NK in (lambda scores: scores.right_NK, lambda scores: scores.tokens_NK):
        values, errors, p_values = zip(*(change(*map(values_NK, both)) for both in sides), strict=True)
        by_seed = [
            float(np.mean([values_NK(now).mean() - values_NK(was).mean() for was, now in each])) for each in pairs
        ]
        p = p_values[0] if len(p_values) == 1 else None
        error = math.hypot(*errors) / len(errors)
        found.append(SeedDifference(float(np.mean(values)), error, error_over_seeds(by_seed), p))
    return SeedComparison(seeds, sum(len(was.problems) for was, _ in sides), *found)
