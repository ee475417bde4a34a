"""What diverged, where a step's numbers are not finite, and what helps against that."""

from collections.abc import Mapping

import numpy as np

ENDS = "the newest checkpoint is from before it"
OF_WEIGHTS = "train.learning_rate, in a run of another name"


def what_diverged(step: int, metrics: Mapping[str, float]) -> str | None:
    """One line over a step whose loss, gradient or weights are not finite; None where all of them are.

    `metrics` are the step's. The first in the order in which they are computed is the cause of those after it.
    """
    loss = float(metrics["loss"])
    if not np.isfinite(loss):
        scores = ("delta_mean", "entropy_mean", "student_logp_mean")
        also = ", ".join(name for name in scores if name in metrics and not np.isfinite(metrics[name]))
        return (
            f"step {step} diverged: its loss is {loss}{f', as are {also}' if also else ''}, with weights that were "
            f"finite before it; activations or scores overflow. model.dtype float32 helps where bfloat16 does; {ENDS}"
        )
    if not np.isfinite(metrics["gradient_norm"]):
        return (
            f"step {step} diverged: its gradient is not finite and its loss is ({loss:g}); the backward pass "
            f"overflows. model.dtype float32 may help, or a lower {OF_WEIGHTS}; {ENDS}"
        )
    if not (np.isfinite(metrics["update_norm"]) and np.isfinite(metrics["parameter_norm"])):
        return (
            f"step {step} diverged: its update makes weights that are not finite, from a finite gradient of norm "
            f"{float(metrics['gradient_norm']):g}; a lower {OF_WEIGHTS}, or a larger train.adam_eps, may help; {ENDS}"
        )
    return None
