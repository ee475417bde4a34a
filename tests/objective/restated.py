"""A step's signals token by token, for a method's restatement in plain Python."""

import math
from collections.abc import Callable

import numpy as np

from egrsd_jax.objective.settings import MethodSettings
from egrsd_jax.objective.signals import Signals


def numbers(found: Signals, b: int, t: int) -> dict:
    """The numbers of token `t` of completion `b`; those that the step does not have are None."""

    def at(values, *place):
        return None if values is None else float(values[place])

    return {
        "A": float(found.advantage_B[b]),
        "c": float(found.weight_B[b]),
        "step": int(found.step),
        "entropy_threshold": at(found.student_entropy_threshold),
        "demonstration": bool(found.demonstration_B[b]),
        "t": t + 1,
        "T": int(np.sum(found.mask_BT[b])),
        "student": at(found.student_logp_BT, b, t),
        "sampled": at(found.sampled_logp_BT, b, t),
        "teacher": at(found.teacher_logp_BT, b, t),
        "entropy": at(found.teacher_entropy_BT, b, t),
        "gate": at(found.gate_BT, b, t),
        "divergence": at(found.divergence_BT, b, t),
        "student_entropy": at(found.student_entropy_BT, b, t),
        "initial": at(found.initial_logp_BT, b, t),
        "lowest": at(found.lowest_BT, b, t),
        "modulation": at(found.modulation_BT, b, t),
        "split": at(found.split_BT, b, t),
    }


def restated(restatement: Callable, found: Signals, settings: MethodSettings) -> np.ndarray:
    """What a restatement finds at every token, [3, B, T]: loss, slope in log p_S, slope in the divergence."""
    results = np.zeros((3, *found.mask_BT.shape))
    for b, t in zip(*np.nonzero(found.mask_BT), strict=True):
        results[:, b, t] = restatement(numbers(found, b, t), settings)
    return results


def clipped_ratio(gain: float, student: float, sampled: float, low: float, high: float) -> tuple[float, float]:
    """PPO's clipped ratio as a loss, and its slope in log p_S: 0 where the clip binds the smaller of the two."""
    rho = math.exp(student - sampled)
    clipped = min(max(rho, 1 - low), 1 + high)
    return -min(rho * gain, clipped * gain), 0.0 if clipped * gain < rho * gain else -rho * gain


def k3(student: float, other: float) -> tuple[float, float]:
    """exp(d) - d - 1 with d = log p_other - log p_S, and its slope in log p_S."""
    gap = other - student
    return math.exp(gap) - gap - 1, 1 - math.exp(gap)
