import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egrsd_jax.ops.arguments import check_choice, check_number, check_same_shape, check_shapes, check_static_int


def in_unit_interval(number):
    return 0 <= number <= 1


class TestCheckShapes:
    def test_passes_what_agrees(self):
        check_shapes(logp_BT=np.zeros((2, 3)), advantage_B=[1.0, 2.0], mask_BT=jnp.zeros((2, 3)))

    def test_names_both_arrays_that_disagree(self):
        with pytest.raises(
            ValueError, match=r"advantage_B has shape \(3,\).*B is 3.*B is 2 in logp_BT of shape \(2, 4\)"
        ):
            check_shapes(logp_BT=np.zeros((2, 4)), advantage_B=np.zeros(3))

    def test_names_a_wrong_number_of_dimensions(self):
        with pytest.raises(ValueError, match=r"mask_BT must have 2 dimension\(s\), B and T; its shape is \(4,\)"):
            check_shapes(mask_BT=np.zeros(4))

    def test_works_on_traced_arrays(self):
        with pytest.raises(ValueError, match="mask_BT has shape"):
            jax.jit(lambda logp, mask: check_shapes(logp_BT=logp, mask_BT=mask))(jnp.zeros((2, 3)), jnp.zeros((2, 4)))


def test_check_same_shape_names_both():
    check_same_shape(values=np.zeros(()), mask=1.0)
    with pytest.raises(ValueError, match=r"mask has shape \(3,\) and values has \(2,\)"):
        check_same_shape(values=np.zeros(2), mask=np.zeros(3))


class TestCheckNumber:
    @pytest.mark.parametrize("value", [0, 1.0, np.float32(0.5), np.int64(1), np.array(0.25), jnp.float32(7.0)])
    def test_passes_numbers_in_range_and_device_scalars_of_any_value(self, value):
        check_number("gamma", value, in_unit_interval, "a number in [0, 1]")

    @pytest.mark.parametrize(
        "value",
        [-0.1, 1.5, float("nan"), np.float32(2.0), np.array(3.0), None, "0.3", [0.3], np.array([0.3]), jnp.ones(1)],
    )
    def test_names_the_argument_its_value_and_what_is_right(self, value):
        message = f"gamma must be a number in [0, 1]; got {value!r}"
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            check_number("gamma", value, in_unit_interval, "a number in [0, 1]")

    def test_lets_a_traced_scalar_pass(self):
        jax.jit(lambda gamma: check_number("gamma", gamma, in_unit_interval, "a number in [0, 1]"))(2.0)


class TestCheckStaticInt:
    @pytest.mark.parametrize("value", [0, 3, np.int32(2)])
    def test_returns_an_int(self, value):
        assert type(check_static_int("window", value, 0)) is int

    @pytest.mark.parametrize("value", [-1, 1.0, True, None, "2", jnp.int32(2)])
    def test_refuses_the_rest(self, value):
        with pytest.raises(ValueError, match=r"window must be a Python int .* of at least 0; got"):
            check_static_int("window", value, 0)

    def test_refuses_a_traced_value(self):
        with pytest.raises(ValueError, match="window must be a Python int"):
            jax.jit(lambda window: check_static_int("window", window, 0))(2)


def test_check_choice_lists_the_choices():
    check_choice("scope", "batch", ("batch", "sequence"))
    for wrong in ("Batch", None, jnp.float32(0.0)):
        with pytest.raises(ValueError, match="scope must be one of 'batch', 'sequence'; got"):
            check_choice("scope", wrong, ("batch", "sequence"))
