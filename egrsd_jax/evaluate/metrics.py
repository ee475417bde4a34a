"""The metrics of one benchmark, and of several together, from graded samples.

N problems, K samples of each. Shares are between 0 and 1; reports show them in percent.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from egrsd_jax.evaluate.intervals import (
    Estimate,
    error_of_sampling,
    error_over_problems,
    percentile_interval,
    proportion,
    replicates,
)
from egrsd_jax.evaluate.scores import Scores

SMALL_CAP = 2048  # caps up to here are cut at 16, 32, ... tokens, larger ones at 1,024, 2,048, ...


@dataclass(frozen=True)
class Lengths:
    """Tokens of some samples: how many samples, mean, median, 95th percentile; None where there are no samples."""

    samples: int
    mean: float | None
    median: float | None
    p95: float | None


@dataclass(frozen=True)
class AtBudget:
    """What the same samples would give with a smaller cap: an answer that came later than `tokens` is none."""

    tokens: int
    accuracy: float
    error: float
    mean_tokens: float


@dataclass(frozen=True)
class Metrics:
    """Every metric of a benchmark. `accuracy` is avg@K; `efficiency` is 100 · accuracy / (mean length / 1000)."""

    accuracy: Estimate
    pass_at: dict[str, float]  # k, written out for JSON, to pass@k
    majority: float | None  # maj@K
    majority_error: float | None
    length: Estimate
    lengths: dict[str, Lengths]  # all, correct, wrong
    no_answer: float | None  # share of samples, those that were cut off among them; None where it is not known
    missing: dict[str, int] | None  # how many, by why
    cut_off: float
    ungradable: int
    ungradable_share: float
    efficiency: Estimate
    budgets: list[AtBudget]


def metrics(scores: Scores, *, seed: int = 0) -> Metrics:
    """The metrics of a benchmark."""
    correct_NK, tokens_NK = scores.correct_NK, scores.tokens_NK
    replicates_RC = replicates([(1.0, scores.channels_NKC)], seed=seed)
    majority = None if scores.majority is None else np.array(scores.majority)[:, None]
    return Metrics(
        accuracy=proportion(correct_NK),
        pass_at={str(k): float(pass_at(correct_NK, k).mean()) for k in _powers_of_two(scores.samples)},
        majority=None if majority is None else float(majority.mean()),
        majority_error=None if majority is None else error_over_problems(majority),
        length=Estimate(
            float(tokens_NK.mean()),
            error_over_problems(tokens_NK),
            error_of_sampling(tokens_NK),
            *percentile_interval(replicates_RC[:, 1]),
        ),
        lengths={
            "all": lengths(tokens_NK),
            "correct": lengths(tokens_NK[correct_NK]),
            "wrong": lengths(tokens_NK[~correct_NK]),
        },
        no_answer=scores.no_answer,
        missing=scores.missing,
        cut_off=scores.cut_off,
        ungradable=scores.ungradable,
        ungradable_share=scores.ungradable_share,
        efficiency=_efficiency([scores], replicates_RC),
        budgets=[at_budget(correct_NK, tokens_NK, tokens) for tokens in budgets(scores.max_new_tokens)],
    )


@dataclass(frozen=True)
class Macro:
    """Plain means over benchmarks: accuracy (Avg), tokens (AvgLen), and Eff = 100 · Avg / (AvgLen / 1000)."""

    benchmarks: int
    accuracy: Estimate
    length: Estimate
    efficiency: Estimate


def macro(scores: Sequence[Scores], *, seed: int = 0) -> Macro:
    """The mean over benchmarks, each of the same weight; its errors are those of independent benchmarks.

    For one benchmark these are its own metrics.
    """
    replicates_RC = macro_replicates([[(1.0, benchmark.channels_NKC)] for benchmark in scores], seed=seed)
    accuracy, length = (
        Estimate(
            float(np.mean([values.mean() for values in channel])),
            _error(channel),
            _sampling_error(channel),
            *percentile_interval(replicates_RC[:, index]),
        )
        for index, channel in enumerate(
            ([benchmark.correct_NK for benchmark in scores], [benchmark.tokens_NK for benchmark in scores])
        )
    )
    if len(scores) == 1:
        accuracy = proportion(scores[0].correct_NK)
    return Macro(len(scores), accuracy, length, _efficiency(scores, replicates_RC))


def macro_replicates(benchmarks: Sequence[Sequence[tuple[float, np.ndarray]]], *, seed: int = 0) -> np.ndarray:
    """Replicates [R, C] of the plain mean over benchmarks, each given by its arms, independent of each other."""
    return np.mean([replicates(arms, seed=seed + index) for index, arms in enumerate(benchmarks)], axis=0)


def pass_at(correct_NK: np.ndarray, k: int) -> np.ndarray:
    """pass@k of each problem, [N]: the chance that k of its K samples, taken without replacement, hold a correct one.

    The unbiased estimator of Chen et al. (arXiv 2107.03374), 1 - C(K-c, k) / C(K, k) with c correct samples, as a
    product that neither overflows nor cancels. Raises ValueError for k outside 1 to K.
    """
    samples = correct_NK.shape[1]
    if not 1 <= k <= samples:
        raise ValueError(f"pass@{k} needs between 1 and {samples} samples, and k is {k}")
    wrong_N = samples - correct_NK.sum(axis=1)
    taken = np.arange(k)
    return 1 - np.prod(np.clip(wrong_N[:, None] - taken, 0, None) / (samples - taken), axis=1)


def lengths(tokens: np.ndarray) -> Lengths:
    """Mean, median and 95th percentile of a set of samples."""
    if tokens.size == 0:
        return Lengths(0, None, None, None)
    return Lengths(
        tokens.size, float(tokens.mean()), float(np.median(tokens)), float(np.quantile(tokens, 0.95, method="higher"))
    )


def budgets(max_new_tokens: int) -> list[int]:
    """The caps to evaluate at: doubling up to the samples' own, which is the last."""
    start = 16 if max_new_tokens <= SMALL_CAP else 1024
    doubling = [start << power for power in range(max_new_tokens.bit_length()) if start << power < max_new_tokens]
    return [*doubling, max_new_tokens]


