"""Losses against the worked example, the float64 reference and its finite differences; float32 tolerance 1e-6.

The tolerance is relative, and absolute for sums of terms of size 1 that cancel.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from egrsd_jax.objective.gate import entropy_maximum
from egrsd_jax.objective.losses import egrsd_loss, grpo_loss, ratio_weight
from egrsd_jax.ops.masked import REDUCTIONS, reduction_count
from tests.objective import reference
from tests.objective.examples import Batch, random_batch, rows, with_extra_padding, worked_example

dims = chex.Dimensions(B=5, T=6)
LOG_PROBABILITIES = arrays(np.float32, dims["BT"], elements=st.floats(-6, 0, width=32))
ADVANTAGES = arrays(np.float32, dims["B"], elements=st.sampled_from([-1.5, -0.25, 0.0, 0.5, 2.0]))

GATES = [
    {"scope": "batch", "denominator": "raw", "window": 0},
    {"scope": "batch", "denominator": "raw", "window": 2},
    {"scope": "batch", "denominator": "lookahead", "window": 2},
    {"scope": "sequence", "denominator": "raw", "window": 2},
    {"scope": "sequence", "denominator": "lookahead", "window": 2},
    {"scope": "log_vocab", "vocab_size": 31, "window": 2},
]


def close(actual, expected):
    chex.assert_type(actual, jnp.float32)
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6)


def loss_and_gradient(batch, loss=egrsd_loss, **options):
    """The loss, and its gradient by the student's log-probabilities."""
    (value, _), gradient_BT = jax.value_and_grad(loss, has_aux=True)(*map(jnp.asarray, batch), **options)
    return value, gradient_BT


def coefficients(batch, *, epsilon=0.2, reduction="token", **gate_options):
    return reference.coefficients(*batch, epsilon=epsilon, **gate_options)


class TestWorkedExample:
    BATCH = worked_example()
    COEFFICIENTS = (1.040758, 0.792, 1.14, 0.85, -0.536008, -0.3, -0.382576)  # given to six decimals

    def test_ratio_weight(self):
        weight_BT = ratio_weight(self.BATCH.student_logp_BT, self.BATCH.teacher_logp_BT, self.BATCH.advantage_B)
        expected = [1.051271, 0.8, 1.2, 1.0, 1.105171, 0.8, 1.020201]  # given to six decimals
        np.testing.assert_allclose(np.asarray(weight_BT)[self.BATCH.mask_BT], expected, atol=1e-6)

    def test_loss(self):
        loss, _ = egrsd_loss(*self.BATCH, gamma=0.3, window=1)
        chex.assert_shape(loss, ())
        close(loss, 0.326324148)

    def test_gradient_is_minus_the_coefficients_over_the_tokens(self):
        _, gradient_BT = loss_and_gradient(self.BATCH, gamma=0.3, window=1)
        np.testing.assert_allclose(-7 * gradient_BT[self.BATCH.mask_BT], self.COEFFICIENTS, atol=1e-6)

    def test_the_reference_agrees_too(self):
        coefficient_BT = coefficients(self.BATCH, gamma=0.3, window=1)
        np.testing.assert_allclose(coefficient_BT[self.BATCH.mask_BT], self.COEFFICIENTS, atol=1e-6)
        loss = reference.policy_loss(coefficient_BT, self.BATCH.student_logp_BT, self.BATCH.mask_BT)
        np.testing.assert_allclose(loss, 0.326324148, atol=1e-7)  # its inputs were rounded to float32


