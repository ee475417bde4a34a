"""Reward and advantage against the float64 reference; float32 tolerance 1e-6, relative or of rewards of size 1."""

from itertools import pairwise

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from egrsd_jax.objective.reward import (
    RunningMoments,
    group_advantage,
    init_moments,
    running_std,
    shaped_reward,
    update_moments,
    whiten,
)
from tests.objective import reference

REWARDS = st.one_of(st.just(0.0), st.floats(1.0, 1.5, width=32))


def moments_after(*batches):
    moments = init_moments()
    for batch in batches:
        moments = update_moments(moments, np.array(batch, np.float32))
    return moments


class TestShapedReward:
    def test_lies_between_one_and_one_plus_beta_where_correct(self):
        reward_B = shaped_reward(np.array([True, True, True, False]), np.array([0, 512, 1024, 1]), max_length=1024)
        chex.assert_type(reward_B, jnp.float32)
        np.testing.assert_allclose(reward_B, [1.5, 1.25, 1.0, 0.0], rtol=1e-6)

    @settings(max_examples=25, deadline=None)
    @given(
        correct_B=st.lists(st.booleans(), min_size=4, max_size=4),
        length_B=st.lists(st.integers(0, 1024), min_size=4, max_size=4),
        beta=st.floats(0, 2),
    )
    def test_agrees_with_the_reference(self, correct_B, length_B, beta):
        reward_B = shaped_reward(np.array(correct_B), np.array(length_B), max_length=1024, beta=beta)
        expected_B = reference.shaped_reward(correct_B, length_B, max_length=1024, beta=beta)
        np.testing.assert_allclose(reward_B, expected_B, rtol=1e-6)

    def test_a_wrong_answer_earns_nothing_whatever_its_length(self):
        np.testing.assert_array_equal(shaped_reward([0.0, 0], [np.nan, np.inf], max_length=10.0), [0.0, 0.0])

    @pytest.mark.parametrize("dtype", [np.bool_, np.int32, np.float32, jnp.bfloat16])
    def test_any_dtype_of_correct_gives_float32(self, dtype):
        reward_B = shaped_reward(jnp.array([1, 0], dtype), jnp.array([4, 4], jnp.int8), max_length=8)
        chex.assert_type(reward_B, jnp.float32)
        np.testing.assert_allclose(reward_B, [1.25, 0.0], rtol=1e-6)

    def test_traced_numbers(self):
        reward_B = jax.jit(shaped_reward)(jnp.array([True]), jnp.array([5]), max_length=20, beta=0.4)
        np.testing.assert_allclose(reward_B, [1.3], rtol=1e-6)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"max_length": 0}, "max_length must be .* above 0; got 0"),
            ({"max_length": 8, "beta": -0.1}, "beta must be a number >= 0; got -0.1"),
            ({"max_length": 8, "beta": float("nan")}, "beta must be"),
            ({"max_length": None}, "max_length must be"),
        ],
    )
    def test_bad_numbers_are_named(self, options, message):
        with pytest.raises(ValueError, match=message):
            shaped_reward(np.ones(2), np.ones(2), **options)

    def test_disagreeing_shapes_are_named(self):
        with pytest.raises(ValueError, match=r"length_B has shape .* and correct_B has"):
            shaped_reward(np.ones(2), np.ones(3), max_length=8)


