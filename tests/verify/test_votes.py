from itertools import permutations

import pytest

from egrsd_jax.verify.votes import CORRECT, votes


def test_correct_answers_are_one_group_and_wrong_ones_are_grouped_by_value():
    answers = ["7", "7.0", "8", None, r"\frac{16}{2}", "9", "", "x=8"]
    assert votes(answers, [True, True, False, False, False, False, False, False]) == [
        CORRECT, CORRECT, 1, None, 1, 2, None, 1,
    ]  # fmt: skip


def test_units_of_another_size_are_other_votes():
    cm, m, cm_again = votes([r"10 \text{ cm}", r"10 \text{ m}", r"10\text{ cm}"], [False] * 3)
    assert cm == cm_again != m


def test_one_text_with_two_grades_is_two_votes():
    assert votes([r"10 \text{ cm}", r"10 \text{ m}"], [True, False]) == [CORRECT, 1]


@pytest.mark.parametrize(
    "answers", [("0.5", "1/2", "3", "three"), (r"10\%", "10", "0.1", "5"), ("x=1", "1", "y=1", "2")]
)
def test_groups_do_not_depend_on_the_order(answers):
    first = dict(zip(answers, votes(answers, [False] * len(answers)), strict=True))
    for order in permutations(answers):
        assert dict(zip(order, votes(order, [False] * len(order)), strict=True)) == first
