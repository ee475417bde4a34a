"""No two uses of random numbers share a key, over steps, problems, samples and rows; and no key is used another way.

They once did: a step's rollout and its update both derived `fold_in(run key, step)`. The update split it into the
control gate's and the dropout's key, the rollout folded problem numbers into it, and `split(key, 2)[i]` is
`fold_in(key, i)`: at step 0 the two keys were the parents of all samples of problems 0 and 1.
"""

import re
from itertools import product
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egrsd_jax.ops.keys import Use, key_for
from egrsd_jax.rollout.engine import sample_keys
from egrsd_jax.train.step import dropout_keys

ROOT = Path(__file__).resolve().parents[2]
STEPS, PROBLEMS, SAMPLES, COMPLETIONS, CHILDREN = 5, 40, 6, 64, 4
SEEDS = (0, 1, 7)

Words = set[tuple[int, ...]]


def words(keys) -> list[tuple[int, ...]]:
    """The raw data of every key of an array."""
    if jnp.issubdtype(keys.dtype, jax.dtypes.prng_key):
        keys = jax.random.key_data(keys)
    return [tuple(key) for key in np.asarray(keys).reshape(-1, np.shape(keys)[-1]).tolist()]


def children(keys: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """The first keys that are folded out of each: tokens of a completion, masks of a row."""
    fold = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)), (0, None))
    return words(fold(jax.random.wrap_key_data(jnp.array(keys, jnp.uint32)), jnp.arange(CHILDREN)))


def keys_of(seed: int) -> dict[str, list[tuple[int, ...]]]:
    """The keys of every use of a run with this seed, as the program makes them."""
    run_key = jax.random.key(seed)
    places = list(zip(*product(range(PROBLEMS), range(SAMPLES)), strict=True))
    numbered = list(range(PROBLEMS)), [0] * PROBLEMS

    def per_step(keys):
        return [word for step in range(STEPS) for word in words(keys(step))]

    return {
        "adapter": words(key_for(run_key, Use.ADAPTER)),
        "rollout": per_step(lambda step: sample_keys(key_for(run_key, Use.ROLLOUT, step), *places)),
        "control gate": per_step(lambda step: key_for(run_key, Use.CONTROL_GATE, step)),
        "dropout": per_step(lambda step: dropout_keys(run_key, jnp.int32(step), COMPLETIONS)),
        "evaluation": words(sample_keys(run_key, *places)),
        "analysis": words(sample_keys(key_for(run_key, Use.ANALYSIS), *numbered)),
        "branches": words(sample_keys(key_for(run_key, Use.BRANCHES), *numbered)),
        "resampling": words(key_for(run_key, Use.RESAMPLING)),
    }


def test_no_two_uses_share_a_key():
    keys = {(seed, use): found for seed in SEEDS for use, found in keys_of(seed).items()}
    folded = [found for (_, use), found in keys.items() if use in ("rollout", "dropout", "evaluation")]
    every = [word for found in keys.values() for word in found]
    every += [word for found in folded for word in children(found)]
    assert len(every) == len(set(every))
    assert len(every) > 20_000


def test_no_key_that_is_sampled_from_is_folded_too():
    """A parent's children are the bits that it would yield, so no parent may be a key of its own use."""
    for seed in SEEDS:
        run_key = jax.random.key(seed)
        evaluations = [word for number in range(PROBLEMS) for word in words(jax.random.fold_in(run_key, number))]
        steps = [
            word
            for use, step in product((Use.ROLLOUT, Use.DROPOUT), range(STEPS))
            for word in words(key_for(run_key, use, step))
        ]
        problems = [
            word
            for number in range(PROBLEMS)
            for word in (
                *(words(key_for(run_key, use, number))[0] for use in (Use.ANALYSIS, Use.BRANCHES)),
                *(words(key_for(run_key, Use.ROLLOUT, step, number))[0] for step in range(2)),
            )
        ]
        uses = [
            words(key_for(run_key, use))[0]
            for use in (Use.ROLLOUT, Use.CONTROL_GATE, Use.DROPOUT, Use.ANALYSIS, Use.BRANCHES)
        ]
        parents: Words = {*words(run_key), *evaluations, *steps, *problems, *uses}
        assert parents.isdisjoint(word for found in keys_of(seed).values() for word in found)


def test_the_earlier_scheme_shared_keys():
    """The two keys of the update were the parents of all samples of problems 0 and 1."""
    step_key = jax.random.fold_in(jax.random.key(3), 0)
    assert words(jax.random.split(step_key)) == [words(jax.random.fold_in(step_key, number))[0] for number in (0, 1)]


@pytest.mark.parametrize("use", Use)
def test_the_constants_are_beyond_any_number_of_problems_or_steps(use):
    assert 2**30 < use < 2**31


def test_keys_are_made_in_one_place():
    """Children of a given key aside (layers, tokens, a problem's samples), nothing folds or splits but `key_for`."""
    folding = {
        str(file.relative_to(ROOT / "egrsd_jax"))
        for file in (ROOT / "egrsd_jax").rglob("*.py")
        if re.search(r"random\.(fold_in|split)\b", file.read_text(encoding="utf-8"))
    }
    assert folding == {
        "ops/keys.py",
        "model/decoder.py",  # a layer's own initial weights
        "model/lora.py",  # a projection's own initial weights, and its dropout mask
        "rollout/engine.py",  # sample_keys
        "rollout/programs.py",  # a token's own key
    }
