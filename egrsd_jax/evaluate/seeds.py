"""Metrics of one policy trained with several seeds, and the paired difference of two.

Two errors are kept apart, since two questions are asked: would other seeds, and would other problems, give another
value? N problems, K samples of each; a seed has the same problems as the others.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from egrsd_jax.evaluate.comparison import change, paired
from egrsd_jax.evaluate.intervals import error_over_problems, half_width, standard_error, student_quantile
from egrsd_jax.evaluate.scores import Scores


@dataclass(frozen=True)
class Spread:
    """A mean over seeds, its value for each, and its standard errors; that over seeds is None for a single one.

    `problems` is how many problems the error over problems comes from; of several benchmarks, the fewest.
    """

    value: float
    by_seed: list[float]
    over_seeds: float | None
    over_problems: float
    problems: int

    @property
    def error(self) -> float:
        """The standard error over seeds; of a single seed over problems."""
        return self.over_problems if self.over_seeds is None else self.over_seeds

    @property
    def half_width(self) -> float:
        """Half of a 95% interval over seeds and problems; for one seed over problems alone.

        The two are independent, so the half widths of their Student intervals, each with its own degrees of freedom,
        add in squares (Zou and Donner 2008).
        """
        problems = student_quantile(self.problems) * self.over_problems
        return problems if self.over_seeds is None else math.hypot(half_width(self.by_seed), problems)


@dataclass(frozen=True)
class SeedDifference:
    """A metric after minus before, paired by seed and problem; p is of the sign-flip test over problems, and None for a
    mean over several benchmarks."""

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
    if any((other.identity, other.problems) != (first.identity, first.problems) for other in others):
        raise ValueError(f"{first.benchmark} was evaluated on other problems with one seed than with another")
    return replace(
        first,
        correct=_side_by_side([scores.correct for scores in seeds]),
        tokens=_side_by_side([scores.tokens for scores in seeds]),
        cut_off=float(np.mean([scores.cut_off for scores in seeds])),
        ungradable=sum(scores.ungradable for scores in seeds),
        missing=_together([scores.missing for scores in seeds]),
        majority=None,
    )


def _together(missing: Sequence[dict[str, int] | None]) -> dict[str, int] | None:
    """Counts of all seeds; None where one's are not known."""
    known = [counts for counts in missing if counts is not None]
    return dict(sum(map(Counter, known), Counter())) if len(known) == len(missing) else None


def spread(seeds: Sequence[Sequence[Scores]], values_NK: Callable[[Scores], np.ndarray]) -> Spread:
    """A metric that is a mean over samples, for each seed the plain mean over its benchmarks."""
    by_seed = [float(np.mean([values_NK(scores).mean() for scores in benchmarks])) for benchmarks in seeds]
    benchmarks = [pooled(scores) for scores in zip(*seeds, strict=True)]
    errors = [error_over_problems(values_NK(scores)) for scores in benchmarks]
    return Spread(
        value=float(np.mean(by_seed)),
        by_seed=by_seed,
        over_seeds=error_over_seeds(by_seed),
        over_problems=math.hypot(*errors) / len(errors),
        problems=min(len(scores.problems) for scores in benchmarks),
    )


def accuracy(seeds: Sequence[Sequence[Scores]]) -> Spread:
    """The share of correct samples, avg@K."""
    return spread(seeds, lambda scores: scores.correct_NK)


def length(seeds: Sequence[Sequence[Scores]]) -> Spread:
    """Tokens of a completion."""
    return spread(seeds, lambda scores: scores.tokens_NK)


def efficiency(seeds: Sequence[Sequence[Scores]]) -> Spread:
    """Eff = 100 · accuracy / (length / 1000) of each seed; its error over problems by the delta method."""
    correct, tokens = accuracy(seeds), length(seeds)
    by_seed = [1e5 * share / mean for share, mean in zip(correct.by_seed, tokens.by_seed, strict=True)]
    ratio, scale = correct.value / tokens.value, 1e5 / tokens.value
    linear = spread(seeds, lambda scores: scale * (scores.correct_NK - ratio * scores.tokens_NK))
    return replace(linear, value=float(np.mean(by_seed)), by_seed=by_seed, over_seeds=error_over_seeds(by_seed))


def error_over_seeds(by_seed: Sequence[float]) -> float | None:
    """Standard error of a mean over seeds; None for one seed."""
    return standard_error(by_seed) if len(by_seed) > 1 else None


def compare_seeds(before: Mapping[int, Sequence[Scores]], after: Mapping[int, Sequence[Scores]]) -> SeedComparison:
    """The paired differences of two policies, given by seed, as plain means over the benchmarks.

    The test is over problems: it takes the trained weights of these seeds as they are. Whether other seeds would do the
    same is in the error over seeds alone. Raises ValueError where the two have no seed, or no two problems of a
    benchmark, in common.
    """
    seeds = sorted(before.keys() & after.keys())
    if not seeds:
        raise ValueError(f"no seed is in common (seeds {sorted(before)} and {sorted(after)})")
    pairs = [[paired(*both) for both in zip(before[seed], after[seed], strict=True)] for seed in seeds]
    sides = [[pooled(side) for side in zip(*benchmark, strict=True)] for benchmark in zip(*pairs, strict=True)]
    accuracy = _difference(pairs, sides, lambda scores: scores.correct_NK)
    length = _difference(pairs, sides, lambda scores: scores.tokens_NK)
    return SeedComparison(seeds, sum(len(was.problems) for was, _ in sides), accuracy, length)


def _difference(
    pairs: Sequence[Sequence[tuple[Scores, Scores]]],
    sides: Sequence[Sequence[Scores]],
    values_NK: Callable[[Scores], np.ndarray],
) -> SeedDifference:
    """Of `pairs` by seed and benchmark, and `sides`, the same two of each benchmark with all seeds pooled."""
    values, errors, p_values = zip(*(change(*map(values_NK, both)) for both in sides), strict=True)
    by_seed = [
        float(np.mean([values_NK(now).mean() - values_NK(was).mean() for was, now in benchmarks]))
        for benchmarks in pairs
    ]
    p = p_values[0] if len(p_values) == 1 else None
    return SeedDifference(float(np.mean(values)), math.hypot(*errors) / len(errors), error_over_seeds(by_seed), p)


def _side_by_side(seeds: Sequence[list[list[int]]]) -> list[list[int]]:
    """[N][K] of each seed as [N][seeds · K]."""
    return [[value for row in rows for value in row] for rows in zip(*seeds, strict=True)]
