"""`gate_only` a second time: its published values, and a token's loss in float64."""

PUBLISHED = {
    "teacher": "frozen",
    "privilege": "reference",
    "gamma": 0.3,
    "epsilon": 0.0,
    "window": 0,
    "floor": 0.1,
    "scope": "batch",
    "denominator": "raw",
    "gate": "entropy",
}


def restatement(s, m):
    """-A omega log p_S, and its slope in log p_S."""
    del m
    factor = s["c"] * s["A"] * s["gate"]
    return -factor * s["student"], -factor, 0
