import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from egrsd_jax.data.batch import bucket_length, length_mask, make_batch

IDS = st.integers(0, 9)
PROMPTS = st.lists(IDS, min_size=1, max_size=40)
COMPLETIONS = st.lists(IDS, max_size=40)
ROWS = st.lists(st.tuples(PROMPTS, PROMPTS, COMPLETIONS), min_size=1, max_size=6)


def small_batch(**options):
    return make_batch([[5, 6], [7]], [[5, 6, 8], [7, 8]], [[1, 2, 3], [4]], **options)


class TestBucketLength:
    def test_powers_of_two_and_their_halves_again(self):
        assert sorted({bucket_length(length) for length in range(400)}) == [
            16,
            24,
            32,
            48,
            64,
            96,
            128,
            192,
            256,
            384,
            512,
        ]

    @pytest.mark.parametrize(
        ("length", "bucket"), [(0, 16), (16, 16), (17, 24), (24, 24), (25, 32), (1024, 1024), (1025, 1536)]
    )
    def test_boundaries(self, length, bucket):
        assert bucket_length(length) == bucket

    @given(st.integers(16, 10**9))
    def test_at_most_a_third_is_padding(self, length):
        bucket = bucket_length(length)
        assert length <= bucket
        assert 3 * (bucket - length) < bucket

    def test_given_buckets_in_any_order(self):
        assert [bucket_length(length, (80, 20)) for length in (0, 20, 21, 80)] == [20, 20, 80, 80]

    @pytest.mark.parametrize(
        ("length", "buckets", "message"),
        [
            (81, (80, 20), "81 tokens exceed the largest bucket, 80"),
            (1, (), "buckets"),
            (1, (0, 4), "buckets"),
            (-1, None, "-1"),
        ],
    )
    def test_errors(self, length, buckets, message):
        with pytest.raises(ValueError, match=message):
            bucket_length(length, buckets)


