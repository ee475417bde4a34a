"""pass@K against avg@K, paired over problems."""

import numpy as np
import pytest

from egrsd_jax.evaluate.diversity import diversity
from egrsd_jax.evaluate.watch import alarms
from egrsd_jax.probes.settings import ProbeSettings
from tests.evaluate.examples import held_out

BEFORE = held_out([[1, 0]] * 80 + [[0, 0]] * 20)  # pass@2 80%, avg@2 40%
SURER = held_out([[1, 1]] * 60 + [[0, 0]] * 40)  # pass@2 60%, avg@2 60%
BETTER = held_out([[1, 1]] * 60 + [[1, 0]] * 25 + [[0, 0]] * 15)


def test_by_hand():
    change = diversity(BEFORE, SURER)
    assert change is not None
    assert (change.samples, change.passed, change.average) == (2, 0.6, 0.6)
    assert change.passed_change.value == pytest.approx(-0.2)
    assert change.passed_change.error == pytest.approx(np.sqrt(0.2 * 0.8 / 99))  # of 20 losses in 100 problems
    assert change.passed_change.low < -0.2 < change.passed_change.high < 0
    assert change.average_change.value == pytest.approx(0.2)


def test_it_alarms_where_pass_falls_and_avg_does_not():
    settings = ProbeSettings()
    assert [alarm.probe for alarm in alarms([(0, BEFORE), (20, SURER)], settings)] == ["held_out_pass"]
    assert alarms([(0, BEFORE), (20, BETTER)], settings) == []
    assert alarms([(0, BEFORE), (20, SURER)], ProbeSettings(pass_fall=None)) == []
    assert alarms([(0, BEFORE), (20, SURER)], ProbeSettings(pass_fall=0.25)) == []
    worse = held_out([[1, 0]] * 40 + [[0, 0]] * 60)
    assert [alarm.probe for alarm in alarms([(0, BEFORE), (20, worse)], settings)] == ["held_out_accuracy"]


def test_one_sample_has_no_diversity_and_other_problems_no_pairs():
    one = held_out([[1], [0]])
    assert diversity(one, one) is None
    with pytest.raises(ValueError, match="cannot be paired"):
        diversity(one, BEFORE)
