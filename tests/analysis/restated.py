"""The definitions of the method's mechanism analyses once more, in NumPy, float64 and plain loops."""

import numpy as np
import pytest

from egrsd_jax.analysis.mechanism import Study
from egrsd_jax.objective.regimes import REGIME_NAMES


def restated(student, teacher, entropy, advantage, study: Study, vocabulary: int) -> dict:
    """Every token's regime, their shares and restored weights, deciles of entropy and tenths of the completion."""
    student, teacher, entropy = (
        [np.float32(row).astype(float) for row in each] for each in (student, teacher, entropy)
    )
    ahead = [[min(row[t : t + study.window + 1]) for t in range(len(row))] for row in entropy]
    source = ahead if study.denominator == "lookahead" else entropy
    largest = {
        "batch": [max(1.0, *(max(row) for row in source))] * len(entropy),
        "sequence": [max(1.0, max(row)) for row in source],
        "log_vocab": [np.log(vocabulary)] * len(entropy),
    }[study.scope]
    tokens = []
    for row, scale in enumerate(largest):
        for t, h in enumerate(entropy[row]):
            sign = np.sign(advantage[row])
            delta = teacher[row][t] - student[row][t]
            gates = [np.clip(1 - study.gamma * value / scale, study.floor, 1) for value in (h, ahead[row][t])]
            w = np.clip(np.exp(sign * delta), 1 - study.epsilon, 1 + study.epsilon)
            tenth = 10 * t // len(entropy[row])
            tokens.append((h, h / scale, ahead[row][t] / scale, delta, w * gates[study.looks_ahead], *gates, tenth))
    h, here, later, delta, update, gate, gate_ahead, tenth = np.array(tokens).T
    low, high = np.quantile(here, [0.5, 0.7])
    regime = np.full(len(h), "mid", dtype="<U5")
    regime[(here >= high) & (later <= low)] = "pivot"
    regime[(here >= high) & (later >= high)] = "fork"
    regime[here <= low] = "lock"
    decile = np.searchsorted(np.quantile(h, np.arange(1, 10) / 10), h, side="left")
    return {
        "regime": regime,
        "thresholds": (low, high),
        "share": {name: np.mean(regime == name) for name in REGIME_NAMES},
        "restored": {
            name: (gate_ahead - gate)[regime == name].mean() if (regime == name).any() else 0.0 for name in REGIME_NAMES
        },
        "deciles": [(np.abs(delta[decile == k]).mean(), np.abs(update[decile == k]).mean()) for k in range(10)],
        "tenths": [(h[tenth == k].mean(), delta[tenth == k].mean(), update[tenth == k].mean()) for k in range(10)],
    }


def agrees(found, wanted) -> None:
    """Raises AssertionError where a measured mechanism is not the restated one."""
    names = np.array(REGIME_NAMES)[found.regime_BT[found.mask_BT]]
    np.testing.assert_array_equal(names, wanted["regime"])
    np.testing.assert_allclose(found.thresholds, wanted["thresholds"], rtol=1e-5)
    for row in found.regime_rows():
        assert row["tokens"] == (wanted["regime"] == row["regime"]).sum()
        assert row["share"] == pytest.approx(wanted["share"][row["regime"]], abs=1e-6)
        assert row["restored_weight"] == pytest.approx(wanted["restored"][row["regime"]], abs=1e-6)
    deciles = [(row["delta_abs_mean"], row["weight_abs_mean"]) for row in found.decile_rows()]
    np.testing.assert_allclose(deciles, wanted["deciles"], rtol=2e-5, atol=1e-7)
    tenths = [(row["entropy_mean"], row["delta_mean"], row["weight_mean"]) for row in found.position_rows()]
    np.testing.assert_allclose(tenths, wanted["tenths"], rtol=2e-5, atol=1e-6)
