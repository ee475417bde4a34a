"""What the plots of a completion show: which one, which spans of it, which peaks of entropy. NumPy alone."""

from collections.abc import Sequence

import numpy as np

ROLLING_SHARE = 20  # the envelope's window is a completion's length divided by this, and at least
LEAST_ROLLING = 5  # tokens


def most_lowered(before_BT: np.ndarray, after_BT: np.ndarray) -> int:
    """The completion in which the lookahead takes most entropy away, in sum: the one with the most to see."""
    return int(np.argmax((before_BT - after_BT).sum(axis=1)))


def fullest_span(values: np.ndarray, width: int) -> slice:
    """The stretch of `width` tokens, or all of fewer, whose values have the largest sum; the first of equals."""
    width = min(width, len(values))
    sums = np.convolve(values, np.ones(width), mode="valid")
    start = int(np.argmax(sums > sums.max() - 1e-9 * max(1.0, abs(sums.max()))))
    return slice(start, start + width)


def separate_spans(values: np.ndarray, width: int, count: int) -> list[slice]:
    """At most `count` stretches of `width` tokens around the largest values, apart, in the order of the text."""
    width = min(width, len(values))
    starts: list[int] = []
    for place in np.argsort(-values, kind="stable").tolist():
        start = min(max(place - width // 2, 0), len(values) - width)
        if len(starts) < count and all(abs(start - other) >= width for other in starts):
            starts.append(start)
    return [slice(start, start + width) for start in sorted(starts)]


def envelope(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rolling mean, and the rolling maximum smoothed by it: an upper line that follows the peaks. Windows are
    centred and cut at both ends."""
    width = max(LEAST_ROLLING, len(values) // ROLLING_SHARE) // 2 * 2 + 1
    return np.nanmean(_windows(values, width), axis=1), np.nanmean(
        _windows(np.nanmax(_windows(values, width), axis=1), width), axis=1
    )


def peaks(values: np.ndarray, count: int, *, least: float) -> list[int]:
    """Places of the highest local maxima of at least `least`, at most `count`, in the order of the text."""
    around = np.pad(values, 1, constant_values=-np.inf)
    is_peak = (values > around[:-2]) & (values >= around[2:]) & (values >= least)
    places = np.flatnonzero(is_peak)
    return sorted(places[np.argsort(-values[places], kind="stable")][:count].tolist())


def left_context(texts: Sequence[str], place: int, characters: int) -> str:
    """The text before a token: as many whole tokens as `characters` hold."""
    start = place
    while start > 0 and len("".join(texts[start - 1 : place])) <= characters:
        start -= 1
    context = "".join(texts[start:place])
    return f"… {context.lstrip()}" if start > 0 else context


def _windows(values: np.ndarray, width: int) -> np.ndarray:
    padded = np.pad(values.astype(float), width // 2, constant_values=np.nan)
    return np.lib.stride_tricks.sliding_window_view(padded, width)