def at_budget(correct_NK: np.ndarray, tokens_NK: np.ndarray, tokens: int) -> AtBudget:
    """Accuracy and mean length with a cap of `tokens`. The stop token is one of a completion's tokens."""
    in_time_NK = correct_NK & (tokens_NK <= tokens)
    return AtBudget(
        tokens,
        float(in_time_NK.mean()),
        error_over_problems(in_time_NK),
        float(np.minimum(tokens_NK, tokens).mean()),
    )


def _efficiency(scores: Sequence[Scores], replicates_RC: np.ndarray) -> Estimate:
    """100 · accuracy / (length / 1000) of means over benchmarks, its errors by the delta method."""
    accuracy = float(np.mean([benchmark.accuracy for benchmark in scores]))
    length = float(np.mean([benchmark.mean_length for benchmark in scores]))
    ratio = 1e5 * accuracy / length
    # d(a/l) = (da - (a/l) dl) / l, so the error is that of the mean of a linear function of each sample
    linear = [1e5 / length * (benchmark.correct_NK - accuracy / length * benchmark.tokens_NK) for benchmark in scores]
    return Estimate(
        ratio,
        _error(linear),
        _sampling_error(linear),
        *percentile_interval(1e5 * replicates_RC[:, 0] / replicates_RC[:, 1]),
    )


def _error(benchmarks: Sequence[np.ndarray]) -> float:
    """Standard error over problems of the plain mean over independent benchmarks, each [N, K]."""
    return math.sqrt(sum(error_over_problems(values) ** 2 for values in benchmarks)) / len(benchmarks)


def _sampling_error(benchmarks: Sequence[np.ndarray]) -> float | None:
    """The same over samples alone; None where a benchmark has one sample per problem."""
    errors = [error_of_sampling(values) for values in benchmarks]
    known = [error for error in errors if error is not None]
    return math.sqrt(sum(error**2 for error in known)) / len(errors) if len(known) == len(errors) else None


def _powers_of_two(largest: int) -> list[int]:
    """1, 2, 4, ... and the largest itself."""
    return sorted({1 << power for power in range(largest.bit_length())} | {largest})
