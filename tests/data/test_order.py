import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from egrsd_jax.data.order import problem_indices

SEEDS = st.integers(0, 2**70)
SIZES = st.integers(1, 40)

GOLDEN = [3, 4, 7, 6, 1, 2, 0, 3, 5, 6, 4, 7]


class TestProblemIndices:
    @given(seed=SEEDS, epoch=st.integers(0, 5), size=SIZES)
    def test_every_problem_once_an_epoch(self, seed, epoch, size):
        assert sorted(problem_indices(seed, epoch * size, size, size)) == list(range(size))

    @given(seed=SEEDS, start=st.integers(0, 100), count=st.integers(0, 100), size=SIZES)
    def test_is_a_window_of_one_endless_sequence(self, seed, start, count, size):
        whole = problem_indices(seed, 0, start + count, size)
        np.testing.assert_array_equal(problem_indices(seed, start, count, size), whole[start:])

    @given(seed=SEEDS, position=st.integers(0, 10**12), size=SIZES)
    def test_far_positions_need_no_history(self, seed, position, size):
        one = problem_indices(seed, position, 1, size)
        epoch_start = position - position % size
        assert one[0] == problem_indices(seed, epoch_start, size, size)[position % size]

    def test_epochs_and_seeds_differ(self):
        first, second = np.split(problem_indices(0, 0, 200, 100), 2)
        assert not np.array_equal(first, second)
        assert not np.array_equal(first, problem_indices(1, 0, 100, 100))
        assert not np.array_equal(second, problem_indices(1, 0, 100, 100))  # (0, epoch 1) is not (1, epoch 0)

    def test_stays_as_it_is(self):
        # A checkpoint keeps a position alone: under any release of NumPy it must mean the same problem.
        np.testing.assert_array_equal(problem_indices(7, 3, 12, 8), GOLDEN)

    def test_first_place_is_uniform(self):
        counts = np.bincount([problem_indices(seed, 0, 1, 4)[0] for seed in range(4000)], minlength=4)
        assert np.all(np.abs(counts - 1000) < 5 * np.sqrt(4000 * 0.25 * 0.75))  # five standard deviations

    def test_result_is_integers_of_the_right_shape(self):
        indices = problem_indices(0, 5, 0, 3)
        assert indices.shape == (0,)
        assert indices.dtype == np.int64
        assert problem_indices(0, 5, 7, 3).dtype == np.int64

    @pytest.mark.parametrize("wrong", [{"seed": -1}, {"start": -1}, {"count": -1}, {"size": 0}])
    def test_wrong_argument_is_named(self, wrong):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be at least"):
            problem_indices(**{"seed": 0, "start": 0, "count": 1, "size": 1, **wrong})
