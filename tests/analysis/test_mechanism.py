"""Regimes, restored weights, deciles and profiles against a restatement in NumPy, one token at a time."""

import numpy as np
import pytest

from egrsd_jax.analysis.mechanism import Study, measure
from egrsd_jax.objective.diagnostics import REGIME_NAMES
from egrsd_jax.objective.settings import MethodSettings

VOCABULARY = 31


def restated(student, teacher, entropy, advantage, study: Study) -> dict:
    """The definitions of the method's mechanism analyses, in float64 and plain loops."""
    student, teacher, entropy = (
        [np.float32(row).astype(float) for row in each] for each in (student, teacher, entropy)
    )
    ahead = [[min(row[t : t + study.window + 1]) for t in range(len(row))] for row in entropy]
    source = ahead if study.denominator == "lookahead" else entropy
    largest = {
        "batch": [max(1.0, *(max(row) for row in source))] * len(entropy),
        "sequence": [max(1.0, max(row)) for row in source],
        "log_vocab": [np.log(VOCABULARY)] * len(entropy),
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


def random_scores(seed: int, rows: int = 12):
    source = np.random.default_rng(seed)
    lengths = source.integers(12, 40, rows)
    student, teacher = ([np.log(source.uniform(0.01, 1, length)).tolist() for length in lengths] for _ in range(2))
    # Long sure stretches and unsure runs, so that every regime has tokens.
    entropy = [np.repeat(source.gamma(0.3, 1.2, length // 3 + 1), 3)[:length].tolist() for length in lengths]
    return student, teacher, entropy, source.normal(size=rows).tolist()


def agrees(found, wanted) -> None:
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


@pytest.mark.parametrize(
    "study",
    [
        Study(),
        Study(gamma=1.0, window=2, looks_ahead=True),
        Study(gamma=0.5, window=3, scope="sequence"),
        Study(gamma=0.5, window=3, scope="log_vocab"),
        Study(gamma=1.0, window=1, denominator="lookahead", epsilon=0.1),
    ],
)
def test_it_agrees_with_numpy_on_random_scores(study):
    scores = random_scores(seed=study.window)
    found = measure(*scores, study, VOCABULARY)
    agrees(found, restated(*scores, study))
    assert set(np.unique(found.regime_BT[found.mask_BT])) == set(range(4)), "a regime has no token, and is not tested"


def test_errors_are_those_of_resampled_completions():
    student, teacher, entropy, advantage = random_scores(3, rows=60)
    study, source = Study(), np.random.default_rng(0)
    found = measure(student, teacher, entropy, advantage, study, VOCABULARY)
    last = []
    for _ in range(100):
        rows = source.integers(0, 60, 60)
        drawn = [[each[row] for row in rows] for each in (student, teacher, entropy, advantage)]
        last.append(restated(*drawn, study)["deciles"][-1][0])
    # Two estimates of one number, good to 5% (200 resamples) and 7% (100): 0.25 is three times both together.
    assert found.errors.deciles.delta_abs_mean[-1] == pytest.approx(np.std(last), rel=0.25)


def test_the_gate_is_the_methods_own_where_it_has_one():
    assert Study.of(MethodSettings("cl_egrsd", gamma=1.0).resolved()) == Study(gamma=1.0, window=3, looks_ahead=True)
    assert Study.of(MethodSettings("egrsd").resolved()) == Study(gamma=0.3, window=5, looks_ahead=False)
    assert Study.of(MethodSettings("direction").resolved()).gamma == 0
    assert Study.of(MethodSettings("grpo").resolved()) == Study()
    assert Study.of(MethodSettings("cl_egrsd").resolved(), gamma=0.7, window=9) == Study(0.7, 9, looks_ahead=True)
