"""The folder that an analysis writes: numbers as JSON and CSV, plots as PNG and SVG, tables on the terminal."""

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from egrsd_jax.analysis.mechanism import Study
from egrsd_jax.analysis.plots import draw_deciles, draw_plane, draw_positions, draw_regimes
from egrsd_jax.analysis.probe_plots import draw_placebos, draw_viability
from egrsd_jax.analysis.probing import branch_rows, probe_rows
from egrsd_jax.analysis.run import Analysis, analyse
from egrsd_jax.analysis.run_plots import draw_dynamics, draw_gradient_norm
from egrsd_jax.analysis.settings import Settings
from egrsd_jax.analysis.token_plots import Shown, draw_peaks, draw_trace, draw_window
from egrsd_jax.analysis.traces import most_lowered
from egrsd_jax.canvas import NO_PLOTS, can_plot, plain, save
from egrsd_jax.config import Config
from egrsd_jax.objective.settings import privilege, teacher_schedule
from egrsd_jax.probes.observed import GROUP_WORDS
from egrsd_jax.report.published import (
    MECHANISM_DELTAS,
    MECHANISM_MODEL,
    MECHANISM_RESTORED,
    MECHANISM_SHARES,
    PAPERS_DATA,
)
from egrsd_jax.report.tables import Table, percent
from egrsd_jax.runs.files import write_whole
from egrsd_jax.runs.layout import SCORED
from egrsd_jax.runs.lock import held
from egrsd_jax.viewer.scored import write_scored


def write_analysis(settings: Settings, config: Config) -> Path:
    """Analyses, writes the folder and shows its tables; returns the folder.

    Raises ValueError or OSError of one line for whatever prevents it.
    """
    analysis = analyse(settings, config)
    if settings.show is not None and settings.show >= len(analysis.scored):
        raise ValueError(f"--show is {settings.show}, and there are {len(analysis.scored)} completions, from 0")
    folder = settings.to or _default_folder(settings, analysis)
    with held(folder):
        write_whole(folder / "analysis.json", json.dumps(numbers(analysis), indent=1) + "\n")
        write_whole(folder / "probes.md", _probe_page(analysis))
        write_scored(folder / SCORED, analysis.scored)
        for name, rows in _csv_tables(analysis).items():
            _write_csv(folder / f"{name}.csv", rows)
        plots = _draw(folder, analysis, settings.show) if can_plot() else []
    console = Console(highlight=False)
    for table in tables(analysis):
        console.print(table.rich())
    for note in analysis.notes:
        console.print(escape(note), style="dim", soft_wrap=True)
    console.print(
        f"{escape(str(folder))}: analysis.json, {', '.join(_csv_tables(analysis))} as .csv, probes.md, {SCORED}",
        soft_wrap=True,
    )
    kept = f"plots, .png and .svg: {', '.join(plots)}" if plots else f"no plots: {NO_PLOTS}"
    console.print(escape(kept), soft_wrap=True)
    return folder


def numbers(analysis: Analysis) -> dict[str, Any]:
    """The content of analysis.json: what was analysed and how, and every number."""
    mechanism = analysis.mechanism
    low, high = mechanism.thresholds.tolist()
    return {
        "label": analysis.label,
        "model": analysis.config.model.path,
        "method": analysis.config.method.name,
        "step": analysis.step,
        "completions": len(analysis.scored),
        "newly_drawn": analysis.fresh,
        "notes": analysis.notes,
        "logged_gap_nats": analysis.logged_gap,
        "gate": asdict(analysis.study),
        "tokens": int(mechanism.mask_BT.sum()),
        "correct_share": sum(completion.correct for completion in analysis.scored) / len(analysis.scored),
        "entropy_max_nats": float(mechanism.normaliser_B1.max()),
        "thresholds_normalised": {"low": low, "high": high},
        "restored_weight": float(mechanism.means.regimes["restored_weight"]),
        "regimes": mechanism.regime_rows(),
        "deciles": mechanism.decile_rows(),
        "positions": mechanism.position_rows(),
        **_probe_numbers(analysis),
    }


def _probe_numbers(analysis: Analysis) -> dict[str, Any]:
    viable = analysis.probing.viability
    areas = None if viable is None else {"entropy": viable.entropy._asdict(), "position": viable.position._asdict()}
    return {
        "probes": _probe_rows(analysis),
        "placebos": [asdict(placebo) for placebo in analysis.probing.placebos],
        "viability": None
        if viable is None
        else {
            "by": viable.by,
            "branches": len(viable.branches),
            "reached": sum(viable.reached) / len(viable.reached),
            "auroc": areas,
        },
    }


def _probe_rows(analysis: Analysis) -> list[dict[str, Any]]:
    return probe_rows(analysis.probing, analysis.config.probes, analysis.dynamics)


