"""`rlsd` a second time: its published values, and a token's loss in float64."""

import math

from tests.objective.restated import clipped_ratio

PUBLISHED = {
    "teacher": "current",
    "privilege": "answer",
    "epsilon": 0.2,
    "mixing": 0.5,
    "mixing_steps": 0,
    "negative_only": False,
    "clip_low": 0.2,
    "clip_high": 0.28,
}
SAMPLES_PER_PROBLEM = 8
ADVANTAGE = "group"


def restatement(s, m):
    """-min(rho A W, clip(rho) A W), W = (1 - lambda) + lambda clip(exp(sign(A) delta))."""
    mixing = m.mixing * (max(0.0, 1 - s["step"] / m.mixing_steps) if m.mixing_steps else 1.0)
    sign = (s["A"] > 0) - (s["A"] < 0)
    ratio = min(max(math.exp(sign * (s["teacher"] - s["student"])), 1 - m.epsilon), 1 + m.epsilon)
    weight = 1.0 if m.negative_only and s["A"] >= 0 else 1 - mixing + mixing * ratio
    return *clipped_ratio(s["c"] * s["A"] * weight, s["student"], s["sampled"], m.clip_low, m.clip_high), 0
