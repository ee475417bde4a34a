"""A ratio over completions as sums, which add up over steps: value and standard error are taken once, at the end."""

import math
from collections.abc import Iterable
from dataclasses import astuple, dataclass


@dataclass(frozen=True)
class Tally:
    """Sums over completions of a numerator (`top`), a denominator (`bottom`), their squares and their product.

    `count` is how many completions have a denominator; those without one say nothing.
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
        return Tally(*(one + another for one, another in zip(astuple(self), astuple(other), strict=True)))

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
