"""How much of the teacher's signal is left when its reference is replaced by a placebo."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000


@dataclass(frozen=True)
class Placebo:
    """A placebo teacher's delta beside the true one's, over all tokens. Intervals are 95%, over completions.

    `survives` is the share of the true |delta| that the placebo has too, at the same token and with the same sign:
    Σ min(|δ'|, |δ|) where signs agree, over Σ |δ|. `ratio` is Σ |δ'| / Σ |δ|, `slope` Σ δ' δ / Σ δ².
    """

    name: str
    completions: int
    tokens: int
    delta: float  # mean |δ'|, nats
    true_delta: float  # mean |δ|, nats
    survives: float
    survives_low: float
    survives_high: float
    ratio: float
    slope: float


def compare_placebo(name: str, true: Sequence[np.ndarray], placebo: Sequence[np.ndarray], *, seed: int = 0) -> Placebo:
    """Of each completion, δ of the true and of the placebo teacher, nats [T] each."""
    sums = np.array([_sums(one, other) for one, other in zip(true, placebo, strict=True)])
    rows = np.random.default_rng(seed).integers(0, len(sums), (RESAMPLES, len(sums)))
    drawn = sums[rows].sum(axis=1)
    whole = sums.sum(axis=0)
    low, high = np.nanquantile(_share(drawn[:, 0], drawn[:, 1]), [0.025, 0.975])
    tokens = sum(map(len, true))
    return Placebo(
        name,
        len(sums),
        tokens,
        float(whole[2] / tokens),
        float(whole[1] / tokens),
        float(_share(whole[0], whole[1])),
        float(low),
        float(high),
        float(_share(whole[2], whole[1])),
        float(_share(whole[3], whole[4])),
    )


def _sums(true: np.ndarray, placebo: np.ndarray) -> tuple[float, ...]:
    common = np.minimum(np.abs(true), np.abs(placebo))[true * placebo > 0]
    return common.sum(), np.abs(true).sum(), np.abs(placebo).sum(), (true * placebo).sum(), (true * true).sum()


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)
