"""The distance between sampler and trainer: whether it is measured, and what to make of it."""

import math

import numpy as np

from egrsd_jax.config import Config
from egrsd_jax.objective.methods import METHODS
from egrsd_jax.train.collect import Rollout

LOGP_GAP = 0.02  # nats, mean, between the sampler's and the trainer's log-probabilities above which a run says so
LOGP_GAP_ERROR = 0.05  # the same above which a run in float32, which rounds to under 0.001, ends


def why_no_gap(config: Config) -> str | None:
    """Why the sampler's log-probabilities cannot be held against the trainer's; None where they are.

    They are over the completions that the student wrote, of GATES' too. With dropout the trainer's are of another
    network than the sampler's at every step, and a forward without it for this figure's sake would cost too much.
    """
    writer = METHODS[config.method.name].writer
    if writer == "reference":
        return "nobody sampled the reference solutions"
    if writer == "initial":
        return "the initial model sampled, and not the one that is trained"
    if config.lora.dropout:
        return f"the trainer scores with lora.dropout {config.lora.dropout}, and the sampler samples without"
    return None


def sampler_gap(rollout: Rollout, student_logp_BT: np.ndarray) -> dict[str, float]:
    """How far the sampler's log-probabilities are from the trainer's, nats: near 0 unless one has other weights.

    Over what the student wrote; what the teacher did has another policy's.
    """
    by_student = rollout.counts & ~rollout.by_teacher
    gaps = [
        np.abs(row[: len(completion.tokens)] - completion.logp)
        for row, completion, wanted in zip(student_logp_BT, rollout.completions, by_student, strict=False)
        if wanted  # rows that fill the batch come last
    ]
    gap = np.concatenate(gaps) if gaps else np.zeros(1)
    return {"sampler_logp_gap_mean": float(gap.mean()), "sampler_logp_gap_max": float(gap.max())}


def judge_gap(gap: float, *, dtype: str, step: int) -> str | None:
    """What to say of a step's mean distance, nats a token, between sampler and trainer that multiply in `dtype`.

    None up to `LOGP_GAP`. In float32 both round to under 0.001, and above `LOGP_GAP_ERROR` they have other weights.
    How far bfloat16 rounds depends on the depth and the size of a model, so there a distance ends no run.

    Raises:
        FloatingPointError: above `LOGP_GAP_ERROR` in float32, or no finite number whatever the dtype.
    """
    if not math.isfinite(gap):
        raise FloatingPointError(
            f"sampler and trainer differ by {gap} nats a token at step {step}: one of them computes no number, and "
            "what would be learned is wrong"
        )
    if gap <= LOGP_GAP:
        return None
    said = f"sampler and trainer differ by {gap:.3f} nats a token at step {step}, more than {LOGP_GAP}"
    if dtype != "float32":
        return f"{said}: {dtype} rounds, or they do not run the same weights; model.dtype float32 would tell which"
    if gap > LOGP_GAP_ERROR:
        raise FloatingPointError(
            f"{said} and than {LOGP_GAP_ERROR}, in float32, where rounding is under 0.001: they do not run the same "
            "weights, and what would be learned is wrong"
        )
    return f"{said} in float32, where rounding is under 0.001; above {LOGP_GAP_ERROR} the run ends"
