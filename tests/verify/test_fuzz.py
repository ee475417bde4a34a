r"""A few drawn answers of every kind; `benchmarks/fuzz_grading.py` draws them for as long as it is asked to."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings

from egrsd_jax.verify.extract import extract_answer
from egrsd_jax.verify.pool import GradingPool, Outcome, Verdict
from tests.verify.pairs import PAIRS, Pair, completions, last_box, violation

fixed = settings(
    max_examples=25, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


@pytest.fixture(scope="module")
def grade_in_a_thread():
    with GradingPool(workers=1) as pool, ThreadPoolExecutor(1) as thread:
        yield lambda prediction, answer: thread.submit(pool.grade_many, [(prediction, answer)]).result()[0]


@pytest.mark.parametrize("kind", PAIRS)
def test_every_pair_comes_out_as_it_must_and_the_pool_survives(kind, grade_in_a_thread):
    @fixed
    @given(PAIRS[kind])
    def check(pair):
        assert violation(pair, grade_in_a_thread(pair.prediction, pair.answer)) is None

    check()
    assert grade_in_a_thread(r"\sqrt{8}", r"2\sqrt{2}").correct


@settings(fixed, max_examples=100)
@given(completions)
def test_the_last_balanced_box_after_the_thought_is_found(completion):
    assert extract_answer(completion) == last_box(completion)


def test_a_violation_is_one():
    right, wrong = Verdict(Outcome.CORRECT, "so"), Verdict(Outcome.WRONG, "so")
    late = Verdict(Outcome.UNGRADABLE, "the deadline passed")
    assert violation(Pair("equal", "7", "7", True), wrong)
    assert violation(Pair("perturbed", "8", "7", False), right)
    assert violation(Pair("itself", "7", "7", True), late)
    assert violation(Pair("unrelated", "8", "7", None), Verdict(Outcome.WRONG, ""))
    for pair, verdict in (
        (Pair("equal", "7.0", "7", True), late),
        (Pair("perturbed", "8", "7", False), wrong),
        (Pair("unrelated", "8", "7", None), right),
    ):
        assert violation(pair, verdict) is None
