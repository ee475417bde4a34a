"""`oasis` a second time: its published values, and a token's loss in float64."""

PUBLISHED = {
    "teacher": "frozen",
    "privilege": "attempt",
    "beta": 0.0,
    "entry_clip": 0.05,
    "score_temperature": 1.1,
}
SAMPLES_PER_PROBLEM = 8


def restatement(s, m):
    """The divergence."""
    del m
    return s["c"] * s["divergence"], 0, s["c"]
