"""`sdpo` a second time: its published values, and a token's loss in float64."""

import math

PUBLISHED = {
    "teacher": "ema",
    "teacher_decay": 0.95,
    "beta": 0.5,
    "top_k": 100,
    "over": "top",
    "rest": "bucket",
    "ratio_cap": 0.0,
}


def restatement(s, m):
    """The divergence, or (log q - log p) log q with its first factor a constant; capped ratio times it."""
    factor = s["c"] * (min(math.exp(s["student"] - s["sampled"]), m.ratio_cap) if m.ratio_cap else 1.0)
    if m.over == "top":
        return factor * s["divergence"], 0, factor
    gap = s["student"] - s["teacher"]
    return factor * gap * s["student"], factor * gap, 0
