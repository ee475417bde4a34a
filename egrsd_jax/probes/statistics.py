"""Statistics of the probes: ratios over completions, the area under the ROC curve, and what survives a placebo."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from typing import NamedTuple

import numpy as np

RESAMPLES = 2000  # of completions, for a 95% interval
SHUFFLES = 20  # of a placebo's tokens within each completion: what agrees with the true signal by chance


@dataclass(frozen=True)
class Tally:
    """A ratio over completions as sums, which add up over steps; value and standard error are computed at the end.

    The sums are of a numerator (`top`), a denominator (`bottom`), their squares and their product. `count` is how many
    completions have a denominator; those without one are left out.
    """

    count: float = 0
    top: float = 0
    bottom: float = 0
    top_square: float = 0
    product: float = 0
    bottom_square: float = 0

    @classmethod
    def of(cls, pairs: Iterable[tuple[float, float]]) -> "Tally":
        """The sums of some completions' (numerator, denominator)."""
        real = [(float(top), float(bottom)) for top, bottom in pairs if bottom > 0]
        return cls(
            len(real),
            sum(top for top, _ in real),
            sum(bottom for _, bottom in real),
            sum(top * top for top, _ in real),
            sum(top * bottom for top, bottom in real),
            sum(bottom * bottom for _, bottom in real),
        )

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(*map(sum, zip(astuple(self), astuple(other), strict=True)))

    @property
    def value(self) -> float:
        """Σ numerators / Σ denominators; NaN without a completion."""
        return self.top / self.bottom if self.count else math.nan

    @property
    def error(self) -> float:
        """Its standard error over independent completions, by linearisation; infinite for fewer than two."""
        if self.count < 2:
            return math.inf
        residual = self.top_square - 2 * self.value * self.product + self.value**2 * self.bottom_square
        return math.sqrt(max(residual, 0.0) * self.count / (self.count - 1)) / self.bottom


def total(tallies: Iterable[Tally]) -> Tally:
    """All of them together."""
    return sum(tallies, Tally())


class Auroc(NamedTuple):
    """The area under the ROC curve and its 95% interval; NaN where all outcomes are the same."""

    value: float
    low: float
    high: float


def area(score: np.ndarray, outcome: np.ndarray) -> float:
    """The chance that a true case has a higher score than a false one, ties counted half (Mann and Whitney)."""
    true = int(outcome.sum())
    false = len(outcome) - true
    if not true or not false:
        return float("nan")
    _, which, counts = np.unique(score, return_inverse=True, return_counts=True)
    rank = (counts.cumsum() - (counts - 1) / 2)[which]  # from 1; equal scores share the mean of their ranks
    return float((rank[outcome].sum() - true * (true + 1) / 2) / (true * false))


def auroc(score: np.ndarray, outcome: np.ndarray, cluster: np.ndarray, *, seed: int = 0) -> Auroc:
    """Of scores [N] for outcomes [N], bool; cases of one `cluster` are resampled together, since they are dependent.

    Resamples without both outcomes have no area and are left out of the interval.
    """
    score, outcome, cluster = np.asarray(score, float), np.asarray(outcome, bool), np.asarray(cluster)
    members = [np.flatnonzero(cluster == name) for name in np.unique(cluster)]
    source = np.random.default_rng(seed)
    areas = []
    for _ in range(RESAMPLES if members else 0):
        rows = np.concatenate([members[index] for index in source.integers(0, len(members), len(members))])
        areas.append(area(score[rows], outcome[rows]))
    return Auroc(area(score, outcome), *_middle_95(np.array(areas)))


@dataclass(frozen=True)
class Placebo:
    """A placebo teacher's δ' compared with the true δ, over all tokens.

    `survives` is the share of the true |δ| that the placebo has too, at the same token and with the same sign:
    Σ min(|δ'|, |δ|) where signs agree, over Σ |δ|. A placebo that is large everywhere has much of it anyhow: `chance`
    is the same with the placebo's tokens shuffled within each completion, and `beyond` is what survives beyond it,
    (survives - chance) / (1 - chance), with its 95% interval over completions. `ratio` is Σ |δ'| / Σ |δ|, `slope`
    Σ δ' δ / Σ δ².
    """

    name: str
    completions: int
    tokens: int
    delta: float  # mean |δ'|, nats
    true_delta: float  # mean |δ|, nats
    survives: float
    chance: float
    beyond: float
    low: float
    high: float
    ratio: float
    slope: float


def compare_placebo(name: str, true: Sequence[np.ndarray], placebo: Sequence[np.ndarray], *, seed: int = 0) -> Placebo:
    """Of each completion, δ of the true and of the placebo teacher, nats [T] each."""
    source = np.random.default_rng(seed)
    sums = np.array([_sums(one, other, source) for one, other in zip(true, placebo, strict=True)])
    resampled = sums[source.integers(0, len(sums), (RESAMPLES, len(sums)))].sum(axis=1)
    low, high = _middle_95(_share(resampled[:, 0] - resampled[:, 1], resampled[:, 2] - resampled[:, 1]))
    common, chance, size, placebo_size, product, square = sums.sum(axis=0)
    tokens = sum(map(len, true))
    return Placebo(
        name=name,
        completions=len(sums),
        tokens=tokens,
        delta=float(placebo_size / tokens),
        true_delta=float(size / tokens),
        survives=float(_share(common, size)),
        chance=float(_share(chance, size)),
        beyond=float(_share(common - chance, size - chance)),
        low=low,
        high=high,
        ratio=float(_share(placebo_size, size)),
        slope=float(_share(product, square)),
    )


def _middle_95(values: np.ndarray) -> tuple[float, float]:
    """The ends of the middle 95% of those that are not NaN; NaN where all are."""
    values = values[~np.isnan(values)]
    low, high = np.quantile(values, [0.025, 0.975]) if len(values) else (np.nan, np.nan)
    return float(low), float(high)


def _sums(true: np.ndarray, placebo: np.ndarray, source: np.random.Generator) -> tuple[float, ...]:
    chance = np.mean([_common(true, source.permutation(placebo)) for _ in range(SHUFFLES)])
    sizes = np.abs(true).sum(), np.abs(placebo).sum(), (true * placebo).sum(), (true * true).sum()
    return _common(true, placebo), float(chance), *sizes


def _common(true: np.ndarray, placebo: np.ndarray) -> float:
    return float(np.minimum(np.abs(true), np.abs(placebo))[true * placebo > 0].sum())


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)
