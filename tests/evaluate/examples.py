"""Held-out records for tests."""

import numpy as np

from egrsd_jax.evaluate.scores import Scores


def held_out(correct, tokens=50, **other) -> Scores:
    """Scores of problems 0, 1, ... that are correct or not, [N][K]; `tokens` of every sample, or of each."""
    correct = np.asarray(correct)
    fields = {
        "benchmark": "set",
        "identity": "data",
        "problems": [str(number) for number in range(len(correct))],
        "cut_off": 0.0,
        "ungradable": 0,
        "max_new_tokens": 96,
    }
    return Scores(
        correct=correct.astype(int).tolist(),
        tokens=np.broadcast_to(tokens, correct.shape).tolist(),
        **{**fields, **other},
    )
