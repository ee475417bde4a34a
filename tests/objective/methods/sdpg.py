"""`sdpg` a second time: its published values, and a token's loss in float64."""

from tests.objective.restated import clipped_ratio, k3

PUBLISHED = {
    "teacher": "current",
    "privilege": "answer",
    "epsilon": 0.2,
    "epsilon_high": 0.28,
    "kl": 0.0,
    "distill_weight": 0.001,
    "anchor_weight": 0.001,
}
SAMPLES_PER_PROBLEM = 8
ADVANTAGE = "group"


def restatement(s, m):
    """-min(rho A, clip(rho) A) + kl k3 + beta KL(S || T) + alpha (log p_S - log p_initial)^2 / 2."""
    loss, slope = clipped_ratio(s["c"] * s["A"], s["student"], s["sampled"], m.epsilon, m.epsilon_high)
    to_initial, to_initial_slope = k3(s["student"], s["initial"])
    gap = s["student"] - s["initial"]
    terms = m.kl * to_initial + m.distill_weight * s["divergence"] + m.anchor_weight * gap**2 / 2
    return (
        loss + s["c"] * terms,
        slope + s["c"] * (m.kl * to_initial_slope + m.anchor_weight * gap),
        s["c"] * m.distill_weight,
    )