class TestRunningMoments:
    def test_none_are_zeros_in_arrays_of_their_own(self):
        moments = init_moments()
        chex.assert_trees_all_equal(moments, RunningMoments(np.float32(0), np.float32(0), np.float32(0)))
        chex.assert_tree_shape_prefix(moments, ())
        donated = jax.jit(lambda m: jax.tree.map(lambda x: x + 1, m), donate_argnums=0)(moments)
        assert [float(moment) for moment in donated] == [1.0, 1.0, 1.0]

    @settings(max_examples=40, deadline=None)
    @given(
        rewards=st.lists(REWARDS, min_size=12, max_size=12), cuts=st.lists(st.sampled_from([0, 4, 8, 12]), max_size=3)
    )
    def test_any_split_gives_the_moments_of_all_the_data(self, rewards, cuts):
        edges = [0, *sorted(cuts), 12]
        moments = moments_after(*(rewards[low:high] for low, high in pairwise(edges)))
        chex.assert_tree_has_only_ndarrays(moments)
        count, mean, m2 = reference.moments_of(np.array(rewards, np.float32))
        assert float(moments.count) == count
        np.testing.assert_allclose(moments.mean, mean, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(moments.mean, np.mean(rewards), rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(moments.m2, m2, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(moments.m2 / count, np.var(rewards), rtol=1e-6, atol=1e-6)

    def test_one_reward_at_a_time_over_a_whole_run(self):
        rewards = np.random.default_rng(0).choice([0.0, 1.0, 1.25, 1.4], 200).astype(np.float32)
        one_by_one, _ = jax.lax.scan(lambda m, r: (update_moments(m, r[None]), None), init_moments(), rewards)
        _, mean, m2 = reference.moments_of(rewards)
        np.testing.assert_allclose(one_by_one.mean, mean, rtol=1e-6)
        np.testing.assert_allclose(one_by_one.m2, m2, rtol=2e-6)  # 200 roundings of 6e-8, met in one direction at worst

    def test_no_reward_changes_nothing(self):
        moments = moments_after([1.0, 0.0])
        chex.assert_trees_all_equal(update_moments(moments, np.zeros(0, np.float32)), moments)
        chex.assert_trees_all_equal(update_moments(init_moments(), np.zeros(0)), init_moments())

    def test_plain_numbers_and_bfloat16_become_float32(self):
        moments = update_moments(RunningMoments(2, 0.5, 0.5), jnp.ones(2, jnp.bfloat16))  # pyright: ignore
        for moment in moments:
            chex.assert_type(moment, jnp.float32)
        np.testing.assert_allclose(moments, reference.moments_of([0, 1, 1, 1]), rtol=1e-6)

    def test_a_batch_over_eight_devices_counts_once(self):
        mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
        rewards = np.linspace(0, 1.5, 16, dtype=np.float32)
        spread = jax.device_put(rewards, NamedSharding(mesh, PartitionSpec("data")))
        moments = jax.jit(update_moments)(init_moments(), spread)
        np.testing.assert_allclose(moments, reference.moments_of(rewards), rtol=1e-6)

    def test_rewards_must_be_a_vector(self):
        with pytest.raises(ValueError, match="reward_B must have 1 dimension"):
            update_moments(init_moments(), np.ones((2, 2)))

    @pytest.mark.parametrize("ddof", [0, 1])
    def test_deviation(self, ddof):
        rewards = np.array([0.0, 1.0, 1.25, 0.0], np.float32)
        np.testing.assert_allclose(running_std(moments_after(rewards), ddof=ddof), rewards.std(ddof=ddof), rtol=1e-6)
        assert float(running_std(moments_after([1.2][:ddof]), ddof=ddof)) == 0.0


class TestWhiten:
    EARLIER = (0.0, 1.25, 0.0, 1.5)

    @pytest.mark.parametrize("step", [0, 9])
    def test_the_first_ten_steps_subtract_a_half(self, step):
        advantage_B = whiten([0.0, 1.25], moments_after(self.EARLIER), step)
        chex.assert_type(advantage_B, jnp.float32)
        np.testing.assert_allclose(advantage_B, [-0.5, 0.75], rtol=1e-6)

    @settings(max_examples=40, deadline=None)
    @given(
        reward_B=st.lists(REWARDS, min_size=4, max_size=4),
        earlier=st.lists(st.sampled_from([0.0, 1.0, 1.25, 1.5]), min_size=4, max_size=4),
        step=st.integers(0, 20),
        ddof=st.sampled_from([0, 1]),
        warmup_steps=st.integers(0, 12),
    )
    def test_agrees_with_the_reference(self, reward_B, earlier, step, ddof, warmup_steps):
        options = {"ddof": ddof, "warmup_steps": warmup_steps}
        advantage_B = whiten(np.array(reward_B, np.float32), moments_after(earlier), step, **options)
        expected_B = reference.whiten(reward_B, earlier, step, **options)
        np.testing.assert_allclose(advantage_B, expected_B, rtol=1e-6, atol=1e-6)

    def test_after_them_it_divides_by_the_deviation(self):
        advantage_B = whiten([0.0, 1.25], moments_after(self.EARLIER), 10)
        np.testing.assert_allclose(advantage_B, reference.whiten([0.0, 1.25], self.EARLIER, 10), rtol=1e-6)
        sample_B = whiten([0.0, 1.25], moments_after(self.EARLIER), 10, ddof=1)
        np.testing.assert_allclose(sample_B, reference.whiten([0.0, 1.25], self.EARLIER, 10, ddof=1), rtol=1e-6)
        assert not np.allclose(advantage_B, sample_B, rtol=1e-2)

    def test_equal_earlier_rewards_do_not_blow_up_the_first_success(self):
        np.testing.assert_allclose(whiten([0.0, 1.5], moments_after([0.0] * 8), 10), [0.0, 1.5], rtol=1e-6)
        np.testing.assert_allclose(whiten([0.0, 1.5], moments_after([1.25] * 8), 10), [-1.25, 0.25], rtol=1e-6)

    def test_the_smallest_deviation_is_a_choice(self):
        moments = moments_after([1.0, 1.5])
        np.testing.assert_allclose(whiten([1.5], moments, 10), [1.0], rtol=1e-6)
        np.testing.assert_allclose(whiten([1.5], moments, 10, min_std=0.3), [0.25], rtol=1e-6)

    @pytest.mark.parametrize("ddof", [0, 1])
    def test_no_or_one_earlier_reward(self, ddof):
        np.testing.assert_allclose(whiten([1.25, 0.0], init_moments(), 10, ddof=ddof), [1.25, 0.0], rtol=1e-6)
        np.testing.assert_allclose(whiten([1.25, 0.0], moments_after([1.0]), 10, ddof=ddof), [0.25, -1.0], rtol=1e-6)

    def test_step_and_baseline_may_be_traced_without_a_second_compilation(self):
        chex.clear_trace_counter()
        traced = jax.jit(chex.assert_max_traces(whiten, n=1))
        moments = moments_after(self.EARLIER)
        for step in (3, 9, 10, 11):
            advantage_B = traced(jnp.array([0.0, 1.25]), moments, step, warmup_baseline=0.25)
            expected_B = reference.whiten([0.0, 1.25], self.EARLIER, step, warmup_baseline=0.25)
            np.testing.assert_allclose(advantage_B, expected_B, rtol=1e-6)

    @pytest.mark.parametrize(
        ("step", "options", "message"),
        [
            (-1, {}, "step must be a step number >= 0; got -1"),
            (0, {"warmup_steps": -2}, "warmup_steps must be a number of steps >= 0; got -2"),
            (0, {"warmup_baseline": float("inf")}, "warmup_baseline must be a finite number; got inf"),
            (0, {"min_std": 0.0}, "min_std must be a number above 0; got 0.0"),
            (0, {"ddof": 2}, "ddof must be one of 0, 1; got 2"),
        ],
    )
    def test_bad_numbers_are_named(self, step, options, message):
        with pytest.raises(ValueError, match=message):
            whiten([1.0], init_moments(), step, **options)

    def test_rewards_must_be_a_vector(self):
        with pytest.raises(ValueError, match="reward_B must have 1 dimension"):
            whiten(np.ones((2, 1)), init_moments(), 0)


class TestGroupAdvantage:
    @settings(max_examples=25, deadline=None)
    @given(reward_B=st.lists(REWARDS, min_size=6, max_size=6), size=st.sampled_from([2, 3]), normalise=st.booleans())
    def test_agrees_with_the_reference(self, reward_B, size, normalise):
        options = {"normalise_std": normalise, "epsilon": 1e-2}
        reward_B = np.array(reward_B, np.float32)
        advantage_B = group_advantage(reward_B, size, **options)
        chex.assert_type(advantage_B, jnp.float32)
        expected_B = reference.group_advantage(reward_B, size, **options)
        np.testing.assert_allclose(advantage_B, expected_B, rtol=1e-6, atol=1e-5)  # rounding of 1e-7 over epsilon

    def test_consecutive_rows_form_a_group(self):
        advantage_B = group_advantage([1.0, 0.0, 1.5, 1.0], 2)
        np.testing.assert_allclose(advantage_B[:2], np.array([0.5, -0.5]) / (0.5 + 1e-4), rtol=1e-6)
        np.testing.assert_allclose(advantage_B[2:], np.array([0.25, -0.25]) / (0.25 + 1e-4), rtol=1e-6)

    @pytest.mark.parametrize("reward", [0.0, 1.1, 1.3, 1.4321])
    def test_equal_rewards_give_exactly_zero(self, reward):
        np.testing.assert_array_equal(group_advantage(np.full(7, reward), 7), np.zeros(7))

    def test_bad_arguments_are_named(self):
        with pytest.raises(ValueError, match=r"group_size must be a Python int .* of at least 2; got 1"):
            group_advantage(np.ones(4), 1)
        with pytest.raises(ValueError, match="group_size must divide the 4 rewards of reward_B; got 3"):
            group_advantage(np.ones(4), 3)
        with pytest.raises(ValueError, match="epsilon must be a number above 0; got 0"):
            group_advantage(np.ones(4), 2, epsilon=0)
        with pytest.raises(ValueError, match="reward_B must have 1 dimension"):
            group_advantage(np.ones((2, 2)), 2)
