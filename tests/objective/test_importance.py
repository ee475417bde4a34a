"""The weight of an older student's completions: in NumPy, and the expected gradient where each completion is listed."""

from itertools import product
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egrsd_jax.objective.importance import corrected_loss, importance_metrics, importance_weight
from egrsd_jax.objective.methods import METHODS, method_settings
from egrsd_jax.objective.signals import Signals

MASK = np.array([[1, 1, 1], [1, 1, 0], [0, 0, 0]], bool)
STUDENT = np.array([[-1.0, -2.0, -0.5], [-3.0, -0.1, np.nan], [np.nan] * 3], np.float32)
VERSION = np.array([[-1.2, -1.5, -0.5], [-1.0, -0.2, 7.0], [0.0] * 3], np.float32)


def test_a_sequence_has_one_weight_and_a_token_its_own():
    weights = {
        kind: importance_weight(STUDENT, VERSION, MASK, kind=kind, cap=1.15) for kind in ("sequence", "token", "none")
    }
    change = np.array([[0.2, -0.5, 0.0], [-2.0, 0.1, 0.0], [0.0] * 3])
    of_sequence = np.where(MASK, np.exp(change.sum(1, keepdims=True)), 1)
    np.testing.assert_allclose(weights["sequence"], np.minimum(of_sequence, 1.15), rtol=1e-6)
    np.testing.assert_allclose(weights["token"], np.minimum(np.exp(change), 1.15), rtol=1e-6)
    assert float(weights["token"][0, 0]) == np.float32(1.15)
    np.testing.assert_array_equal(weights["none"], np.ones((3, 3)))


def test_equal_policies_have_weight_one_to_the_bit():
    for kind in ("sequence", "token"):
        np.testing.assert_array_equal(importance_weight(VERSION, VERSION, MASK, kind=kind, cap=2.0), 1.0)


def test_no_gradient_goes_through_the_weight():
    def total(logp_BT):
        return jnp.sum(importance_weight(logp_BT, VERSION, MASK, kind="sequence", cap=2.0))

    np.testing.assert_array_equal(jax.grad(total)(jnp.zeros((3, 3))), 0.0)


def test_metrics_are_over_the_tokens_in_the_loss():
    weight = importance_weight(STUDENT, VERSION, MASK, kind="token", cap=1.15)
    metrics = importance_metrics(weight, MASK, cap=1.15)
    kept = np.asarray(weight)[MASK]
    expected = {"importance_mean": kept.mean(), "importance_std": kept.std(), "importance_capped": 0.2}
    chex.assert_trees_all_close(metrics, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"kind": "all"}, "kind"), ({"mask_BT": MASK[:2]}, "mask_BT")],
    ids=["kind", "shape"],
)
def test_mistakes_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        importance_weight(STUDENT, VERSION, options.get("mask_BT", MASK), kind=options.get("kind", "token"), cap=2.0)


# A policy over three tokens, of which token 0 ends a completion of at most three: every completion can be listed.
V, T, END = 3, 3, 0


def every_completion() -> list[tuple[int, ...]]:
    ended = [(*start, END) for length in range(T) for start in product(range(1, V), repeat=length)]
    return ended + list(product(range(1, V), repeat=T))


COMPLETIONS = every_completion()
PREFIXES = {prefix: row for row, prefix in enumerate(p for n in range(T) for p in product(range(1, V), repeat=n))}


class Toy(NamedTuple):
    """Every completion: its tokens, the row of the table that predicts each, and which are there."""

    token_BT: np.ndarray
    state_BT: np.ndarray
    mask_BT: np.ndarray


def toy() -> Toy:
    tokens, states, mask = (np.zeros((len(COMPLETIONS), T), int) for _ in range(3))
    for row, completion in enumerate(COMPLETIONS):
        tokens[row, : len(completion)] = completion
        mask[row, : len(completion)] = 1
        states[row, : len(completion)] = [PREFIXES[completion[:at]] for at in range(len(completion))]
    return Toy(tokens, states, mask.astype(bool))