def tables(analysis: Analysis) -> list[Table]:
    """Regimes and deciles, next to the paper's numbers where model and gate are its own."""
    papers = is_papers(analysis.config, analysis.study)
    regimes = [
        [row["regime"], f"{row['tokens']:,}", percent(row["share"]), f"{row['restored_weight']:.4f}"]
        + ([percent(MECHANISM_SHARES[row["regime"]]), MECHANISM_RESTORED[row["regime"]]] if papers else [])
        for row in analysis.mechanism.regime_rows()
    ]
    deciles = [
        [str(row["decile"]), f"{row['tokens']:,.0f}"]
        + [f"{row[name]:.4g}" for name in ("entropy_max", "delta_abs_mean")]
        + [f"{row['weight_abs_mean']:.4f}"]
        + ([f"{MECHANISM_DELTAS[row['decile']]:g}" if row["decile"] in MECHANISM_DELTAS else ""] if papers else [])
        for row in analysis.mechanism.decile_rows()
    ]
    shares = ["regime", "tokens", "share (%)", "restored weight"]
    means = ["decile", "tokens", "H up to (nats)", "mean |δ| (nats)", "mean |w ω|"]
    return [
        Table(f"{analysis.label}: regimes", shares + (["paper's (%)", "paper's"] if papers else []), regimes),
        Table("Deciles of teacher entropy", means + (["paper's |δ|"] if papers else []), deciles),
        _probe_table(analysis),
    ]


def _probe_table(analysis: Analysis) -> Table:
    """One probe per line, as narrow as a terminal; limits and meanings are in probes.md."""
    columns = ["probe", "value", "correct / wrong", "untrained", "verdict"]
    rows = []
    for name, value, correct, wrong, untrained, _, verdict, _ in _probe_cells(analysis):
        rows.append([name, value, f"{correct} / {wrong}" if correct or wrong else "", untrained, verdict])
    return Table("Probes", columns, rows)


def _probe_page(analysis: Analysis) -> str:
    """The same with limits and meanings, as Markdown."""
    columns = ["probe", "value", "correct", "wrong", "untrained", "limit", "verdict", "meaning"]
    return Table(f"{analysis.label}: probes", columns, _probe_cells(analysis)).markdown()


def _probe_cells(analysis: Analysis) -> list[list[str]]:
    def number(value: float | None) -> str:
        return "" if value is None else f"{value:.3g}"

    cells = []
    for row in _probe_rows(analysis):
        spread = f" ± {row['error']:.2g}" if "error" in row else f" ({row['low']:.3g} to {row['high']:.3g})"
        name = f"{row['probe']} ({row['unit']})" if row["unit"] else row["probe"]
        of = "" if row.get("of", "all") == "all" else f", {GROUP_WORDS[row['of']]}"
        apart = [number(row.get(group)) for group in ("right", "wrong", "untrained")]
        cells.append([name + of, number(row["value"]) + spread, *apart, row["limit"], row["verdict"], row["meaning"]])
    return cells


def _csv_tables(analysis: Analysis) -> dict[str, list[dict[str, Any]]]:
    mechanism = analysis.mechanism
    return {
        "regimes": mechanism.regime_rows(),
        "deciles": mechanism.decile_rows(),
        "positions": mechanism.position_rows(),
        "probes": _probe_rows(analysis),
        **(
            {"placebos": [asdict(placebo) for placebo in analysis.probing.placebos]}
            if analysis.probing.placebos
            else {}
        ),
        **({"branches": branch_rows(analysis.probing.viability)} if analysis.probing.viability else {}),
        **({} if analysis.dynamics is None else {"dynamics": analysis.dynamics.rows()}),
    }


def _write_csv(file: Path, rows: Sequence[dict[str, Any]]) -> None:
    """A column for every name that any row has, in order of first appearance."""
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)


def _draw(folder: Path, analysis: Analysis, row: int | None) -> list[str]:
    """Every plot; returns their names."""
    mechanism, study, title = analysis.mechanism, analysis.study, plain(analysis.label)
    if row is None:
        row = most_lowered(mechanism.entropy_BT, mechanism.entropy_lookahead_BT)
    shown = Shown.row(mechanism, analysis.scored, row)
    figures = {
        "deciles": lambda: draw_deciles(mechanism, study, title),
        "regimes": lambda: draw_regimes(mechanism, study, title),
        "plane": lambda: draw_plane(mechanism, study, title),
        "positions": lambda: draw_positions(mechanism, study, title),
        "trace": lambda: draw_trace(shown, title),
        "window": lambda: draw_window(mechanism, study, shown, title),
        "peaks": lambda: draw_peaks(mechanism, shown, title),
    }
    if placebo := analysis.probing.placebos:
        figures["placebos"] = lambda: draw_placebos(placebo, analysis.config.probes, title)
    if (viable := analysis.probing.viability) is not None:
        figures["viability"] = lambda: draw_viability(viable, title)
    if (dynamics := analysis.dynamics) is not None:
        figures["gradient_norm"] = lambda: draw_gradient_norm(dynamics)
        figures["dynamics"] = lambda: draw_dynamics(dynamics)
    for name, draw in figures.items():
        save(draw(), folder / f"{name}.png", svg=True)
    return list(figures)


def _default_folder(settings: Settings, analysis: Analysis) -> Path:
    if settings.run is not None and not settings.draw:
        return settings.run / "analysis"
    return Path("runs") / f"analysis-{analysis.label.replace(' ', '-')}"


def is_papers(config: Config, study: Study) -> bool:
    """Whether an analysis has the setting of the paper's study, so that their numbers can be compared."""
    gate = study.gamma, study.window, study.epsilon, study.floor, study.scope, study.denominator
    return (
        Path(config.model.path).name == MECHANISM_MODEL
        and config.data.path == PAPERS_DATA
        and gate == (0.3, 5, 0.2, 0.1, "batch", "raw")
        and teacher_schedule(config.method) == "frozen"
        and privilege(config.method) == "reference"
    )
