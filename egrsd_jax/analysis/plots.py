"""Plots of means over all tokens: by decile of entropy, by regime, by position in the completion."""

from typing import TYPE_CHECKING, Any

import numpy as np

from egrsd_jax.analysis.canvas import REGIME_COLOURS
from egrsd_jax.analysis.mechanism import ORDER, Mechanism, Study
from egrsd_jax.canvas import BLUE, GREEN, GREY, RED, make_panels
from egrsd_jax.objective.regimes import REGIME_NAMES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ERRORS = "bars: ±1 standard error over completions"


def draw_deciles(mechanism: Mechanism, study: Study, title: str) -> "Figure":
    """Mean |delta| and mean |w omega| against the decile of teacher entropy."""
    rows = [row for row in mechanism.decile_rows() if row["tokens"]]  # one may be empty: equal entropies share a bin
    places = [row["decile"] for row in rows]
    figure, (left, right) = make_panels(2, width=5.4, height=4.2)
    figure.suptitle(title, fontsize=10)
    _means(left, places, rows, "delta_abs_mean", BLUE)
    left.set_yscale("log")
    left.set_ylabel(r"mean $|\delta|$, $\delta = \log p_T - \log p_S$ (nats)")
    _means(right, places, rows, "weight_abs_mean", GREEN)
    right.axhline(1, color=GREY, linewidth=1, linestyle="--", label="1: neither clipped nor gated")
    right.set_ylabel(rf"mean $|w \cdot {omega(study)}|$")
    right.legend(fontsize=8, loc="lower left")
    for axes in (left, right):
        axes.set_xticks(places, [f"{row['decile']}\n{_short(row['entropy_max'])}" for row in rows], fontsize=8)
        axes.set_xlabel("decile of teacher entropy, and its largest entropy (nats)")
    _caption(figure, mechanism, study)
    return figure


def draw_regimes(mechanism: Mechanism, study: Study, title: str) -> "Figure":
    """The share of each regime, and the weight that the lookahead restores in it."""
    rows = mechanism.regime_rows()
    figure, (left, right) = make_panels(2, width=5.0, height=3.4)
    figure.suptitle(title, fontsize=10)
    colours = [REGIME_COLOURS[name] for name in ORDER]
    columns = (
        (left, "share", 100, "share of completion tokens (%)"),
        (right, "restored_weight", 1, r"restored weight, mean $\omega^{CL} - \omega$"),
    )
    for axes, name, scale, label in columns:
        values, errors = ([scale * row[column] for row in rows] for column in (name, f"{name}_error"))
        bars = axes.barh(ORDER, values, xerr=errors, color=colours, error_kw={"capsize": 2, "linewidth": 1})
        axes.bar_label(bars, [f"{value:.3g}" for value in values], padding=4, fontsize=9)
        axes.set_xlabel(label)
        axes.set_xlim(0, 1.18 * max([*values, 1e-6]))
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
    _caption(figure, mechanism, study)
    return figure


def draw_positions(mechanism: Mechanism, study: Study, title: str) -> "Figure":
    """Entropy, delta and w omega by position in the completion."""
    rows = [row for row in mechanism.position_rows() if row["tokens"]]
    places = [10 * row["tenth"] - 5 for row in rows]
    figure, panels = make_panels(3, width=4.2, height=3.6)
    figure.suptitle(title, fontsize=10)
    columns = (
        ("entropy_mean", "mean teacher entropy (nats)", RED),
        ("delta_mean", r"mean $\delta = \log p_T - \log p_S$ (nats)", BLUE),
        ("weight_mean", rf"mean $w \cdot {omega(study)}$", GREEN),
    )
    for axes, (name, label, colour) in zip(panels, columns, strict=True):
        _means(axes, places, rows, name, colour)
        axes.set_xlabel("place in the completion, t / T (%)")
        axes.set_ylabel(label)
        axes.set_xlim(0, 100)
    panels[1].axhline(0, color=GREY, linewidth=1, linestyle="--")
    _caption(figure, mechanism, study)
    return figure


def draw_plane(mechanism: Mechanism, study: Study, title: str) -> "Figure":
    """Every token by its own entropy and the least one ahead: the plane that regimes divide."""
    here = (mechanism.entropy_BT / mechanism.normaliser_B1)[mechanism.mask_BT]
    ahead = (mechanism.entropy_lookahead_BT / mechanism.normaliser_B1)[mechanism.mask_BT]
    codes = mechanism.regime_BT[mechanism.mask_BT]
    figure, [axes] = make_panels(1, width=6.2, height=5.8)
    least = max(1e-4, float(np.quantile(here, 0.01)))
    for name in ORDER:
        inside = codes == REGIME_NAMES.index(name)
        axes.scatter(
            np.maximum(here[inside], least),
            np.maximum(ahead[inside], least),
            s=9,
            alpha=0.5,
            linewidths=0,
            color=REGIME_COLOURS[name],
            label=f"{name} ({inside.sum():,})",
            rasterized=True,  # thousands of points: as vectors they would slow a page down
        )
    for value, style, label in zip(mechanism.thresholds, (":", "--"), (r"$\tau_{low}$", r"$\tau_{high}$"), strict=True):
        axes.axvline(max(value, least), color="black", linewidth=0.8, linestyle=style, label=label)
        axes.axhline(max(value, least), color="black", linewidth=0.8, linestyle=style)
    axes.set(xscale="log", yscale="log", xlim=(0.8 * least, 1.25), ylim=(0.8 * least, 1.25))
    axes.set_xlabel(r"normalised teacher entropy $\hat{H} = H / H_{max}$")
    axes.set_ylabel(rf"$\hat{{H}}^{{CL}}$: least $\hat{{H}}$ from here to {study.window} tokens ahead")
    axes.set_title(title, fontsize=10)
    axes.legend(fontsize=8, loc="upper left", markerscale=2)
    figure.supxlabel(f"{gate_text(mechanism, study)}; entropies under {least:.1g} are drawn there", fontsize=8)
    return figure


def omega(study: Study) -> str:
    """The gate of the update, as a formula."""
    return r"\omega^{CL}" if study.looks_ahead else r"\omega"


def gate_text(mechanism: Mechanism, study: Study) -> str:
    """The gate of the analysis, for a line under a plot."""
    largest = float(mechanism.normaliser_B1.max())
    by = {"batch": f"$H_{{max}}$ {largest:.2f} nats", "sequence": "each completion's $H_{max}$"}.get(
        study.scope, r"divided by $\log |V|$"
    )
    return rf"$\gamma$ {study.gamma:g}, $W$ {study.window}, $\varepsilon$ {study.epsilon:g}, {by}"


def _means(axes: Any, places: list[int], rows: list[dict[str, Any]], name: str, colour: str) -> None:
    """A line of means with one standard error to both sides."""
    errors = [row[f"{name}_error"] for row in rows]
    axes.errorbar(places, [row[name] for row in rows], yerr=errors, color=colour, marker="o", capsize=2)


def _short(nats: float) -> str:
    """An entropy in two digits, without the zero in front."""
    return f"{nats:.2g}".removeprefix("0") if nats < 1 else f"{nats:.2g}"


def _caption(figure: Any, mechanism: Mechanism, study: Study) -> None:
    tokens, completions = int(mechanism.mask_BT.sum()), len(mechanism.mask_BT)
    figure.supxlabel(
        f"{tokens:,} tokens of {completions:,} completions; {gate_text(mechanism, study)}; {ERRORS}", fontsize=8
    )
