"""The gap between the sampler's and the trainer's log-probabilities: whether it is measured, and its limits."""

import math

import numpy as np

from egrsd_jax.config import Config
from egrsd_jax.objective.methods import METHODS
from egrsd_jax.train.collect import Rollout

LOGP_GAP = 0.02  # nats per token, mean: above it a run warns
LOGP_GAP_ERROR = 0.05  # above it a run in float32, which rounds to under 0.001, ends
SERVED_GAP_ERROR = (
    0.5  # above it a server has other weights than the run: rounding to bfloat16 is under a tenth of that
)


def why_no_gap(config: Config) -> str | None:
    """Why the sampler's log-probabilities are not compared with the trainer's; None where they are.

    Compared are the completions that the student wrote, in GATES too. With dropout the trainer scores with another
    network than the sampler at every step, and a forward pass without it for this metric alone would cost too much.
    """
    writer = METHODS[config.method.name].writer
    if writer == "reference":
        return "no policy sampled the reference solutions"
    if writer == "initial" or config.rollout.stored is not None:
        return "the initial model sampled, and not the one that is trained"
    if config.lora.dropout and not config.rollout.ahead:  # there the version that sampled is scored, and without it
        return f"the trainer scores with lora.dropout {config.lora.dropout}, and the sampler samples without"
    return None


def sampler_gap(rollout: Rollout, student_logp_BT: np.ndarray) -> dict[str, float]:
    """Mean and largest |log p| between sampler and trainer, nats: near 0 unless one has other weights.

    `student_logp_BT` are the trainer's of the student that sampled, which is an older one with `rollout.ahead`.

    Over the completions that the student wrote; the teacher's are of another policy.
    """
    by_student = rollout.counts & ~rollout.by_teacher
    gaps = [
        np.abs(row[: len(completion.tokens)] - completion.logp)
        for row, completion, is_students in zip(student_logp_BT, rollout.completions, by_student, strict=False)
        if is_students  # rows that fill the batch come last
    ]
    gap = np.concatenate(gaps) if gaps else np.zeros(1)
    return {"sampler_logp_gap_mean": float(gap.mean()), "sampler_logp_gap_max": float(gap.max())}


def judge_gap(
    gap: float, *, dtype: str, step: int, warns: float = LOGP_GAP, stops: float | None = None, served: bool = False
) -> str | None:
    """The warning for a step's mean gap, nats per token, between sampler and trainer that multiply in `dtype`.

    None up to `warns`. In float32 both round to under 0.001, and above `LOGP_GAP_ERROR` they have other weights. How
    far bfloat16 rounds depends on the depth and the size of a model, so there no gap ends a run. `served` is a sampler
    that is a server, of whose dtype nothing is known: above `SERVED_GAP_ERROR` it has other weights. `stops` is a
    limit in the place of these.

    Raises:
        FloatingPointError: above the limit, or for no finite number whatever the dtype.
    """
    if not math.isfinite(gap):
        raise FloatingPointError(
            f"sampler and trainer differ by {gap} nats per token at step {step}: one of them computes NaN or "
            "infinity, and the update would be wrong; a lower train.learning_rate or model.dtype float32 may help"
        )
    if gap <= warns:
        return None
    warning = f"sampler and trainer differ by {gap:.3f} nats per token at step {step}, more than {warns:g}"
    if served:
        limit = SERVED_GAP_ERROR if stops is None else stops
        if gap > limit:
            raise FloatingPointError(
                f"{warning} and than {limit:g}, the limit of rollout.gap_stops: the server does not sample with the "
                "weights that it is given, and the update would be wrong; does it serve the base model of this run, "
                "and in which dtype?"
            )
        return (
            f"{warning}: the server rounds otherwise, or has other weights; --dtype of the server and model.dtype "
            f"should be the same; above {limit:g} (rollout.gap_stops) the run ends"
        )
    limit = stops if stops is not None else LOGP_GAP_ERROR if dtype == "float32" else math.inf
    if gap > limit:
        raise FloatingPointError(
            f"{warning} and than {limit:g}, in float32, where rounding is under 0.001: they do not run the same "
            "weights, and the update would be wrong; it is a bug, to be reported with the run's config.yaml"
            if dtype == "float32"
            else f"{warning} and than {limit:g}, the limit of rollout.gap_stops"
        )
    if dtype != "float32":
        return (
            f"{warning}: {dtype} rounds, or they do not run the same weights; model.dtype float32 shows which, and is "
            "what to train a small model in"
        )
    return f"{warning} in float32, where rounding is under 0.001; above {limit:g} the run ends"