class TestMakeBatch:
    def test_lays_out_prompt_completion_padding(self):
        batch = small_batch(pad_id=9, prompt_buckets=(4,), completion_buckets=(3,))
        np.testing.assert_array_equal(batch.student_tokens_BS, [[5, 6, 1, 2, 3, 9, 9], [7, 4, 9, 9, 9, 9, 9]])
        np.testing.assert_array_equal(batch.student_start_B, [2, 1])
        np.testing.assert_array_equal(batch.teacher_tokens_BU, [[5, 6, 8, 1, 2, 3, 9], [7, 8, 4, 9, 9, 9, 9]])
        np.testing.assert_array_equal(batch.teacher_start_B, [3, 2])
        np.testing.assert_array_equal(batch.completion_BT, [[1, 2, 3], [4, 9, 9]])
        np.testing.assert_array_equal(batch.mask_BT, [[True, True, True], [True, False, False]])
        assert [array.dtype for array in batch] == [np.int32] * 5 + [np.bool_]

    @given(ROWS)
    def test_every_token_can_be_read_back(self, rows):
        batch = make_batch(*zip(*rows, strict=True))
        lengths = batch.completion_length_B
        for row, (student, teacher, completion) in enumerate(rows):
            assert batch.completion_BT[row, : lengths[row]].tolist() == completion
            assert batch.completion_BT[row][batch.mask_BT[row]].tolist() == completion
            assert batch.student_tokens_BS[row][batch.student_mask_BS[row]].tolist() == student + completion
            assert batch.teacher_tokens_BU[row][batch.teacher_mask_BU[row]].tolist() == teacher + completion
            assert batch.student_start_B[row] == len(student)
            assert batch.teacher_start_B[row] == len(teacher)

    @given(ROWS, st.integers(0, 4))
    def test_predicting_states_are_in_range_and_right(self, rows, spare):
        batch = make_batch(*zip(*rows, strict=True), rows=len(rows) + spare)
        for tokens, predicting in (
            (batch.student_tokens_BS, batch.student_before_BT),
            (batch.teacher_tokens_BU, batch.teacher_before_BT),
        ):
            assert predicting.min() >= 0
            assert predicting.max() + 1 < tokens.shape[1]
            following = np.take_along_axis(tokens, predicting + 1, axis=1)
            np.testing.assert_array_equal(following[batch.mask_BT], batch.completion_BT[batch.mask_BT])

    @given(ROWS, IDS, IDS)
    def test_padding_is_known_by_length_not_by_token(self, rows, one, other):
        first = make_batch(*zip(*rows, strict=True), pad_id=one, rows=len(rows) + 2)
        second = make_batch(*zip(*rows, strict=True), pad_id=other, rows=len(rows) + 2)
        for name in ("mask_BT", "student_mask_BS", "teacher_mask_BU", "student_start_B", "teacher_start_B"):
            np.testing.assert_array_equal(getattr(first, name), getattr(second, name))

    def test_completion_of_padding_ids_alone_counts_in_full(self):
        batch = make_batch([[0, 0]], [[0]], [[0, 0, 0]], pad_id=0)
        assert batch.completion_length_B.tolist() == [3]
        assert batch.student_mask_BS.sum() == 5

    def test_empty_completions(self):
        batch = make_batch([[5, 6], [7]], [[5], [7]], [[], []])
        assert batch.mask_BT.shape == (2, 16)
        assert not batch.mask_BT.any()
        assert batch.student_mask_BS.sum(1).tolist() == [2, 1]

    def test_batch_of_one(self):
        batch = make_batch([[1]], [[2, 3]], [[4]])
        assert [array.shape for array in batch] == [(1, 32), (1,), (1, 32), (1,), (1, 16), (1, 16)]

    def test_widths_are_the_sums_of_two_buckets(self):
        batch = make_batch([[1] * 17], [[1] * 100], [[1] * 33])
        assert batch.completion_BT.shape == (1, 48)
        assert batch.student_tokens_BS.shape == (1, 24 + 48)
        assert batch.teacher_tokens_BU.shape == (1, 128 + 48)

    @pytest.mark.parametrize(("options", "rows"), [({}, 2), ({"rows": 3}, 3)])
    def test_rows_that_only_pad(self, options, rows):
        batch, bare = small_batch(**options), small_batch()
        assert {array.shape[0] for array in batch} == {rows}
        for padded, array in zip(batch, bare, strict=True):
            np.testing.assert_array_equal(padded[:2], array)
        assert not batch.mask_BT[2:].any()
        assert batch.student_mask_BS[2:].sum(1).tolist() == [1] * (rows - 2)  # attention always sees a token
        assert batch.teacher_mask_BU[2:].sum(1).tolist() == [1] * (rows - 2)

    def test_takes_arrays_as_well_as_lists(self):
        arrays = make_batch(
            [np.array([5, 6]), np.array([7])], [[5, 6, 8], [7, 8]], [np.array([1, 2, 3]), np.array([4])]
        )
        for array, expected in zip(arrays, small_batch(), strict=True):
            np.testing.assert_array_equal(array, expected)

    @pytest.mark.parametrize(
        ("arguments", "options", "message"),
        [
            (([[1]], [[1]], []), {}, "got 1, 1 and 0"),
            (([[1]], [[1], [2]], [[1]]), {}, "got 1, 2 and 1"),
            (([], [], []), {}, "at least one"),
            (([[1], []], [[1], [1]], [[1], [1]]), {}, "the student prompt of row 1 is empty"),
            (([[1]], [[]], [[1]]), {}, "the teacher prompt of row 0 is empty"),
            (([[1]], [[1]], [[1] * 5]), {"completion_buckets": (4,)}, "5 tokens exceed the largest bucket, 4"),
            (([[1]], [[1] * 5], [[1]]), {"prompt_buckets": (4,)}, "5 tokens exceed the largest bucket, 4"),
            (([[1]] * 3, [[1]] * 3, [[1]] * 3), {"rows": 2}, "rows=2 must hold 3"),
        ],
    )
    def test_errors(self, arguments, options, message):
        with pytest.raises(ValueError, match=message):
            make_batch(*arguments, **options)


class TestInsideJit:
    def test_masks_are_the_same_as_outside(self):
        batch = small_batch(rows=4)

        @jax.jit
        def masks(batch):
            return batch.student_mask_BS, batch.teacher_mask_BU, batch.completion_length_B

        expected = (batch.student_mask_BS, batch.teacher_mask_BU, batch.completion_length_B)
        for array, outside in zip(masks(batch), expected, strict=True):
            np.testing.assert_array_equal(array, outside)
            assert array.dtype == outside.dtype


class TestLengthMask:
    @pytest.mark.parametrize("xp", [np, jnp])
    def test_any_leading_axes(self, xp):
        lengths = xp.array([[0, 1], [3, 9]], dtype=np.int32)
        expected = [[[0, 0, 0], [1, 0, 0]], [[1, 1, 1], [1, 1, 1]]]
        np.testing.assert_array_equal(length_mask(lengths, 3), np.array(expected, bool))
