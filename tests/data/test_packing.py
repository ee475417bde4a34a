"""Rows that completions share: every token once, in a place of its own, and few shapes with little padding."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from egrsd_jax.data.packing import (
    Shape,
    choose_shapes,
    ordered_rows,
    packed_rows,
    padding,
    step_batch,
)

MOST = 12  # tokens of a completion at most


def sequences(low: int, high: int) -> st.SearchStrategy:
    return st.lists(st.integers(1, 99), min_size=low, max_size=high)


@st.composite
def steps(draw):
    """Prompts, completions (some of them empty), and the shapes that a run would choose for them."""
    prompts = draw(st.lists(sequences(1, 30), min_size=1, max_size=12))
    completions = [draw(sequences(0, MOST)) for _ in prompts]
    shards = draw(st.sampled_from([1, 2, 4]))
    shapes = choose_shapes(list(map(len, prompts)), max_new_tokens=MOST, shards=shards)
    return prompts, completions, shapes


def read_back(rows, prompts, completions):
    """What is in the rows, completion by completion: its positions, and the tokens that it predicts by their place."""
    whole, predicted = {}, {}
    for part in rows:
        used = int(part.micro_batches)
        assert not part.completion_RS[used:].any()
        flat = (array.reshape(-1, array.shape[-1]) for array in part[:4])
        for tokens, owners, befores, places in zip(*flat, strict=True):
            for owner in set(owners[owners > 0].tolist()):
                at = np.flatnonzero(owners == owner)
                assert (np.diff(at) == 1).all()  # contiguous
                assert owner not in whole
                whole[owner] = tokens[at].tolist()
            real = places < len(completions) * MOST
            for before, place in zip(befores[real], places[real], strict=True):
                owner = 1 + place // MOST
                assert owners[before] == owners[before + 1] == owner  # the token that is predicted follows
                assert place not in predicted
                predicted[place] = tokens[before + 1]
    return whole, predicted


@given(steps())
def test_every_token_has_one_place(step):
    prompts, completions, shapes = step
    rows = packed_rows(prompts, completions, shapes, max_new_tokens=MOST)
    whole, predicted = read_back(rows, prompts, completions)
    both = zip(prompts, completions, strict=True)
    assert whole == {1 + i: [*prompt, *completion] for i, (prompt, completion) in enumerate(both) if completion}
    assert predicted == {i * MOST + t: token for i, row in enumerate(completions) for t, token in enumerate(row)}
    for part, shape in zip(rows, shapes, strict=True):
        assert part.tokens_RS.shape[1:] == shape[:2]
        assert part.place_RP.shape[1:] == (shape.rows, shape.predicted)


@given(steps(), st.integers(1, 5))
def test_rows_in_order_hold_one_completion_each(step, size):
    prompts, completions, _ = step
    (rows,) = ordered_rows(prompts, completions, size, max_new_tokens=MOST)
    whole, predicted = read_back([rows], prompts, completions)
    both = zip(prompts, completions, strict=True)
    assert whole == {1 + i: [*prompt, *completion] for i, (prompt, completion) in enumerate(both)}
    assert len(predicted) == sum(map(len, completions))
    owners = rows.completion_RS.reshape(-1, rows.completion_RS.shape[-1])
    assert owners.max(axis=1).tolist() == [*range(1, len(prompts) + 1), *[0] * (len(owners) - len(prompts))]


def test_shapes_depend_on_prompts_alone_and_hold_the_longest():
    lengths = [100, 40, 60]
    assert choose_shapes([10, 20], max_new_tokens=100) == (Shape(4, 128, 112),)  # of 512 positions
    long, short = choose_shapes(lengths, max_new_tokens=200, shards=8, micro_batch_tokens=304)
    assert (long, short.rows, short.positions) == (Shape(8, 304, 240), 16, 112)
    assert choose_shapes(lengths, max_new_tokens=200, micro_batch_tokens=1999)[0].rows == 6
    assert choose_shapes(lengths, max_new_tokens=200)[0].rows == 1
    assert choose_shapes([5000], max_new_tokens=1024)[0].positions % 128 == 0  # as TPU kernels take them


def test_a_short_row_grows_where_it_then_holds_another_completion():
    draw, most = np.random.default_rng(0), 96
    lengths = [130] * 31 + [167]  # half a row of 272 would be left over
    (shape,) = choose_shapes(lengths, max_new_tokens=most)
    assert 272 < shape.positions <= 408
    assert choose_shapes(lengths, max_new_tokens=most, micro_batch_tokens=512)[0].positions == 272
    prompts, paddings = [[1] * length for length in lengths], []
    for _ in range(8):
        completions = [[2] * length for length in draw.integers(1, most, 32)]
        both = (packed_rows(prompts, completions, [one], max_new_tokens=most) for one in (shape, Shape(1, 272, 176)))
        paddings.append([padding(rows) for rows in both])
    grown, least = np.mean(paddings, axis=0)
    assert grown < 0.9 * least


def test_what_cannot_be_is_one_line():
    for call, message in (
        (lambda: choose_shapes([], max_new_tokens=8), "there is no prompt"),
        (
            lambda: choose_shapes([100], max_new_tokens=28, micro_batch_tokens=100),
            r"train.micro_batch_tokens is 100; .* takes a row of 128 tokens, so it must be at least that",
        ),
        (
            lambda: packed_rows([[1, 2]], [[3] * 9], [Shape(1, 10, 8)], max_new_tokens=9),
            "a completion of 9 tokens, 11 with its prompt, exceeds",
        ),
        (lambda: packed_rows([[1]], [], [Shape(1, 8, 8)], max_new_tokens=8), "as many prompts as completions"),
        (lambda: ordered_rows([[1], []], [[2], [3]], 1, max_new_tokens=8), "the prompt of completion 1 is empty"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            call()
        assert "\n" not in str(error.value)


def test_padding_counts_what_is_computed():
    rows = packed_rows([[1] * 6, [1] * 2], [[2] * 2, [2] * 2], [Shape(1, 12, 4)], max_new_tokens=2)
    assert padding(rows) == 1.0  # 12 positions in one row
    apart = packed_rows([[1] * 6, [1] * 2], [[2] * 2, [2] * 2], [Shape(2, 8, 4)], max_new_tokens=2)
    assert padding(apart) == 16 / 12
    batch = step_batch(rows, (), [[2] * 2, [2]], max_new_tokens=3)
    assert batch.mask_BT.tolist() == [[True, True, False], [True, False, False]]
    assert padding(packed_rows([[1]], [[]], [Shape(1, 8, 8)], max_new_tokens=2)) == 0.0


@pytest.mark.parametrize("shards", [1, 8])
def test_a_hundred_steps_of_a_long_tail_have_one_shape_per_view_and_little_padding(shards):
    """Prompts with a reference solution of log-normal length, up to the cap of 18,976; completions up to 1,024."""
    draw = np.random.default_rng(0)
    problems = draw.lognormal(np.log(110), 0.5, 3200).astype(int)
    solutions = np.minimum(draw.lognormal(np.log(4000), 0.7, 3200), 18_976 - problems).astype(int)
    completions = np.clip(draw.lognormal(np.log(650), 0.6, 3200), 1, 1024).astype(int)
    computed = real = 0.0
    for prompts in (problems, problems + solutions):
        shapes = choose_shapes(prompts.tolist(), max_new_tokens=1024, shards=shards)
        seen = set()
        for start in range(0, 3200, 32):
            step = slice(start, start + 32)
            texts = [[[7] * length for length in lengths[step]] for lengths in (prompts, completions)]
            rows = packed_rows(*texts, shapes, max_new_tokens=1024)
            seen.add(tuple(part.tokens_RS.shape + part.place_RP.shape for part in rows))
            here = int(prompts[step].sum() + completions[step].sum())
            computed += padding(rows) * here
            real += here
        assert len(seen) == 1  # whatever the step, the update is compiled once
    assert computed / real <= 1.3
