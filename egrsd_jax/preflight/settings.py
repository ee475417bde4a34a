"""What a preflight is asked to do, as one frozen value. Imports no jax."""

from dataclasses import dataclass
from pathlib import Path

from egrsd_jax.ranges import at_least, check_ranges, require


@dataclass(frozen=True)
class Settings:
    """A preflight of a run.

    Attributes:
        problems: how many of the run's first problems are sampled, with the privilege and without it.
        samples: completions of each under either prompt; one of the student's is scored.
        privileged_cap: tokens of a completion with the privilege at most, in place of rollout.max_new_tokens: the
            teacher writes nothing in training, and one that thinks may need more room to show what it knows.
        strict: ends with exit code 1 for a `look` as well as for a `stop`.
        to: the JSON file; RUN_DIR/preflight-NAME.json.
    """

    problems: int = 64
    samples: int = 4
    privileged_cap: int | None = None
    strict: bool = False
    to: Path | None = None

    def __post_init__(self):
        check_ranges("--", self, {"problems": at_least(2), "samples": at_least(1), "privileged_cap": at_least(1)})

    def check_advantage(self, advantage: str) -> None:
        """Raises ValueError where the run's advantage compares more completions of a problem than are sampled."""
        require(
            (
                self.samples > 1 or not advantage.startswith("group"),
                f"--samples is {self.samples}, and reward.advantage {advantage} compares completions of one problem; "
                "give at least 2",
            )
        )
