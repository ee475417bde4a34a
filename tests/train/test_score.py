"""The mass of the end of a turn against a dense softmax, and that no gradient flows through it."""

import jax
import numpy as np
import pytest

from egrsd_jax.train.score import Prediction, scored, scores

B, T, D, V = 2, 5, 16, 40
STOPS = (3, 17, 31)


def prediction(dtype: str) -> tuple[Prediction, jax.Array]:
    hidden, head, tokens = jax.random.split(jax.random.key(0), 3)
    made = Prediction(jax.random.normal(hidden, (B, T, D), dtype), jax.random.normal(head, (V, D), dtype))
    return made, jax.random.randint(tokens, (B, T), 0, V)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_the_mass_of_the_end_is_that_of_a_dense_softmax(dtype, temperature):
    made, completion_BT = prediction(dtype)
    logits_BTV = np.einsum("btd,vd->btv", *(np.asarray(array, np.float64) for array in made)) / temperature
    chance_BTV = np.exp(logits_BTV - logits_BTV.max(axis=-1, keepdims=True))
    chance_BTV /= chance_BTV.sum(axis=-1, keepdims=True)
    numbers = scored(made, completion_BT, temperature=temperature, stop_ids=STOPS)
    np.testing.assert_allclose(numbers.end_BT, chance_BTV[..., list(STOPS)].sum(axis=-1), rtol=2e-5, atol=1e-12)


def test_no_gradient_flows_through_what_is_only_logged():
    made, completion_BT = prediction("float32")

    def total(hidden_BTD, with_end: bool):
        numbers = scored(made._replace(hidden_BTD=hidden_BTD), completion_BT, temperature=1.0, stop_ids=STOPS)
        return numbers.logp_BT.sum() + (numbers.end_BT.sum() if with_end else 0.0)

    with_end, without_end = (jax.grad(total)(made.hidden_BTD, with_end) for with_end in (True, False))
    np.testing.assert_array_equal(with_end, without_end)
    plain, unasked = scores(made, completion_BT, temperature=1.0), scored(made, completion_BT, temperature=1.0)
    assert unasked.end_BT is None
    np.testing.assert_array_equal(unasked.logp_BT, plain.logp_BT)
