"""Diversity at forks from samples: the estimate is unbiased, and what is no derivation counts nowhere."""

import numpy as np
import pytest

from benchmarks.forks.diversity import agreement, distinct


def test_agreement_is_the_share_of_pairs_that_begin_alike():
    routes = [["abc", "acb", "bca", None], ["abc", "abc", "abc", "abc"], ["abc", "bac", "cab", "cba"]]
    np.testing.assert_allclose(agreement(routes, 1), [1 / 3, 1.0, 1 / 6])
    np.testing.assert_allclose(agreement(routes), [0.0, 1.0, 0.0])


def test_a_problem_with_fewer_than_two_derivations_has_no_agreement():
    assert np.isnan(agreement([[None, "abc"], [None, None]])).all()


def test_agreement_estimates_simpsons_index_without_bias():
    chances = np.array([0.5, 0.3, 0.2])
    drawn = np.random.default_rng(0).choice(3, size=(20_000, 3), p=chances)
    routes = [[(int(choice),) for choice in row] for row in drawn]
    assert agreement(routes, 1).mean() == pytest.approx(np.square(chances).sum(), abs=0.01)  # 3 standard errors


def test_distinct_counts_whole_routes():
    assert distinct([["abc", "acb", "abc", None], [None, None, None, None]]).tolist() == [2, 0]
