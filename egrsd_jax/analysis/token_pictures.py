"""Pictures of one completion, token by token: its entropy whole and near, a window of the gate, its peaks."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from egrsd_jax.analysis.canvas import BLUE, GREEN, GREY, RED, REGIME_COLOURS, new_figure, plain, token_axis, visible
from egrsd_jax.analysis.mechanism import Mechanism, Study
from egrsd_jax.analysis.pictures import gate_text
from egrsd_jax.analysis.scored import ScoredCompletion
from egrsd_jax.analysis.traces import envelope, fullest_span, left_context, peaks, separate_spans

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WINDOW, ZOOM, ZOOMS = 40, 24, 3  # tokens of a window and of a zoomed span; spans
PEAKS, CONTEXT = 8, 44  # peaks that are named, and characters of what stands before each


class Shown(NamedTuple):
    """The completion of a picture: its tokens, and its numbers as they stand in the arrays of the analysis."""

    completion: ScoredCompletion
    entropy: np.ndarray
    ahead: np.ndarray
    gate: np.ndarray
    gate_ahead: np.ndarray
    normaliser: float

    @classmethod
    def row(cls, found: Mechanism, scored: list[ScoredCompletion], row: int) -> "Shown":
        """The completion in a row of the analysis."""
        length = len(scored[row].tokens)
        arrays = (found.entropy_BT, found.entropy_lookahead_BT, found.gate_BT, found.gate_lookahead_BT)
        return cls(scored[row], *(array[row, :length] for array in arrays), float(found.normaliser_B1[row, 0]))

    @property
    def name(self) -> str:
        """Which completion it is, for a line under a picture."""
        verdict = "right" if self.completion.correct else "wrong"
        return plain(f"problem {self.completion.problem}, {verdict} answer, {len(self.entropy):,} tokens")


def draw_trace(shown: Shown, title: str) -> "Figure":
    """Teacher entropy over the whole completion with its smoothed envelope, and the stretches with most of it near."""
    mean, upper = envelope(shown.entropy)
    length = len(shown.entropy)
    spans = separate_spans(shown.entropy, min(ZOOM, max(8, length // 4)), ZOOMS)
    figure = new_figure(12.0, 6.6)
    grid = figure.add_gridspec(2, max(len(spans), 1), height_ratios=(1, 1))
    axes = figure.add_subplot(grid[0, :] if spans else grid[:, :])
    places = np.arange(1, length + 1)
    axes.fill_between(places, 0, upper, color=RED, alpha=0.12, linewidth=0, label="envelope: rolling maximum, smoothed")
    axes.plot(places, shown.entropy, color=GREY, linewidth=0.9, label="teacher entropy")
    axes.plot(places, mean, color=RED, linewidth=1.8, label="rolling mean")
    top = 1.15 * max(float(shown.entropy.max()), 1e-6)
    for letter, span in zip("ABC", spans, strict=False):
        axes.axvspan(span.start + 0.5, span.stop + 0.5, color=BLUE, alpha=0.08, linewidth=0)
        axes.text(span.start + 0.8, 0.93 * top, letter, color=BLUE, weight="bold", va="top")
    axes.set(xlim=(0.5, length + 0.5), ylim=(0, top), xlabel="token", ylabel="entropy (nats)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="upper right", ncols=3)
    axes.set_title(title, fontsize=10)
    for column, (letter, span) in enumerate(zip("ABC", spans, strict=False)):
        near = figure.add_subplot(grid[1, column])
        _stems(near, shown, span)
        near.set(ylim=(0, top), ylabel="entropy (nats)" if column == 0 else "")
        near.set_title(f"{letter}: tokens {span.start + 1:,} to {span.stop:,}", fontsize=9, color=BLUE)
    figure.supxlabel(shown.name, fontsize=8)
    return figure


def draw_window(found: Mechanism, study: Study, shown: Shown, title: str) -> "Figure":
    """The gate at work: normalised entropy and its least value ahead with the regimes' thresholds, the weight without
    and with the lookahead, and the tokens; pivots and forks are shaded."""
    span = fullest_span(shown.entropy - shown.ahead, WINDOW)
    places = np.arange(span.start + 1, span.stop + 1)
    figure = new_figure(13.0, 6.2)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    here, ahead = (array[span] / shown.normaliser for array in (shown.entropy, shown.ahead))
    upper.plot(places, here, color=RED, marker="o", markersize=4, linewidth=1.2, label=r"$\hat{H}$")
    upper.step(
        places,
        ahead,
        where="mid",
        color=BLUE,
        linewidth=1.6,
        label=rf"$\hat{{H}}^{{CL}}$, least of the next {study.window}",
    )
    for value, style, name in zip(found.thresholds, (":", "--"), ("low", "high"), strict=True):
        upper.axhline(value, color="black", linewidth=0.9, linestyle=style, label=rf"$\tau_{{{name}}}$ = {value:.3g}")
    upper.set_ylabel(r"teacher entropy / $H_{max}$")
    lower.plot(places, shown.gate[span], color=RED, marker="o", markersize=4, linewidth=1.2, label=r"$\omega$")
    lower.plot(
        places, shown.gate_ahead[span], color=BLUE, marker="s", markersize=3, linewidth=1.2, label=r"$\omega^{CL}$"
    )
    lower.fill_between(places, shown.gate[span], shown.gate_ahead[span], color=GREEN, alpha=0.2, label="restored")
    lower.set_ylabel(r"gate $\omega$")
    for axes in (upper, lower):
        for regime in ("pivot", "fork"):
            _shade(axes, shown.completion.regime[span], span.start + 1, regime)
        axes.grid(alpha=0.25)
        axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.005, 0.5))
    token_axis(lower, shown.completion.token_texts[span], span.start + 1)
    upper.set_title(f"{title}: tokens {span.start + 1:,} to {span.stop:,}", fontsize=10)
    figure.supxlabel(f"{shown.name}; {gate_text(found, study)}", fontsize=8)
    return figure


def draw_peaks(found: Mechanism, shown: Shown, title: str) -> "Figure":
    """The highest peaks of teacher entropy, each with the text to its left and the token that was written there."""
    places = peaks(shown.entropy, PEAKS, least=float(found.thresholds[1]) * shown.normaliser)
    figure = new_figure(12.0, 3.4 + 0.28 * len(places))
    axes, below = figure.subplots(2, 1, height_ratios=(3.0, 0.3 * max(len(places), 1)))
    axes.plot(np.arange(1, len(shown.entropy) + 1), shown.entropy, color=GREY, linewidth=1)
    axes.plot([place + 1 for place in places], shown.entropy[places], color=RED, marker="o", linestyle="")
    for number, place in enumerate(places, start=1):
        axes.annotate(
            str(number), (place + 1, shown.entropy[place]), (0, 5), textcoords="offset points", ha="center", color=RED
        )
    axes.set(xlabel="token", ylabel="teacher entropy (nats)", xlim=(0.5, len(shown.entropy) + 0.5))
    axes.set_ylim(0, 1.15 * max(float(shown.entropy.max()), 1e-6))
    axes.grid(alpha=0.3)
    axes.set_title(title, fontsize=10)
    below.axis("off")
    for row, place in enumerate(places):
        height = 1 - (row + 0.5) / len(places)
        written = shown.completion.token_texts
        line = {"va": "center", "transform": below.transAxes, "fontsize": 9}
        below.text(0.0, height, f"{row + 1}", color=RED, weight="bold", **line)
        below.text(0.03, height, f"token {place + 1:,}", **line)
        below.text(0.11, height, f"H = {shown.entropy[place]:.2f} nats", **line)
        below.text(
            0.22, height, shown.completion.regime[place], color=REGIME_COLOURS[shown.completion.regime[place]], **line
        )
        context = visible(left_context(written, place, CONTEXT), None)
        below.text(0.68, height, f"… {context}", ha="right", family="monospace", **line)
        below.text(0.69, height, visible(written[place]), weight="bold", color=RED, family="monospace", **line)
    figure.supxlabel(shown.name, fontsize=8)
    return figure


def _stems(axes: Any, shown: Shown, span: slice) -> None:
    """A bar a token, coloured by its regime, over the tokens' texts."""
    colours = [REGIME_COLOURS[regime] for regime in shown.completion.regime[span]]
    axes.bar(np.arange(span.start + 1, span.stop + 1), shown.entropy[span], color=colours, width=0.75)
    axes.grid(alpha=0.3, axis="y")
    token_axis(axes, shown.completion.token_texts[span], span.start + 1)


def _shade(axes: Any, regimes: list[str], first: int, regime: str) -> None:
    """A band behind every token of a regime, and its name once in the legend."""
    label: str | None = regime
    for place, found in enumerate(regimes, start=first):
        if found == regime:
            axes.axvspan(place - 0.5, place + 0.5, color=REGIME_COLOURS[regime], alpha=0.15, linewidth=0, label=label)
            label = None
