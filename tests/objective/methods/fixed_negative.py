"""`fixed_negative` a second time: its published values, and a token's loss in float64."""

PUBLISHED = {"lowest_share": 0.2, "fixed_advantage": -0.5}


def restatement(s, m):
    """-a log p_S of the lowest tokens, each of which counts N / K of a token."""
    factor = s["c"] * m.fixed_advantage * s["lowest"]
    return -factor * s["student"], -factor, 0
