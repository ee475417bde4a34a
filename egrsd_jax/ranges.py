"""The ranges of settings, and the one sentence that names a value outside of its range. Imports no jax."""

from collections.abc import Mapping
from math import inf, isfinite
from typing import Any, NamedTuple


class Range(NamedTuple):
    """The finite numbers from `least` to `most`, either end excluded where that is said; `note` explains an end."""

    least: float = -inf
    most: float = inf
    excludes_least: bool = False
    excludes_most: bool = False
    note: str = ""

    def holds(self, value: float) -> bool:
        """Whether the value is finite and inside."""
        above = value > self.least if self.excludes_least else value >= self.least
        below = value < self.most if self.excludes_most else value <= self.most
        return isfinite(value) and above and below

    def words(self) -> str:
        """The range in words: `at least 0`, `over 0 and at most 1`, `between 0 and 1 (0 is no limit)`."""
        if isfinite(self.least) and isfinite(self.most) and not (self.excludes_least or self.excludes_most):
            return f"between {self.least:,} and {self.most:,}{self._noted()}"
        ends = []
        if isfinite(self.least):
            ends.append(f"{'over' if self.excludes_least else 'at least'} {self.least}")
        if isfinite(self.most):
            ends.append(f"{'under' if self.excludes_most else 'at most'} {self.most}")
        return " and ".join(ends or ["a finite number"]) + self._noted()

    def noted(self, note: str) -> "Range":
        """The same range with a word on one of its values, such as `0 is no limit`."""
        return self._replace(note=note)

    def _noted(self) -> str:
        return f" ({self.note})" if self.note else ""


def at_least(least: float) -> Range:
    """`least` and everything above it."""
    return Range(least=least)


def over(least: float) -> Range:
    """Everything above `least`."""
    return Range(least=least, excludes_least=True)


UNIT = Range(0, 1)
BELOW_ONE = Range(0, 1, excludes_most=True)
SHARE = Range(0, 1, excludes_least=True)  # over 0, at most 1
INSIDE_UNIT = Range(0, 1, excludes_least=True, excludes_most=True)

# Of a completion's sampling, wherever it is asked for.
SAMPLING_RANGES = {
    "temperature": at_least(0).noted("0 is greedy"),
    "top_p": SHARE.noted("1 is no limit"),
    "top_k": at_least(0).noted("0 is no limit"),
    "max_new_tokens": at_least(1),
}


def check_ranges(prefix: str, settings: object, ranges: Mapping[str, Range]) -> None:
    """Raises ValueError over the first field of `settings` that is outside of its range; None is no number and passes.

    The message names the field with `prefix` before it: `train.` in a configuration, `--` for a program's option.
    """
    for name, allowed in ranges.items():
        value: Any = getattr(settings, name)
        if value is not None and not allowed.holds(value):
            finite = "" if isfinite(value) or isfinite(allowed.most) else " and finite"
            raise ValueError(f"{prefix}{name} is {value}; it must be {allowed.words()}{finite}")


def require(*conditions: tuple[Any, str]) -> None:
    """Raises ValueError with the message of the first condition, (whether it holds, message), that does not hold."""
    for holds, message in conditions:
        if not holds:
            raise ValueError(message)
