"""Standard errors and 95% intervals of metrics over problems, samples and seeds.

N problems, K samples of each, R replicates, C quantities of one sample (correct or wrong, tokens). Problems are
a random sample of such problems, and samples are sampled from the policy. `docs/evaluation.md` has the coverage of
every interval here, measured by simulation, and of those that were not taken.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

LEVEL = 0.95
TAIL = (1 - LEVEL) / 2
NORMAL_QUANTILE = float(stdtrit(math.inf, 1 - TAIL))  # 1.96: Student's without bound
REPLICATES = 4000
CHUNK = 2**22  # numbers gathered at a time: 32 MB


@dataclass(frozen=True)
class Estimate:
    """A metric, its two standard errors, and its 95% interval.

    `error` is what other problems and other samples would change; `sampling_error` what other samples of the same
    problems would, and None where a problem has one sample.
    """

    value: float
    error: float
    sampling_error: float | None
    low: float
    high: float


def standard_error(values: Sequence[float] | np.ndarray) -> float:
    """Standard error of the mean of independent values (of seeds, of problems); infinite for fewer than two."""
    return float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.inf


def half_width(values: Sequence[float] | np.ndarray) -> float:
    """Half of the 95% interval of a mean over independent values, Student's: for five seeds 2.776 standard errors.

    Infinite for fewer than two values. This is the interval over seeds wherever one is shown.
    """
    return student_quantile(len(values)) * standard_error(values) if len(values) > 1 else math.inf


def student_quantile(count: int) -> float:
    """Student's two-sided 95% quantile for means of `count` values: `count` - 1 degrees of freedom. At least two."""
    return float(stdtrit(count - 1, 1 - TAIL))


def error_over_problems(values_NK: np.ndarray) -> float:
    """Standard error of the mean over new problems and new samples: both levels are in the spread of problem means."""
    return standard_error(values_NK.mean(axis=1))


def error_of_sampling(values_NK: np.ndarray) -> float | None:
    """Standard error of the mean over new samples of these very problems; None for one sample a problem."""
    problems, samples = values_NK.shape
    if samples < 2:
        return None
    return float(math.sqrt(values_NK.var(axis=1, ddof=1).mean() / (problems * samples)))


def proportion(correct_NK: np.ndarray) -> Estimate:
    """A share of correct samples, with the score interval at the effective number of independent samples.

    The effective number is p(1-p) over the squared standard error over problems (Kish's design effect), the interval
    Wilson's (1927) with Student's quantile of N - 1 degrees of freedom. Where all samples are correct, or none is, the
    open end is the largest chance at which N problems would all come out so with probability 2.5%.
    """
    correct_NK = correct_NK.astype(np.float64)
    p, error, problems = float(correct_NK.mean()), error_over_problems(correct_NK), len(correct_NK)
    sampling = error_of_sampling(correct_NK)
    if p in (0.0, 1.0):
        reach = 1 - TAIL ** (1 / problems)
        return Estimate(p, error, sampling, 1 - reach if p else 0.0, 1.0 if p else reach)
    effective = p * (1 - p) / error**2 if error else correct_NK.size  # equal problem means: no sign of dependence
    quantile = student_quantile(problems)
    centre = (p + quantile**2 / (2 * effective)) / (1 + quantile**2 / effective)
    reach = (
        quantile / (1 + quantile**2 / effective) * math.sqrt(p * (1 - p) / effective + (quantile / effective / 2) ** 2)
    )
    return Estimate(p, error, sampling, centre - reach, centre + reach)


def replicates(arms: Sequence[tuple[float, np.ndarray]], *, seed: int = 0, draws: int = REPLICATES) -> np.ndarray:
    """Two-level bootstrap of Σ sign · mean over arms `(sign, values_NKC)` of the same N problems: [R, C].

    Problems are resampled with replacement, the same ones in every arm, and then samples within each of them. Samples
    of resampled problems would count the spread within problems twice, so the deviations from the estimate are
    scaled to the variance that is unbiased (that of problem means, N - 1 in the denominator), and by Student's quantile
    over the normal one, for few problems. Any smooth function of the replicates then has its percentile interval.
    """
    source = np.random.default_rng(seed)
    problems, channels = arms[0][1].shape[0], arms[0][1].shape[2]
    largest = max(values_NKC.size for _, values_NKC in arms)
    totals = np.empty((draws, channels))
    step = max(1, CHUNK // largest)
    for start in range(0, draws, step):
        rows = slice(start, min(start + step, draws))
        totals[rows] = _one_chunk(source, arms, rows.stop - rows.start)
    means_NC = np.sum([sign * values_NKC.mean(axis=1) for sign, values_NKC in arms], axis=0)
    unbiased_C = means_NC.var(axis=0, ddof=1) / problems
    within = [sign**2 * values_NKC.var(axis=1).mean(axis=0) / values_NKC.shape[1] for sign, values_NKC in arms]
    resampled_C = unbiased_C * (problems - 1) / problems + np.sum(within, axis=0) / problems
    shrink_C = np.sqrt(np.divide(unbiased_C, resampled_C, out=np.zeros(channels), where=resampled_C > 0))
    centre_C = means_NC.mean(axis=0)
    return centre_C + shrink_C * student_quantile(problems) / NORMAL_QUANTILE * (totals - centre_C)


def percentile_interval(values_R: np.ndarray) -> tuple[float, float]:
    """The middle 95% of replicates."""
    low, high = np.quantile(values_R, [TAIL, 1 - TAIL])
    return float(low), float(high)


def _one_chunk(source: np.random.Generator, arms: Sequence[tuple[float, np.ndarray]], draws: int) -> np.ndarray:
    problems, channels = arms[0][1].shape[0], arms[0][1].shape[2]
    rows_RN = source.integers(0, problems, (draws, problems))
    total_RC = np.zeros((draws, channels))
    for sign, values_NKC in arms:
        samples = values_NKC.shape[1]
        which_RNK = source.integers(0, samples, (draws, problems, samples))
        total_RC += sign * values_NKC[rows_RN[..., None], which_RNK].mean(axis=(1, 2))
    return total_RC
