"""The folder that an analysis leaves: numbers as JSON and CSV, pictures as PNG and SVG, tables on the terminal."""

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
from egrsd_jax.analysis.traces import most_told
from egrsd_jax.canvas import plain, save
from egrsd_jax.config import Config
from egrsd_jax.objective.settings import privilege, teacher_schedule
from egrsd_jax.report.published import (
    MECHANISM_DELTAS,
    MECHANISM_MODEL,
    MECHANISM_RESTORED,
    MECHANISM_SHARES,
    PAPERS_DATA,
)
from egrsd_jax.report.tables import Table, percent
from egrsd_jax.runs.layout import SCORED
from egrsd_jax.viewer.scored import write_scored


def write_analysis(settings: Settings, config: Config) -> Path:
    """Analyses, writes the folder and shows its tables; returns the folder.

    Raises ValueError or OSError of one line for whatever stands in the way.
    """
    found = analyse(settings, config)
    if settings.show is not None and settings.show >= len(found.scored):
        raise ValueError(f"--show is {settings.show}, and there are {len(found.scored)} completions, from 0")
    folder = settings.to or _default_folder(settings, found)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "analysis.json").write_text(json.dumps(numbers(found), indent=1) + "\n", encoding="utf-8")
    (folder / "probes.md").write_text(_probe_page(found), encoding="utf-8")
    write_scored(folder / SCORED, found.scored)
    for name, rows in _csv_tables(found).items():
        _write_csv(folder / f"{name}.csv", rows)
    drawn = _draw(folder, found, settings.show)
    console = Console(highlight=False)
    for table in tables(found):
        console.print(table.rich())
    for note in found.notes:
        console.print(escape(note), style="dim", soft_wrap=True)
    console.print(
        f"{escape(str(folder))}: analysis.json, {', '.join(_csv_tables(found))} as .csv, probes.md, {SCORED}",
        soft_wrap=True,
    )
    console.print(f"pictures, .png and .svg: {', '.join(drawn)}", soft_wrap=True)
    return folder


def numbers(found: Analysis) -> dict[str, Any]:
    """What analysis.json holds: what was looked at and how, and every figure that is no picture."""
    mechanism = found.mechanism
    low, high = mechanism.thresholds.tolist()
    return {
        "label": found.label,
        "model": found.config.model.path,
        "method": found.config.method.name,
        "step": found.step,
        "completions": len(found.scored),
        "newly_drawn": found.fresh,
        "notes": found.notes,
        "logged_gap_nats": found.logged_gap,
        "gate": asdict(found.study),
        "tokens": int(mechanism.mask_BT.sum()),
        "correct_share": sum(each.correct for each in found.scored) / len(found.scored),
        "entropy_max_nats": float(mechanism.normaliser_B1.max()),
        "thresholds_normalised": {"low": low, "high": high},
        "restored_weight": float(mechanism.means.regimes["restored_weight"]),
        "regimes": mechanism.regime_rows(),
        "deciles": mechanism.decile_rows(),
        "positions": mechanism.position_rows(),
        **_probe_numbers(found),
    }


def _probe_numbers(found: Analysis) -> dict[str, Any]:
    viable = found.probing.viability
    areas = None if viable is None else {"entropy": viable.entropy._asdict(), "position": viable.position._asdict()}
    return {
        "probes": _probe_rows(found),
        "placebos": [asdict(each) for each in found.probing.placebos],
        "viability": None
        if viable is None
        else {
            "by": viable.by,
            "branches": len(viable.branches),
            "reached": sum(viable.reached) / len(viable.reached),
            "auroc": areas,
        },
    }


def _probe_rows(found: Analysis) -> list[dict[str, Any]]:
    return probe_rows(found.probing, found.config.probes, found.dynamics)


def tables(found: Analysis) -> list[Table]:
    """Regimes and deciles, the paper's figures beside them where model and regime are its own."""
    papers = is_papers(found.config, found.study)
    regimes = [
        [row["regime"], f"{row['tokens']:,}", percent(row["share"]), f"{row['restored_weight']:.4f}"]
        + ([percent(MECHANISM_SHARES[row["regime"]]), MECHANISM_RESTORED[row["regime"]]] if papers else [])
        for row in found.mechanism.regime_rows()
    ]
    deciles = [
        [str(row["decile"]), f"{row['tokens']:,.0f}"]
        + [f"{row[name]:.4g}" for name in ("entropy_max", "delta_abs_mean")]
        + [f"{row['weight_abs_mean']:.4f}"]
        + ([f"{MECHANISM_DELTAS[row['decile']]:g}" if row["decile"] in MECHANISM_DELTAS else ""] if papers else [])
        for row in found.mechanism.decile_rows()
    ]
    shares = ["regime", "tokens", "share (%)", "restored weight"]
    means = ["decile", "tokens", "H up to (nats)", "mean |δ| (nats)", "mean |w ω|"]
    return [
        Table(f"{found.label}: regimes", shares + (["paper's (%)", "paper's"] if papers else []), regimes),
        Table("Deciles of teacher entropy", means + (["paper's |δ|"] if papers else []), deciles),
        _probe_table(found),
    ]


