"""pass@K against avg@K on the same held-out problems: whether a policy solves more, or is only surer of some."""

from dataclasses import dataclass

import numpy as np

from egrsd_jax.evaluate.comparison import Difference, difference
from egrsd_jax.evaluate.intervals import replicates
from egrsd_jax.evaluate.scores import Scores


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


def diversity(before: Scores, after: Scores) -> Diversity | None:
    """Of two evaluations of the same problems; None with one sample per problem, where pass@1 is avg@1.

    Raises ValueError where their problems or samples are not as many.
    """
    before_NK, after_NK = before.correct_NK, after.correct_NK
    if before_NK.shape != after_NK.shape:
        raise ValueError(f"{before_NK.shape} and {after_NK.shape} problems and samples cannot be paired")
    if after_NK.shape[1] < 2:
        return None
    passed = [np.any(correct_NK, axis=1)[:, None] for correct_NK in (before_NK, after_NK)]
    return Diversity(
        after_NK.shape[1],
        float(passed[1].mean()),
        float(after_NK.mean()),
        _difference(*passed),
        _difference(before_NK, after_NK),
    )


def _difference(before_NK: np.ndarray, after_NK: np.ndarray) -> Difference:
    arms = [(-1.0, before_NK[:, :, None].astype(float)), (1.0, after_NK[:, :, None].astype(float))]
    return difference(before_NK.astype(int), after_NK.astype(int), replicates(arms)[:, 0])
