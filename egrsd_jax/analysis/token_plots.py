"""Plots of one completion, token by token: its entropy whole and near, a window of the gate, its peaks."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from egrsd_jax.analysis.canvas import REGIME_COLOURS, token_axis, visible
from egrsd_jax.analysis.mechanism import ORDER, Mechanism, Study
from egrsd_jax.analysis.plots import gate_text
from egrsd_jax.analysis.traces import envelope, fullest_span, left_context, peaks, separate_spans
from egrsd_jax.canvas import BLUE, GREEN, GREY, RED, new_figure, plain
from egrsd_jax.viewer.scored import ScoredCompletion

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WINDOW, ZOOM, LEAST_ZOOM, ZOOMS = 40, 24, 8, 3  # tokens of a window and of a zoomed span; spans
PEAKS, CONTEXT, ALTERNATIVES = 8, 48, 3  # peaks that are named, and characters of the context before each

LEAST_CHANCE = 0.005  # of an alternative that is named
FLOOR = 1e-4  # of normalised entropy, where the logarithmic axis ends


class Shown(NamedTuple):
    """The completion of a plot: its tokens, and its numbers as in the arrays of the analysis."""

    completion: ScoredCompletion
    entropy: np.ndarray
    ahead: np.ndarray
    gate: np.ndarray
    gate_ahead: np.ndarray
    normaliser: float

    @classmethod
    def row(cls, mechanism: Mechanism, scored: list[ScoredCompletion], row: int) -> "Shown":
        """The completion in a row of the analysis."""
        length = len(scored[row].tokens)
        return cls(
            completion=scored[row],
            entropy=mechanism.entropy_BT[row, :length],
            ahead=mechanism.entropy_lookahead_BT[row, :length],
            gate=mechanism.gate_BT[row, :length],
            gate_ahead=mechanism.gate_lookahead_BT[row, :length],
            normaliser=float(mechanism.normaliser_B1[row, 0]),
        )

    @property
    def name(self) -> str:
        """Which completion it is, for a line under a plot."""
        verdict = "correct" if self.completion.correct else "wrong"
        return plain(f"problem {self.completion.problem}, {verdict} answer, {len(self.entropy):,} tokens")


def draw_trace(shown: Shown, title: str) -> "Figure":
    """Teacher entropy over the whole completion with its smoothed envelope, and the stretches with most of it near."""
    mean, upper = envelope(shown.entropy)
    length = len(shown.entropy)
    spans = separate_spans(shown.entropy, min(ZOOM, max(LEAST_ZOOM, length // 4)), ZOOMS)
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
    axes.legend(fontsize=8, loc="lower right", bbox_to_anchor=(1, 1), ncols=3, frameon=False)
    axes.set_title(title, fontsize=10, loc="left")
    for column, (letter, span) in enumerate(zip("ABC", spans, strict=False)):
        near = figure.add_subplot(grid[1, column])
        _stems(near, shown, span)
        if column == len(spans) - 1:
            near.legend(handles=_regime_patches(), fontsize=7)
        near.set(ylim=(0, top), ylabel="entropy (nats)" if column == 0 else "")
        near.set_title(f"{letter}: tokens {span.start + 1:,} to {span.stop:,}", fontsize=9, color=BLUE)
    figure.supxlabel(shown.name, fontsize=8)
    return figure


def draw_window(mechanism: Mechanism, study: Study, shown: Shown, title: str) -> "Figure":
    """The gate at work: normalised entropy and its least value ahead with the regimes' thresholds, the weight without
    and with the lookahead, and the tokens; pivots and forks are shaded."""
    span = fullest_span(shown.entropy - shown.ahead, WINDOW)
    places = np.arange(span.start + 1, span.stop + 1)
    figure = new_figure(13.0, 6.4)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    here, ahead = (np.maximum(array[span] / shown.normaliser, FLOOR) for array in (shown.entropy, shown.ahead))
    least = rf"$\hat{{H}}^{{CL}}$, least from here to {study.window} ahead"
    upper.plot(places, here, color=RED, marker="o", markersize=4, linewidth=1.2, label=r"$\hat{H}$")
    upper.step(places, ahead, where="mid", color=BLUE, linewidth=1.6, label=least)
    for value, style, name in zip(mechanism.thresholds, (":", "--"), ("low", "high"), strict=True):
        label = rf"$\tau_{{{name}}}$ = {value:.2g}"
        upper.axhline(max(value, FLOOR), color="black", linewidth=1.1, linestyle=style, label=label)
    upper.set(yscale="log", ylim=(0.8 * FLOOR, 1.5), ylabel=r"teacher entropy / $H_{max}$")
    gate, gate_ahead = shown.gate[span], shown.gate_ahead[span]
    lower.bar(places, gate_ahead - gate, bottom=gate, color=GREEN, alpha=0.35, width=0.5, label="restored weight")
    lower.plot(places, gate_ahead, color=BLUE, marker="_", markersize=9, linestyle="", label=r"$\omega^{CL}$")
    lower.plot(places, gate, color=RED, marker="o", markersize=4, linestyle="", label=r"$\omega$")
    lower.set_ylabel(r"gate $\omega$")
    lower.use_sticky_edges = False  # a bar would end the axis where it ends
    for axes in (upper, lower):
        for regime in ("pivot", "fork"):
            _shade(axes, shown.completion.regime[span], span.start + 1, regime)
        axes.grid(alpha=0.25)
        axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.005, 0.5))
    token_axis(lower, shown.completion.token_texts[span], span.start + 1)
    upper.set_title(f"{title}: tokens {span.start + 1:,} to {span.stop:,}", fontsize=10)
    figure.supxlabel(f"{shown.name}; {gate_text(mechanism, study)}", fontsize=8)
    return figure


def draw_peaks(mechanism: Mechanism, shown: Shown, title: str) -> "Figure":
    """The highest peaks of teacher entropy, each with the text to its left and the token that was written there."""
    places = peaks(shown.entropy, PEAKS, least=float(mechanism.thresholds[1]) * shown.normaliser)
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
        _peak_line(below, shown, place, number=row + 1, height=1 - (row + 0.5) / len(places))
    figure.supxlabel(shown.name, fontsize=8)
    return figure


def _peak_line(axes: Any, shown: Shown, place: int, *, number: int, height: float) -> None:
    """A peak in words: where, how high, its regime, its left context, the sampled token, the teacher's likeliest
    tokens."""
    texts, regime = shown.completion.token_texts, shown.completion.regime[place]
    line: dict[str, Any] = {"va": "center", "transform": axes.transAxes, "fontsize": 9}
    axes.text(0.0, height, str(number), color=RED, weight="bold", **line)
    axes.text(0.02, height, f"token {place + 1:,}", **line)
    axes.text(0.1, height, f"H = {shown.entropy[place]:.2f} nats", **line)
    axes.text(0.2, height, regime, color=REGIME_COLOURS[regime], weight="bold", **line)
    context = visible(left_context(texts, place, CONTEXT), None)
    axes.text(0.62, height, context, ha="right", family="monospace", **line)
    axes.text(0.63, height, visible(texts[place]), weight="bold", color=RED, family="monospace", **line)
    if (likeliest := shown.completion.teacher_top) is not None:
        pairs = [(visible(text, 8), np.exp(logp)) for text, logp in likeliest[place][:ALTERNATIVES]]
        alternatives = "   ".join(f"{text} {chance:.2f}" for text, chance in pairs if chance >= LEAST_CHANCE)
        axes.text(0.72, height, f"teacher: {alternatives}", color=GREY, family="monospace", in_layout=False, **line)


def _stems(axes: Any, shown: Shown, span: slice) -> None:
    """A bar a token, coloured by its regime, over the tokens' texts."""
    colours = [REGIME_COLOURS[regime] for regime in shown.completion.regime[span]]
    axes.bar(np.arange(span.start + 1, span.stop + 1), shown.entropy[span], color=colours, width=0.75)
    axes.grid(alpha=0.3, axis="y")
    token_axis(axes, shown.completion.token_texts[span], span.start + 1)


def _regime_patches() -> list[Any]:
    from matplotlib.patches import Patch

    return [Patch(color=REGIME_COLOURS[name], label=name) for name in ORDER]


def _shade(axes: Any, regimes: list[str], first: int, regime: str) -> None:
    """A band behind every token of a regime, and its name once in the legend."""
    label: str | None = regime
    for place, other in enumerate(regimes, start=first):
        if other == regime:
            axes.axvspan(place - 0.5, place + 0.5, color=REGIME_COLOURS[regime], alpha=0.15, linewidth=0, label=label)
            label = None
