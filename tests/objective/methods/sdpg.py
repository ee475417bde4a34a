"""`sdpg` a second time: its published values, and a token's loss in float64."""

from tests.objective.restated import clipped_ratio

PUBLISHED = {
    "teacher": "current",
    "privilege": "reference",
    "epsilon": 0.2,
    "epsilon_high": 0.28,
    "kl": 0.0,
    "distill_weight": 0.001,
    "anchor_weight": 0.001,
}
SAMPLES_PER_PROBLEM = 8
ADVANTAGE = "group"


def restatement(s, m):
    """-min(rho A, clip(rho) A) + beta KL(S || T) + alpha (log p_S - log p_initial)^2 / 2."""
    loss, slope = clipped_ratio(s["c"] * s["A"], s["student"], s["sampled"], m.epsilon, m.epsilon_high)
    gap = s["student"] - s["initial"]
    terms = m.distill_weight * s["divergence"] + m.anchor_weight * gap**2 / 2
    return loss + s["c"] * terms, slope + s["c"] * m.anchor_weight * gap, s["c"] * m.distill_weight
