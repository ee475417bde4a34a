"""`rlad` a second time: its published values, and a token's loss in float64."""

from tests.objective.restated import clipped_ratio

PUBLISHED = {
    "teacher": "frozen",
    "privilege": "reference",
    "epsilon": 0.2,
    "epsilon_high": 0.2,
    "kl": 0.0,
    "old_share": 0.5,
}
SAMPLES_PER_PROBLEM = 8
ADVANTAGE = "group"


def restatement(s, m):
    """-min(r A, clip(r) A), r to the geometric mixture of the old policy and the teacher."""
    anchor = m.old_share * s["sampled"] + (1 - m.old_share) * s["teacher"]
    return *clipped_ratio(s["c"] * s["A"], s["student"], anchor, m.epsilon, m.epsilon_high), 0
