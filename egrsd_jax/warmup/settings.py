"""How a built-in model is made, as one frozen value. Imports no jax."""

from dataclasses import dataclass, replace
from typing import Literal

from egrsd_jax.data.tasks.registry import MODELLED_TASKS


@dataclass(frozen=True)
class WarmupSettings:
    """How a built-in model is made.

    Args:
        task: the built-in task that it is made for, `arithmetic` or `orders`.
        seed: of its initial weights, its problems and its traces.
        steps: supervised steps at most.
        batch_size: completions per step.
        learning_rate: AdamW's, after a short rise.
        plain_share: share of completions under the plain prompt; the rest see the reference.
        plain_recheck: probability that a plain completion re-checks a step; by default the task's.
        privileged_recheck: the same under the privileged prompt.
        evaluate_every: steps between evaluations.
        plain_accuracy: training stops at this held-out accuracy under the plain prompt,
        privileged_accuracy: provided that the accuracy under the privileged prompt has reached this.
        problems: held-out problems to evaluate on.
    """

    task: Literal["arithmetic", "orders"] = "arithmetic"
    seed: int = 0
    steps: int = 1500
    batch_size: int = 64
    learning_rate: float = 3e-3
    plain_share: float = 0.5
    plain_recheck: float | None = None
    privileged_recheck: float | None = None
    evaluate_every: int = 25
    plain_accuracy: float = 0.60
    privileged_accuracy: float = 0.87
    problems: int = 512

    def resolved(self) -> "WarmupSettings":
        """The same with the task's own probabilities of a re-check where none are given."""
        own = zip(("plain_recheck", "privileged_recheck"), MODELLED_TASKS[self.task].rechecks, strict=True)
        return replace(self, **{name: value for name, value in own if getattr(self, name) is None})
