"""Regimes, restored weights, deciles and profiles against a restatement in NumPy, one token at a time."""

import numpy as np
import pytest

from egrsd_jax.analysis.mechanism import Study, measure
from egrsd_jax.objective.methods import method_settings
from tests.analysis.restated import agrees, restated

VOCABULARY = 31


def random_scores(seed: int, rows: int = 12):
    source = np.random.default_rng(seed)
    lengths = source.integers(12, 40, rows)
    student, teacher = ([np.log(source.uniform(0.01, 1, length)).tolist() for length in lengths] for _ in range(2))
    # Long sure stretches and unsure runs, so that every regime has tokens.
    entropy = [np.repeat(source.gamma(0.3, 1.2, length // 3 + 1), 3)[:length].tolist() for length in lengths]
    return student, teacher, entropy, source.normal(size=rows).tolist()


@pytest.mark.slow
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
    agrees(found, restated(*scores, study, VOCABULARY))
    assert set(np.unique(found.regime_BT[found.mask_BT])) == set(range(4)), "a regime has no token, and is not tested"


@pytest.mark.slow
def test_errors_are_those_of_resampled_completions():
    student, teacher, entropy, advantage = random_scores(3, rows=60)
    study, source = Study(), np.random.default_rng(0)
    found = measure(student, teacher, entropy, advantage, study, VOCABULARY)
    last = []
    for _ in range(100):
        rows = source.integers(0, 60, 60)
        drawn = [[each[row] for row in rows] for each in (student, teacher, entropy, advantage)]
        last.append(restated(*drawn, study, VOCABULARY)["deciles"][-1][0])
    # Two estimates of one number, good to 5% (200 resamples) and 7% (100): 0.25 is three times both together.
    assert found.errors.deciles.delta_abs_mean[-1] == pytest.approx(np.std(last), rel=0.25)


def test_the_gate_is_the_methods_own_where_it_has_one():
    assert Study.of(method_settings("cl_egrsd", gamma=1.0)) == Study(gamma=1.0, window=3, looks_ahead=True)
    assert Study.of(method_settings("egrsd")) == Study(gamma=0.3, window=5, looks_ahead=False)
    assert Study.of(method_settings("direction")).gamma == 0
    assert Study.of(method_settings("grpo")) == Study()
    assert Study.of(method_settings("cl_egrsd"), gamma=0.7, window=9) == Study(0.7, 9, looks_ahead=True)