class TestRatioWeight:
    @settings(max_examples=30, deadline=None)
    @given(student_BT=LOG_PROBABILITIES, teacher_BT=LOG_PROBABILITIES, advantage_B=ADVANTAGES, epsilon=st.floats(0, 1))
    def test_agrees_with_the_reference(self, student_BT, teacher_BT, advantage_B, epsilon):
        weight_BT = ratio_weight(student_BT, teacher_BT, advantage_B, epsilon=epsilon)
        chex.assert_shape(weight_BT, dims["BT"])
        mask_BT = np.ones(student_BT.shape, bool)
        close(weight_BT, reference.ratio_weight(student_BT, teacher_BT, advantage_B, mask_BT, epsilon=epsilon))

    def test_no_advantage_gives_weight_one_even_where_the_teacher_rules_a_token_out(self):
        close(ratio_weight([[-1.0, -1.0]], [[-np.inf, -2.0]], [0.0]), [[1.0, 1.0]])

    def test_an_infinite_difference_is_clipped(self):
        close(ratio_weight([[-1.0, -np.inf]], [[-np.inf, -1.0]], [1.0]), [[0.8, 1.2]])
        close(ratio_weight([[-1.0, -np.inf]], [[-np.inf, -1.0]], [-1.0]), [[1.2, 0.8]])

    def test_has_no_gradient(self):
        gradients = jax.grad(lambda s, t, a: ratio_weight(s, t, a).sum(), argnums=(0, 1, 2))(
            jnp.array([[-1.0, -0.9]]), jnp.array([[-0.9, -1.0]]), jnp.array([1.0])
        )
        chex.assert_trees_all_equal(gradients, jax.tree.map(jnp.zeros_like, gradients))

    def test_bfloat16_gives_float32(self):
        student_BT, teacher_BT = jnp.array([[-1.0, -2.0]], jnp.bfloat16), jnp.array([[-1.125, -1.0]], jnp.bfloat16)
        close(ratio_weight(student_BT, teacher_BT, jnp.array([1.0], jnp.bfloat16)), [[np.exp(-0.125), 1.2]])

    def test_bad_arguments_are_named(self):
        student_BT = np.zeros((2, 3))
        with pytest.raises(ValueError, match=r"epsilon must be a number in \[0, 1\]; got 1.2"):
            ratio_weight(student_BT, student_BT, np.ones(2), epsilon=1.2)
        with pytest.raises(ValueError, match=r"advantage_B has shape \(3,\)"):
            ratio_weight(student_BT, student_BT, np.ones(3))
        with pytest.raises(ValueError, match="teacher_logp_BT has shape"):
            ratio_weight(student_BT, np.zeros((2, 4)), np.ones(2))