def _probe_table(found: Analysis) -> Table:
    """Each probe on a line, as narrow as a terminal; limits and meanings are in probes.md."""
    columns = ["probe", "value", "right / wrong", "untrained", "verdict"]
    rows = []
    for name, value, right, wrong, untrained, _, verdict, _ in _probe_cells(found):
        rows.append([name, value, f"{right} / {wrong}" if right or wrong else "", untrained, verdict])
    return Table("Probes", columns, rows)


def _probe_page(found: Analysis) -> str:
    """The same with limits and meanings, as Markdown."""
    columns = ["probe", "value", "right", "wrong", "untrained", "limit", "verdict", "meaning"]
    return Table(f"{found.label}: probes", columns, _probe_cells(found)).markdown()


def _probe_cells(found: Analysis) -> list[list[str]]:
    def number(value: float | None) -> str:
        return "" if value is None else f"{value:.3g}"

    cells = []
    for row in _probe_rows(found):
        spread = f" ± {row['error']:.2g}" if "error" in row else f" ({row['low']:.3g} to {row['high']:.3g})"
        name = f"{row['probe']} ({row['unit']})" if row["unit"] else row["probe"]
        of = "" if row.get("of", "all") == "all" else f", {row['of']}"
        apart = [number(row.get(group)) for group in ("right", "wrong", "untrained")]
        cells.append([name + of, number(row["value"]) + spread, *apart, row["limit"], row["verdict"], row["meaning"]])
    return cells


def _csv_tables(found: Analysis) -> dict[str, list[dict[str, Any]]]:
    mechanism = found.mechanism
    return {
        "regimes": mechanism.regime_rows(),
        "deciles": mechanism.decile_rows(),
        "positions": mechanism.position_rows(),
        "probes": _probe_rows(found),
        **({"placebos": [asdict(each) for each in found.probing.placebos]} if found.probing.placebos else {}),
        **({"branches": branch_rows(found.probing.viability)} if found.probing.viability else {}),
        **({} if found.dynamics is None else {"dynamics": found.dynamics.rows()}),
    }


def _write_csv(file: Path, rows: Sequence[dict[str, Any]]) -> None:
    """A column for every name that any row has, in the order met."""
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)


def _draw(folder: Path, found: Analysis, row: int | None) -> list[str]:
    """Every picture; returns their names."""
    mechanism, study, title = found.mechanism, found.study, plain(found.label)
    if row is None:
        row = most_told(mechanism.entropy_BT, mechanism.entropy_lookahead_BT)
    shown = Shown.row(mechanism, found.scored, row)
    figures = {
        "deciles": lambda: draw_deciles(mechanism, study, title),
        "regimes": lambda: draw_regimes(mechanism, study, title),
        "plane": lambda: draw_plane(mechanism, study, title),
        "positions": lambda: draw_positions(mechanism, study, title),
        "trace": lambda: draw_trace(shown, title),
        "window": lambda: draw_window(mechanism, study, shown, title),
        "peaks": lambda: draw_peaks(mechanism, shown, title),
    }
    if placebo := found.probing.placebos:
        figures["placebos"] = lambda: draw_placebos(placebo, found.config.probes, title)
    if (viable := found.probing.viability) is not None:
        figures["viability"] = lambda: draw_viability(viable, title)
    if (dynamics := found.dynamics) is not None:
        figures["gradient_norm"] = lambda: draw_gradient_norm(dynamics)
        figures["dynamics"] = lambda: draw_dynamics(dynamics)
    for name, draw in figures.items():
        save(draw(), folder / f"{name}.png", svg=True)
    return list(figures)


def _default_folder(settings: Settings, found: Analysis) -> Path:
    if settings.run is not None and not settings.draw:
        return settings.run / "analysis"
    return Path("runs") / f"analysis-{found.label.replace(' ', '-')}"


def is_papers(config: Config, study: Study) -> bool:
    """Whether an analysis looks at what the paper's study looked at, so that their figures can be compared."""
    gate = study.gamma, study.window, study.epsilon, study.floor, study.scope, study.denominator
    return (
        Path(config.model.path).name == MECHANISM_MODEL
        and config.data.path == PAPERS_DATA
        and gate == (0.3, 5, 0.2, 0.1, "batch", "raw")
        and teacher_schedule(config.method) == "frozen"
        and privilege(config.method) == "reference"
    )
