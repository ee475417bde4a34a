"""The scalars that a step logs, against the worked example; float32 tolerance 1e-6."""

import chex
import jax.numpy as jnp
import numpy as np
import pytest

from egrsd_jax.objective.losses import egrsd_loss, grpo_loss
from egrsd_jax.objective.metrics import ratio_metrics, rollout_metrics
from egrsd_jax.objective.reward import init_moments, update_moments
from tests.objective.examples import random_batch, worked_example


def close(actual, expected):
    chex.assert_type(actual, jnp.float32)
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6)


def prefix_mask(lengths, width=6):
    return np.arange(width)[None, :] < np.array(lengths)[:, None]


class TestLossMetrics:
    def test_worked_example(self):
        _, metrics = egrsd_loss(*worked_example(), gamma=0.3, window=1)
        expected = {
            "tokens": 7,
            "sequences": 2,
            "advantage_positive": 0.5,
            "advantage_negative": 0.5,
            "advantage_zero": 0.0,
            "delta_mean": 0.13 / 7,
            "delta_abs_mean": 1.37 / 7,
            "weight_clipped_low": 2 / 7,
            "weight_clipped_high": 1 / 7,
            "gate_mean": (0.99 + 0.99 + 0.95 + 0.85 + 0.97 + 0.75 + 0.75) / 7,
            "gate_min": 0.75,
            "entropy_mean": 9.9 / 7,
            "entropy_max": 3.0,
        }
        assert metrics.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(metrics[name], value, rtol=1e-6, atol=1e-6, err_msg=name)

    def test_the_maximum_is_what_entropy_was_divided_by(self):
        batch = worked_example()
        close(egrsd_loss(*batch, gamma=0.3, scope="sequence")[1]["entropy_max"], 3.0)
        close(egrsd_loss(*batch, gamma=0.3, scope="log_vocab", vocab_size=31)[1]["entropy_max"], np.log(31))
        close(egrsd_loss(*batch, gamma=0.3, window=1, denominator="lookahead")[1]["entropy_max"], 2.5)
        close(egrsd_loss(*batch, gamma=0.3, entropy_max=5.0)[1]["entropy_max"], 5.0)

    def test_the_balance_counts_sequences_that_have_tokens(self):
        batch = random_batch(0)._replace(advantage_B=np.array([1.0, np.nan, 0.0, -2.0, 3.0], np.float32))
        _, metrics = grpo_loss(batch.student_logp_BT, batch.advantage_B, batch.mask_BT)
        close(metrics["sequences"], 4)
        close(metrics["tokens"], 16)
        close(metrics["advantage_positive"], 2 / 4)
        close(metrics["advantage_negative"], 1 / 4)
        close(metrics["advantage_zero"], 1 / 4)

    def test_a_ratio_on_the_edge_is_not_clipped(self):
        batch = worked_example()
        metrics = ratio_metrics(
            np.zeros((5, 6)), np.array([[0.5, 1.5, 0.25, 2.0, 0.1, 9.0]] * 5), batch.mask_BT, epsilon=0.5
        )
        close(metrics["weight_clipped_low"], 2 / 7)
        close(metrics["weight_clipped_high"], 1 / 7)


class TestRolloutMetrics:
    ARGUMENTS = (
        np.array([1.25, 0.0, 0.0, 1.5], np.float32),
        np.array([True, False, False, True]),
        np.array([0, 1, 0, 0]),
        np.array([512, 1024, 40, 0]),
    )

    @pytest.mark.parametrize("ddof", [0, 1])
    def test_values(self, ddof):
        earlier = np.array([0.0, 1.0, 1.5], np.float32)
        metrics = rollout_metrics(*self.ARGUMENTS, update_moments(init_moments(), earlier), ddof=ddof)
        expected = {
            "reward_mean": 0.6875,
            "reward_running_mean": earlier.mean(),
            "reward_running_std": earlier.std(ddof=ddof),
            "verified_share": 0.5,
            "cut_off_share": 0.25,
            "completion_length_mean": 394.0,
        }
        assert metrics.keys() == expected.keys()
        for name, value in expected.items():
            close(metrics[name], value)

    def test_disagreeing_shapes_are_named(self):
        with pytest.raises(ValueError, match="length_B has shape"):
            rollout_metrics(*self.ARGUMENTS[:3], np.ones(3), init_moments())
