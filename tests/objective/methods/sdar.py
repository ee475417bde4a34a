"""`sdar` a second time: its published values, and a token's loss in float64."""

import math

from tests.objective.restated import clipped_ratio, k3

PUBLISHED = {
    "teacher": "current",
    "privilege": "reference",
    "epsilon": 0.2,
    "epsilon_high": 0.2,
    "kl": 0.001,
    "distill_weight": 0.1,
    "gate_slope": 5.0,
}
SAMPLES_PER_PROBLEM = 8
ADVANTAGE = "group"


def restatement(s, m):
    """-min(rho A, clip(rho) A) + kl k3 + c sigmoid(beta delta) (log p_T - log p_S)."""
    loss, slope = clipped_ratio(s["c"] * s["A"], s["student"], s["sampled"], m.epsilon, m.epsilon_high)
    to_initial, to_initial_slope = k3(s["student"], s["initial"])
    delta = s["teacher"] - s["student"]
    pull = s["c"] * m.distill_weight / (1 + math.exp(-m.gate_slope * delta))
    loss += s["c"] * m.kl * to_initial + pull * delta
    return loss, slope + s["c"] * m.kl * to_initial_slope - pull, 0
