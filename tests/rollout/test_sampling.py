"""Sampling rules against a NumPy restatement of what each one leaves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egrsd_jax.rollout.sampling import SamplingRules, sample_tokens

FEW = np.log(np.array([0.02, 0.30, 0.05, 0.25, 0.20, 0.10, 0.08]))
MANY = 0.7 * np.random.default_rng(0).standard_normal(
    2500
)  # so flat that rules reach beyond the tokens that are ranked
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


def expected(logits, *, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0) -> np.ndarray:
    """The distribution that the rules leave, in the order in which transformers applies them."""
    probability = np.exp(logits / temperature)
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
    ("logits", "settings"),
    [
        (FEW, {}),
        (FEW, {"temperature": 1.7}),
        (FEW, {"temperature": 0.5, "top_k": 3}),
        (FEW, {"top_p": 0.7}),
        (FEW, {"top_k": 5, "top_p": 0.6}),
        (FEW, {"min_p": 0.3}),
        (FEW, {"temperature": 1.3, "top_k": 6, "top_p": 0.9, "min_p": 0.2}),
        pytest.param(MANY, {}, marks=pytest.mark.slow),
        (MANY, {"temperature": 0.7, "top_k": 20}),
        pytest.param(MANY, {"top_k": 100}, marks=pytest.mark.slow),
        pytest.param(MANY, {"top_p": 0.1}, marks=pytest.mark.slow),
        pytest.param(MANY, {"top_p": 0.6}, marks=pytest.mark.slow),
        pytest.param(MANY, {"min_p": 0.9}, marks=pytest.mark.slow),
        pytest.param(MANY, {"min_p": 0.2}, marks=pytest.mark.slow),
        pytest.param(MANY, {"temperature": 1.3, "top_k": 500, "top_p": 0.7, "min_p": 0.1}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_draws_follow_the_truncated_distribution(logits, settings):
    rows = jnp.tile(jnp.asarray(logits, jnp.float32), (DRAWS, 1))
    tokens = sample_tokens(jax.random.split(jax.random.key(0), DRAWS), rows, rules(**settings))
    drawn = np.bincount(np.asarray(tokens), minlength=len(logits))
    wanted = DRAWS * expected(logits, **settings)
    assert not drawn[wanted == 0].any()
    for size in (1, 10, 100):  # single tokens, and neighbours together: a wrong rule moves a share by far more
        starts = np.arange(0, len(logits), size)
        share, chance = (np.add.reduceat(counts, starts) / DRAWS for counts in (drawn, wanted))
        assert np.all(np.abs(share - chance) <= 5 * np.sqrt(chance * np.maximum(1 - chance, 0) / DRAWS) + 3 / DRAWS)


def test_what_a_row_draws_does_not_depend_on_the_rules_beside_it():
    """Rows that are ranked, rows that reach further and rows without a limit, alone and side by side."""
    keys = jax.random.split(jax.random.key(1), 6)
    logits = jnp.asarray(np.random.default_rng(1).standard_normal((6, 2500)), jnp.float32)
    mixed = SamplingRules(
        jnp.array([1.0, 0.0, 1.2, 1.0, 0.8, 1.0]),
        jnp.array([0, 0, 20, 300, 0, 0]),
        jnp.array([1.0, 1.0, 0.9, 1.0, 0.5, 0.9]),
        jnp.array([0.0, 0.0, 0.0, 0.0, 0.5, 0.0]),
    )
    together = sample_tokens(keys, logits, mixed)
    alone = [
        sample_tokens(keys[row : row + 1], logits[row : row + 1], jax.tree.map(lambda rule: rule[row : row + 1], mixed))  # noqa: B023
        for row in range(6)
    ]
    assert together.tolist() == [int(token[0]) for token in alone]


def test_a_token_of_no_probability_is_never_drawn():
    logits = jnp.full((DRAWS, 600), -jnp.inf).at[:, 300].set(0.0)
    tokens = sample_tokens(jax.random.split(jax.random.key(0), DRAWS), logits, rules())
    assert np.all(tokens == 300)


@pytest.mark.parametrize("logits", [FEW, MANY], ids=["few", "many"])
def test_temperature_zero_is_greedy(logits):
    rows = jnp.tile(jnp.asarray(logits, jnp.float32), (DRAWS, 1))
    tokens = sample_tokens(jax.random.split(jax.random.key(0), DRAWS), rows, rules(temperature=0.0))
    assert np.all(tokens == np.argmax(logits))
