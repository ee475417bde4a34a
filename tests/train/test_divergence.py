"""A step that diverged says what did, and the advice is for that."""

import pytest

from egrsd_jax.train.divergence import what_diverged

FINITE = {"loss": 0.5, "gradient_norm": 2.0, "update_norm": 0.1, "parameter_norm": 9.0, "delta_mean": 0.0}
NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("changed", "cause", "advice"),
    [
        ({"loss": NAN, "gradient_norm": NAN, "delta_mean": NAN}, "its loss is nan, as are delta_mean", "float32"),
        ({"loss": INF, "gradient_norm": NAN}, "its loss is inf, with weights", "float32"),
        ({"gradient_norm": INF, "update_norm": NAN}, "its gradient is not finite and its loss is (0.5)", "float32"),
        ({"update_norm": INF}, "weights that are not finite, from a finite gradient of norm 2", "learning_rate"),
        ({"parameter_norm": NAN}, "weights that are not finite", "adam_eps"),
    ],
)
def test_the_first_that_is_not_finite_is_the_cause(changed, cause, advice):
    line = what_diverged(7, {**FINITE, **changed})
    assert line is not None
    assert line.startswith("step 7 diverged: ")
    assert "\n" not in line
    assert advice in line
    assert cause in line


def test_a_finite_step_has_not_diverged():
    assert what_diverged(7, FINITE) is None
