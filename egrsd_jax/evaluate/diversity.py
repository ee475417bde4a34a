"""pass@K against avg@K on the same held-out problems: whether a policy solves more, or is only surer of some."""

from dataclasses import dataclass

import numpy as np

from egrsd_jax.evaluate.comparison import Difference, change
from egrsd_jax.evaluate.held_out import Evaluation
from egrsd_jax.evaluate.intervals import percentile_interval, replicates


@dataclass(frozen=True)
class Diversity:
    """pass@K and avg@K, and what each has changed by since another policy, paired over problems."""

    samples: int
    passed: float
    average: float
    passed_change: Difference
    average_change: Difference

    def lost(self, fall: float, errors: float) -> bool:
        """Whether pass@K fell by more than `fall`, and by more than so many standard errors, where avg@K did not."""
        change = self.passed_change
        return change.value < -max(fall, errors * change.error) and self.average_change.value >= 0


def diversity(before: Evaluation, after: Evaluation) -> Diversity | None:
    """Of two evaluations of the same problems; None with one sample a problem, where pass@1 is avg@1.

    Raises ValueError where their problems or samples are not as many.
    """
    before_NK, after_NK = np.array(before.correct, bool), np.array(after.correct, bool)
    if before_NK.shape != after_NK.shape:
        raise ValueError(f"{before_NK.shape} and {after_NK.shape} problems and samples cannot be paired")
    if after_NK.shape[1] < 2:
        return None
    passed = [np.any(each_NK, axis=1)[:, None] for each_NK in (before_NK, after_NK)]
    return Diversity(
        after_NK.shape[1],
        float(passed[1].mean()),
        float(after_NK.mean()),
        _difference(*passed),
        _difference(before_NK, after_NK),
    )


def _difference(before_NK: np.ndarray, after_NK: np.ndarray) -> Difference:
    value, error, p = change(before_NK.astype(int), after_NK.astype(int))
    arms = [(sign, each_NK[:, :, None].astype(float)) for sign, each_NK in ((-1.0, before_NK), (1.0, after_NK))]
    return Difference(value, error, *percentile_interval(replicates(arms)[:, 0]), p)
