"""How a run went: the metrics of every step and the held-out evaluations, from its folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from egrsd_jax.config import Config
from egrsd_jax.evaluate.held_out import read_evaluations
from egrsd_jax.evaluate.scores import Scores
from egrsd_jax.runs.files import read_rows
from egrsd_jax.runs.layout import METRICS


@dataclass(frozen=True)
class Dynamics:
    """`steps`, a row of metrics.jsonl each, and the evaluations with the steps that had been made before them."""

    label: str
    config: Config
    steps: list[dict[str, float]]
    evaluations: list[tuple[int, Scores]]

    def has(self, name: str) -> bool:
        """Whether any step logged this metric."""
        return any(name in row for row in self.steps)

    def series(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """The steps that logged a metric, and its values."""
        pairs = [(row["step"], row[name]) for row in self.steps if name in row]
        steps, values = zip(*pairs, strict=True) if pairs else ((), ())
        return np.array(steps), np.array(values, float)

    def rows(self) -> list[dict[str, Any]]:
        """Every metric of every step, and the held-out ones where the policy of that step was evaluated."""
        by_step: dict[int, dict[str, Any]] = {int(row["step"]): dict(row) for row in self.steps}
        for step, evaluation in self.evaluations:
            held_out = {f"held_out_{name}": value for name, value in evaluation.summary().items()}
            by_step[step] = by_step.get(step, {"step": step}) | held_out
        return [by_step[step] for step in sorted(by_step)]


def read_dynamics(run: Path, config: Config) -> Dynamics:
    """Raises ValueError where the run has logged no step."""
    steps = read_rows(run / METRICS)
    if not steps:
        raise ValueError(f"{run} has no {METRICS} with a step; `egrsd train` writes one line per step")
    evaluations = read_evaluations(run, config.evaluation)
    return Dynamics(run.resolve().name, config, steps, [*evaluations.items()])
