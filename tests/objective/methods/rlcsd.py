"""`rlcsd` a second time: its published values, and a token's loss in float64."""

from tests.objective.restated import clipped_ratio

PUBLISHED = {
    "teacher": "copy",
    "teacher_every": 10,
    "privilege": "own",
    "epsilon": 0.2,
    "epsilon_high": 0.2,
    "contrasts": 4,
    "contrast_scale": 0.02,
    "contrast_strength": 0.5,
    "least_modulation": 0.02,
    "modulated_weight": 1.0,
}
SAMPLES_PER_PROBLEM = 8
ADVANTAGE = "group"


def restatement(s, m):
    """-s min(rho B, clip(rho) B), B = max(A + r, 0) where A > 0, min(A + r, 0) where A < 0, 0 where A is 0."""
    A, r = s["c"] * s["A"], s["c"] * s["modulation"]
    B = max(A + r, 0.0) if A > 0 else min(A + r, 0.0) if A < 0 else 0.0
    loss, slope = clipped_ratio(B, s["student"], s["sampled"], m.epsilon, m.epsilon_high)
    return s["split"] * loss, s["split"] * slope, 0
