"""`sign` a second time: its published values, and a token's loss in float64."""

PUBLISHED = {"teacher": "frozen", "privilege": "reference"}


def restatement(s, m):
    """-sign(delta) log p_S."""
    del m
    factor = s["c"] * ((s["teacher"] > s["student"]) - (s["teacher"] < s["student"]))
    return -factor * s["student"], -factor, 0
