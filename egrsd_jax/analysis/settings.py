"""What an analysis is asked to do, as one frozen value. Imports no jax."""

from dataclasses import dataclass
from pathlib import Path

from egrsd_jax.ranges import UNIT, at_least, check_ranges, require


@dataclass(frozen=True)
class Settings:
    """An analysis of completions that a run recorded, or of new ones.

    Attributes:
        run: a training run's folder.
        draw: sample new completions from the run's checkpoint instead of reading those that it recorded; without a
            run they are always new.
        step: how many gradient steps the run had made; by default the newest step with its checkpoint.
        adapter: a PEFT folder on top of the model, where there is no run.
        logged_only: take the scores that the run logged, and run no model: no student entropy, no alternatives.
        completions: how many new ones are sampled, one per problem.
        gamma: strength of the gate, in place of the method's.
        window: length of the lookahead in tokens, in place of the method's.
        top: likeliest tokens that are kept at every position, of student and teacher.
        show: row of scored.jsonl, from 0, whose tokens the plots show; chosen by default.
        to: the folder to write; RUN/analysis, or runs/analysis-MODEL.
    """

    run: Path | None = None
    draw: bool = False
    step: int | None = None
    adapter: Path | None = None
    logged_only: bool = False
    completions: int = 64
    gamma: float | None = None
    window: int | None = None
    top: int = 5
    show: int | None = None
    to: Path | None = None

    @property
    def draws(self) -> bool:
        """Whether new completions are sampled."""
        return self.draw or self.run is None

    def __post_init__(self):
        require(
            (self.step is None or self.run is not None, "--step names a step of a run, and there is no run"),
            (self.adapter is None or self.run is None, "give --adapter or a run: a run has its own weights"),
            (
                not (self.logged_only and self.draws),
                "--logged_only samples nothing; give the folder of a run alone",
            ),
        )
        check_ranges(
            "--",
            self,
            {
                "step": at_least(0),
                "completions": at_least(1),
                "gamma": UNIT,
                "window": at_least(1),
                "top": at_least(1),
                "show": at_least(0),
            },
        )
