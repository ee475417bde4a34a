"""The limits of the gap between sampler and trainer, where the sampler is a server and where they are given."""

from functools import partial

import pytest

from egrsd_jax.train.sampler_gap import judge_gap


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_servers_gap_warns_and_ends_the_run_whatever_the_trainers_dtype(dtype):
    assert judge_gap(0.02, dtype=dtype, step=7, served=True) is None
    for gap in (0.021, 0.5):
        warning = judge_gap(gap, dtype=dtype, step=7, served=True)
        assert warning is not None
        assert "--dtype of the server and model.dtype should be the same; above 0.5 (rollout.gap_stops)" in warning
    with pytest.raises(
        FloatingPointError, match=r"than 0.5, the limit of rollout.gap_stops: the server does not sample"
    ):
        judge_gap(0.51, dtype=dtype, step=7, served=True)
    with pytest.raises(FloatingPointError, match="differ by nan"):
        judge_gap(float("nan"), dtype=dtype, step=7, served=True)


@pytest.mark.parametrize("served", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_limits_that_are_given_are_those_that_count(dtype, served):
    judge = partial(judge_gap, dtype=dtype, step=0, warns=0.1, stops=0.2, served=served)
    assert judge(0.1) is None
    assert "more than 0.1" in str(judge(0.15))
    with pytest.raises(FloatingPointError, match=r"more than 0.1 and than 0.2"):
        judge(0.21)