class TestEgrsdLoss:
    @pytest.mark.parametrize("gate", GATES, ids=str)
    @pytest.mark.parametrize("reduction", REDUCTIONS)
    def test_loss_and_gradient_agree_with_the_reference(self, gate, reduction):
        batch, options = random_batch(0), {"gamma": 0.95, "epsilon": 0.15, **gate}
        loss, gradient_BT = loss_and_gradient(batch, reduction=reduction, **options)
        coefficient_BT = coefficients(batch, **options)
        close(loss, reference.policy_loss(coefficient_BT, batch.student_logp_BT, batch.mask_BT, reduction))
        close(gradient_BT, reference.policy_gradient(coefficient_BT, batch.mask_BT, reduction))

    @pytest.mark.parametrize("reduction", REDUCTIONS)
    def test_gradient_agrees_with_finite_differences_in_float64(self, reduction):
        batch, options = random_batch(1), {"gamma": 0.5, "window": 2}
        _, gradient_BT = loss_and_gradient(batch, reduction=reduction, **options)
        measured_BT = reference.finite_difference_gradient(
            coefficients(batch, **options), batch.student_logp_BT, batch.mask_BT, reduction
        )
        close(gradient_BT, measured_BT)

    def test_no_gate_and_no_ratio_leave_the_plain_policy_gradient(self):
        batch = random_batch(2)
        loss, gradient_BT = loss_and_gradient(batch, gamma=0.0, epsilon=0.0)
        plain, plain_gradient_BT = loss_and_gradient(
            (batch.student_logp_BT, batch.advantage_B, batch.mask_BT), grpo_loss
        )
        close(loss, plain)
        close(gradient_BT, plain_gradient_BT)

    def test_only_the_student_has_a_gradient(self):
        batch = Batch(*map(jnp.asarray, random_batch(3)))

        def loss_of(student_BT, teacher_BT, entropy_BT, advantage_B, gamma, epsilon, entropy_max):
            options = {"gamma": gamma, "epsilon": epsilon, "entropy_max": entropy_max, "window": 1}
            return egrsd_loss(student_BT, teacher_BT, entropy_BT, advantage_B, batch.mask_BT, **options)[0]

        gradients = jax.grad(loss_of, argnums=range(7))(*batch[:4], 0.3, 0.2, 2.0)
        chex.assert_tree_all_finite(gradients)
        assert np.any(gradients[0] != 0)
        chex.assert_trees_all_equal(gradients[1:], jax.tree.map(jnp.zeros_like, gradients[1:]))

    def test_metrics_have_no_gradient(self):
        batch = random_batch(3)
        for name in egrsd_loss(*batch, gamma=0.3)[1]:
            gradient_BT = jax.grad(lambda s, name=name: egrsd_loss(s, *batch[1:], gamma=0.3)[1][name])(
                jnp.asarray(batch.student_logp_BT)
            )
            np.testing.assert_array_equal(gradient_BT, 0.0, err_msg=name)

    def test_no_advantage_means_no_update(self):
        batch = random_batch(4)._replace(advantage_B=np.zeros(5, np.float32))
        loss, gradient_BT = loss_and_gradient(batch, gamma=0.3)
        assert float(loss) == 0.0
        np.testing.assert_array_equal(gradient_BT, 0.0)

    @pytest.mark.parametrize("gate", GATES[-3:], ids=str)
    @pytest.mark.parametrize("reduction", REDUCTIONS)
    def test_a_batch_without_a_token_has_loss_and_gradient_zero(self, gate, reduction):
        batch = random_batch(5, lengths=(0, 0, 0, 0, 0))
        loss, gradient_BT = loss_and_gradient(batch, gamma=0.3, reduction=reduction, **gate)
        assert float(loss) == 0.0
        np.testing.assert_array_equal(gradient_BT, 0.0)
        chex.assert_tree_all_finite(egrsd_loss(*batch, gamma=0.3, **gate)[1])

    @pytest.mark.parametrize("dtype", [np.bool_, np.int32, np.float32, jnp.bfloat16])
    def test_any_dtype_of_mask(self, dtype):
        batch = random_batch(6)
        expected = reference.policy_loss(coefficients(batch, gamma=0.3), batch.student_logp_BT, batch.mask_BT)
        close(egrsd_loss(*batch[:4], jnp.asarray(batch.mask_BT, dtype), gamma=0.3)[0], expected)

    def test_bfloat16_inputs_are_computed_in_float32(self):
        half = Batch(*(jnp.asarray(array, jnp.bfloat16) for array in random_batch(7)[:4]), random_batch(7).mask_BT)
        same = Batch(*(np.asarray(array, np.float32) for array in half[:4]), half.mask_BT)
        loss, metrics = egrsd_loss(*half, gamma=0.5, window=2)
        close(loss, reference.policy_loss(coefficients(same, gamma=0.5, window=2), same.student_logp_BT, same.mask_BT))
        for metric in metrics.values():
            chex.assert_type(metric, jnp.float32)
            chex.assert_shape(metric, ())

    def test_traced_gamma_and_epsilon_compile_once_and_agree_with_eager(self):
        batch = random_batch(8)
        chex.clear_trace_counter()
        traced = jax.jit(chex.assert_max_traces(egrsd_loss, n=1), static_argnames=("window", "reduction"))
        for gamma, epsilon in ((0.3, 0.2), (1.0, 0.1)):
            options = {"gamma": gamma, "epsilon": epsilon, "window": 2, "reduction": "sequence"}
            chex.assert_trees_all_close(traced(*batch, **options), egrsd_loss(*batch, **options), rtol=1e-6, atol=1e-6)


