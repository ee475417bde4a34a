"""How much of the teacher's signal is left when its reference is replaced by a placebo."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
SHUFFLES = 20  # of a placebo's tokens within each completion: what agrees with the true signal by chance


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
    drawn = sums[source.integers(0, len(sums), (RESAMPLES, len(sums)))].sum(axis=1)
    beyond = _share(drawn[:, 0] - drawn[:, 1], drawn[:, 2] - drawn[:, 1])
    beyond = beyond[~np.isnan(beyond)]
    low, high = np.quantile(beyond, [0.025, 0.975]) if len(beyond) else (np.nan, np.nan)
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
        low=float(low),
        high=float(high),
        ratio=float(_share(placebo_size, size)),
        slope=float(_share(product, square)),
    )


def _sums(true: np.ndarray, placebo: np.ndarray, source: np.random.Generator) -> tuple[float, ...]:
    chance = np.mean([_common(true, source.permutation(placebo)) for _ in range(SHUFFLES)])
    sizes = np.abs(true).sum(), np.abs(placebo).sum(), (true * placebo).sum(), (true * true).sum()
    return _common(true, placebo), float(chance), *sizes


def _common(true: np.ndarray, placebo: np.ndarray) -> float:
    return float(np.minimum(np.abs(true), np.abs(placebo))[true * placebo > 0].sum())


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)
