"""The screen of a preflight, and the same as JSON."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from egrsd_jax.config import Config
from egrsd_jax.preflight.checks.line import Judgement, Line
from egrsd_jax.preflight.judge import lines, verdict
from egrsd_jax.preflight.measure import Measured, measured
from egrsd_jax.preflight.settings import Settings
from egrsd_jax.runs.files import write_json
from egrsd_jax.runs.folder import run_name

COLOURS = {"go": "green", "look": "yellow", "stop": "bold red"}
MEANINGS = {
    "go": "nothing here speaks against the run",
    "look": "the run can learn; see the lines that say look first",
    "stop": "as configured this run is not worth its price: see the lines that say stop",
}


def write_preflight(settings: Settings, config: Config) -> Judgement:
    """Measures, shows the table, writes it; returns the verdict over all lines.

    Raises ValueError or OSError of one line for whatever prevents it.
    """
    result = measured(settings, config)
    judged = lines(result)
    overall = verdict(judged)
    file = settings.to or Path(config.run.dir) / f"preflight-{run_name(config)}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, numbers(result, judged, overall), indent=1)
    console = Console(highlight=False)
    console.print(table(result, judged))
    for note in result.notes:
        console.print(escape(note), style="dim", soft_wrap=True)
    console.print(f"[{COLOURS[overall]}]{overall}[/]: {MEANINGS[overall]}", soft_wrap=True)
    console.print(f"table and scores: {escape(str(file))}", soft_wrap=True)
    return overall


def table(result: Measured, judged: list[Line]) -> Table:
    """One row per check: the verdict, the check, and what was measured with the reason under it."""
    plain = result.plain
    title = (
        f"{result.config.method.name} with {result.label} on {result.config.data.path}: {len(plain.problems)} problems "
        f"× {plain.samples}"
    )
    shown = Table(title=escape(title), title_justify="left", box=None, show_header=False, pad_edge=False)
    for _ in range(3):
        shown.add_column(overflow="fold")
    for line in judged:
        colour = COLOURS[line.judgement]
        measured_and_why = f"{escape(line.value)}\n[dim]{escape(line.reason)}[/]"
        shown.add_row(f"[{colour}]{line.judgement}[/]", escape(line.title), measured_and_why)
    return shown


def numbers(result: Measured, judged: list[Line], overall: Judgement) -> dict[str, Any]:
    """All of it for JSON."""
    return {
        "verdict": overall,
        "model": result.label,
        "method": result.config.method.name,
        "data": result.config.data.path,
        "seed": result.config.seed,
        "lines": [asdict(line) for line in judged],
        "without_privilege": result.plain.to_json(),
        "with_privilege": None if result.privileged is None else result.privileged.to_json(),
        "entropy": None
        if result.signal is None
        else {"student": result.signal.student_entropy, "teacher": result.signal.teacher_entropy},
        "notes": result.notes,
    }