@pytest.mark.slow
class TestPaddingAndOrder:
    @pytest.mark.parametrize("gate", GATES[1:4], ids=str)
    @pytest.mark.parametrize("reduction", REDUCTIONS)
    def test_extra_padding_changes_nothing(self, gate, reduction):
        batch, options = random_batch(9), {"gamma": 0.7, "reduction": reduction, **gate}
        larger = with_extra_padding(batch)
        loss, gradient_BT = loss_and_gradient(batch, **options)
        larger_loss, larger_gradient_BT = loss_and_gradient(larger, **options)
        close(larger_loss, loss)
        close(larger_gradient_BT[larger.mask_BT], gradient_BT[batch.mask_BT])
        np.testing.assert_array_equal(larger_gradient_BT[~larger.mask_BT], 0.0)

    @pytest.mark.parametrize("gate", GATES, ids=str)
    def test_the_order_of_sequences_changes_nothing(self, gate):
        batch, options = random_batch(10), {"gamma": 0.7, "reduction": "sequence", **gate}
        order = np.array([4, 2, 0, 1, 3])
        loss, gradient_BT = loss_and_gradient(batch, **options)
        shuffled_loss, shuffled_gradient_BT = loss_and_gradient(rows(batch, order), **options)
        close(shuffled_loss, loss)
        close(shuffled_gradient_BT, gradient_BT[order])

    @settings(max_examples=10, deadline=None)
    @given(contents=arrays(np.float32, (4, 5, 6), elements=st.floats(width=32)))
    def test_any_contents_of_padding_change_nothing(self, contents):
        batch = random_batch(11)
        *scores, advantage_B, mask_BT = batch
        other = [np.where(mask_BT, array, junk) for array, junk in zip(scores, contents, strict=False)]
        other.append(np.where(mask_BT.any(axis=1), advantage_B, contents[3, :, 0]))
        expected = loss_and_gradient(batch, gamma=0.6, window=1)
        chex.assert_trees_all_equal(loss_and_gradient(Batch(*other, mask_BT), gamma=0.6, window=1), expected)


@pytest.mark.slow
class TestSplitting:
    @pytest.mark.parametrize("gate", GATES, ids=str)
    @pytest.mark.parametrize("reduction", REDUCTIONS)
    def test_micro_batches_give_the_whole_batchs_loss_and_gradient(self, gate, reduction):
        # Parts of 16 and 7 tokens, in 4 and 2 sequences, and one of nothing.
        batch = random_batch(12, lengths=(4, 0, 6, 1, 5, 5, 2, 0, 0, 0, 0, 0, 0, 0, 0))
        parts = [slice(0, 5), slice(5, 10), slice(10, 15)]
        options = {"gamma": 0.9, "reduction": reduction, **gate}
        loss, gradient_BT = loss_and_gradient(batch, **options)
        total = reduction_count(batch.mask_BT, reduction)

        if gate["scope"] == "batch":
            choice = {"window": gate["window"], "denominator": gate["denominator"]}
            options["entropy_max"] = entropy_maximum(batch.entropy_BT, batch.mask_BT, **choice)
        summed, pieces = 0.0, []
        for part in parts:
            share = reduction_count(batch.mask_BT[part], reduction) / total
            part_loss, part_gradient_BT = loss_and_gradient(rows(batch, part), **options)
            summed += share * part_loss
            pieces.append(share * part_gradient_BT)
        close(summed, loss)
        close(jnp.concatenate(pieces), gradient_BT)

    def test_the_maximum_of_a_part_alone_would_be_wrong(self):
        batch = worked_example()
        part = batch._replace(mask_BT=batch.mask_BT & (np.arange(5)[:, None] == 0))  # whose own maximum is 2
        alone, _ = egrsd_loss(*part, gamma=0.9)
        together, _ = egrsd_loss(*part, gamma=0.9, entropy_max=entropy_maximum(batch.entropy_BT, batch.mask_BT))
        assert abs(float(alone) - float(together)) > 1e-2

    @pytest.mark.parametrize("reduction", REDUCTIONS)
    def test_eight_devices_give_what_one_gives(self, reduction):
        batch = random_batch(13, lengths=(4, 0, 6, 1, 5, 2, 0, 3))
        mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
        spread = [jax.device_put(array, NamedSharding(mesh, PartitionSpec("data"))) for array in batch]

        def objective(*arguments):
            return egrsd_loss(*arguments, gamma=0.8, window=2, reduction=reduction)

        step = jax.value_and_grad(objective, has_aux=True)
        (loss, metrics), gradient_BT = jax.jit(step)(*spread)
        expected = step(*map(jnp.asarray, batch))
        chex.assert_trees_all_close(((loss, metrics), gradient_BT), expected, rtol=1e-6, atol=1e-6)
        assert gradient_BT.sharding.is_equivalent_to(spread[0].sharding, 2)
        assert float(metrics["tokens"]) == 21


