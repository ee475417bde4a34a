"""Sampling rules against a NumPy restatement of what each one leaves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egrsd_jax.rollout.sampling import SamplingRules, candidate_count, sample_tokens

LOGITS = np.log(np.array([0.02, 0.30, 0.05, 0.25, 0.20, 0.10, 0.08]))
DRAWS = 4000


def rules(*, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0) -> SamplingRules:
    def filled(value, dtype):
        return jnp.full(DRAWS, value, dtype)

    return SamplingRules(
        filled(temperature, jnp.float32),
        filled(top_k, jnp.int32),
        filled(top_p, jnp.float32),
        filled(min_p, jnp.float32),
    )


def expected(*, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0) -> np.ndarray:
    """The distribution that the rules leave, in the order in which transformers applies them."""
    probability = np.exp(LOGITS / temperature)
    probability /= probability.sum()
    order = np.argsort(-probability)
    kept = order[: top_k or None]
    left = probability[kept] / probability[kept].sum()
    count = int(np.searchsorted(np.cumsum(left), top_p - 1e-9)) + 1
    kept, left = kept[:count], left[:count]
    kept = kept[left >= min_p * left[0]]
    result = np.zeros_like(probability)
    result[kept] = probability[kept] / probability[kept].sum()
    return result


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 1.7},
        {"temperature": 0.5, "top_k": 3},
        {"top_p": 0.7},
        {"top_k": 5, "top_p": 0.6},
        {"min_p": 0.3},
        {"temperature": 1.3, "top_k": 6, "top_p": 0.9, "min_p": 0.2},
    ],
    ids=str,
)
def test_draws_follow_the_truncated_distribution(settings):
    rule = {"top_k": 0, "top_p": 1.0, "min_p": 0.0} | {k: v for k, v in settings.items() if k != "temperature"}
    logits = jnp.tile(jnp.asarray(LOGITS, jnp.float32), (DRAWS, 1))
    keys = jax.random.split(jax.random.key(0), DRAWS)
    tokens = sample_tokens(keys, logits, rules(**settings), candidates=candidate_count(len(LOGITS), **rule))
    share = np.bincount(np.asarray(tokens), minlength=len(LOGITS)) / DRAWS
    wanted = expected(**settings)
    assert not share[wanted == 0].any()
    # 4.5 standard errors of a binomial share: a wrong rule moves a share by far more
    assert np.all(np.abs(share - wanted) <= 4.5 * np.sqrt(wanted * (1 - wanted) / DRAWS))


def test_temperature_zero_is_greedy_with_and_without_ranking():
    logits = jnp.tile(jnp.asarray(LOGITS, jnp.float32), (DRAWS, 1))
    keys = jax.random.split(jax.random.key(0), DRAWS)
    for candidates in (0, 3):
        assert np.all(sample_tokens(keys, logits, rules(temperature=0.0), candidates=candidates) == 1)


def test_rows_follow_their_own_rules():
    logits = jnp.tile(jnp.asarray(LOGITS, jnp.float32), (2, 1))
    mixed = SamplingRules(jnp.array([0.0, 1.0]), jnp.array([0, 1]), jnp.array([1.0, 1.0]), jnp.zeros(2))
    keys = jax.random.split(jax.random.key(3), 2)
    assert sample_tokens(keys, logits, mixed, candidates=7).tolist() == [1, 1]


def test_candidate_count():
    assert candidate_count(100, top_k=0, top_p=1.0, min_p=0.0) == 0
    assert candidate_count(100, top_k=20, top_p=0.95, min_p=0.0) == 20
    assert candidate_count(10, top_k=20, top_p=1.0, min_p=0.0) == 10
    assert candidate_count(100, top_k=0, top_p=0.95, min_p=0.0) == 100