def token_logp(logits_SV: jax.Array, toy: Toy) -> jax.Array:
    logp_BT = jax.nn.log_softmax(logits_SV)[toy.state_BT, toy.token_BT]
    return jnp.where(toy.mask_BT, logp_BT, 0.0)


def expected_gradient(name: str, sampler_SV: jax.Array, **importance) -> jax.Array:
    """The mean over a sampler's completions of the gradient of one completion's loss, each in its own batch of one."""
    draw, settings = np.random.default_rng(8), method_settings(name, reduction="sequence", **importance)
    table = toy()
    student_SV, teacher_SV = (jnp.asarray(draw.normal(size=(len(PREFIXES), V))) for _ in range(2))
    advantage_B = draw.normal(size=len(COMPLETIONS))  # of the whole completion, as a reward is
    gate_BT = np.where(table.mask_BT, draw.uniform(0.2, 1, table.mask_BT.shape), 0)  # reads later tokens too
    version_BT = token_logp(sampler_SV, table)
    probability_B = jnp.exp(version_BT.sum(1))
    np.testing.assert_allclose(probability_B.sum(), 1, rtol=1e-12)

    def loss(logits_SV):
        student_BT = token_logp(logits_SV, table)
        teacher = jax.nn.log_softmax(teacher_SV)
        divergence_S = jnp.sum(jnp.exp(teacher) * (teacher - jax.nn.log_softmax(logits_SV)), axis=1)
        signals = Signals(
            mask_BT=table.mask_BT,
            student_logp_BT=student_BT,
            sampled_logp_BT=version_BT,
            advantage_B=advantage_B,
            weight_B=np.ones(len(COMPLETIONS)),
            demonstration_B=np.zeros(len(COMPLETIONS), bool),
            step=np.int32(1),
            teacher_logp_BT=token_logp(teacher_SV, table),
            gate_BT=gate_BT,
            divergence_BT=jnp.where(table.mask_BT, divergence_S[table.state_BT], 0.0),
            version_logp_BT=version_BT,
            importance_BT=importance_weight(
                student_BT, version_BT, table.mask_BT, kind=settings.importance, cap=settings.importance_cap
            ),
        )
        loss_BT = corrected_loss(METHODS[name], signals, settings)
        return jnp.sum(probability_B * jnp.sum(loss_BT, axis=1) / table.mask_BT.sum(1))

    return jax.grad(loss)(student_SV)


def on_and_off_policy(name: str, **importance) -> tuple[np.ndarray, np.ndarray]:
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        draw = np.random.default_rng(8)
        student_SV = jnp.asarray(draw.normal(size=(len(PREFIXES), V)))
        older_SV = student_SV + 0.5 * np.random.default_rng(9).normal(size=student_SV.shape)
        on = expected_gradient(name, student_SV, importance="none")
        off = expected_gradient(name, older_SV, **importance)
        assert on.dtype == jnp.float64
        return np.asarray(on), np.asarray(off)


@pytest.mark.parametrize("name", ["egrsd", "grpo", "opsd"])
def test_the_expected_gradient_is_that_of_the_students_own_completions(name):
    """To rounding in float64, for a policy gradient on a reward of the whole completion and for a divergence."""
    on, off = on_and_off_policy(name, importance="sequence", importance_cap=1e6)
    np.testing.assert_allclose(off, on, rtol=0, atol=1e-12 * np.abs(on).max())


@pytest.mark.parametrize(
    "importance",
    [{"importance": "none"}, {"importance": "token", "importance_cap": 1e6}, {"importance": "sequence"}],
    ids=["none", "token", "cap 2"],
)
def test_without_the_correction_it_is_another_and_less_of_it_leaves_a_bias(importance):
    on, off = on_and_off_policy("egrsd", **importance)
    none = on_and_off_policy("egrsd", importance="none")[1]
    assert np.abs(off - on).max() > 1e-3 * np.abs(on).max()
    assert np.linalg.norm(off - on) <= np.linalg.norm(none - on)