class TestGrpoLoss:
    @pytest.mark.parametrize("reduction", REDUCTIONS)
    def test_is_the_reference_with_the_bare_advantage(self, reduction):
        batch = random_batch(14)
        advantage_BT = np.where(batch.mask_BT, batch.advantage_B[:, None], 0.0)
        arguments = (batch.student_logp_BT, batch.advantage_B, batch.mask_BT)
        loss, gradient_BT = loss_and_gradient(arguments, grpo_loss, reduction=reduction)
        close(loss, reference.policy_loss(advantage_BT, batch.student_logp_BT, batch.mask_BT, reduction))
        close(gradient_BT, reference.policy_gradient(advantage_BT, batch.mask_BT, reduction))

    def test_the_advantage_has_no_gradient(self):
        batch = random_batch(15)
        gradient_B = jax.grad(lambda a: grpo_loss(batch.student_logp_BT, a, batch.mask_BT)[0])(batch.advantage_B)
        np.testing.assert_array_equal(gradient_B, 0.0)

    def test_nothing_is_zero(self):
        loss, metrics = grpo_loss(np.full((2, 3), np.nan), np.full(2, np.nan), np.zeros((2, 3)))
        assert float(loss) == 0.0
        chex.assert_tree_all_finite(metrics)

    def test_bad_arguments_are_named(self):
        with pytest.raises(ValueError, match="reduction must be one of 'token', 'sequence'; got 'sum'"):
            grpo_loss(np.zeros((2, 3)), np.zeros(2), np.ones((2, 3)), reduction="sum")
        with pytest.raises(ValueError, match="advantage_B has shape"):
            grpo_loss(np.zeros((2, 3)), np.zeros(4), np.ones((2, 3)))


class TestBadArguments:
    BATCH = random_batch(16)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"gamma": 2.0}, r"gamma must be a number in \[0, 1\]; got 2.0"),
            ({"gamma": 0.3, "window": -1}, "window must be .*; got -1"),
            ({"gamma": 0.3, "epsilon": -0.2}, r"epsilon must be a number in \[0, 1\]; got -0.2"),
            ({"gamma": 0.3, "floor": -0.1}, "floor must be .*; got -0.1"),
            ({"gamma": 0.3, "scope": "world"}, "scope must be one of .*; got 'world'"),
            ({"gamma": 0.3, "denominator": ""}, "denominator must be one of .*; got ''"),
            ({"gamma": 0.3, "reduction": "sum"}, "reduction must be one of .*; got 'sum'"),
            ({"gamma": 0.3, "scope": "log_vocab"}, "vocab_size must be .*; got None"),
            ({"gamma": 0.3, "entropy_max": -1.0}, "entropy_max must be .*; got -1.0"),
        ],
    )
    def test_is_named_with_its_value_and_what_is_right(self, options, message):
        with pytest.raises(ValueError, match=message):
            egrsd_loss(*self.BATCH, **options)

    @pytest.mark.parametrize("position", range(1, 5))
    def test_disagreeing_shapes_are_named(self, position):
        arguments = list(self.BATCH)
        arguments[position] = arguments[position][:-1]
        names = ("student_logp_BT", "teacher_logp_BT", "teacher_entropy_BT", "advantage_B", "mask_BT")
        with pytest.raises(ValueError, match=f"{names[position]} has shape .*B is 5 in student_logp_BT"):
            egrsd_loss(*arguments, gamma=0.3)
