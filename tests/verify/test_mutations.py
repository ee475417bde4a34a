r"""Mutants of the golds of six sets: one token changed, and what differs as mathematics must not be accepted.

`accepted_mutants.jsonl` lists every mutant that is accepted, with the argument why it is the same answer.
"""

import json
from pathlib import Path

import pytest

from egrsd_jax.verify.pool import GradingPool, Outcome
from tests.verify.mutations import mutants
from tests.verify.test_grade import golds

ACCEPTED = [json.loads(line) for line in (Path(__file__).parent / "accepted_mutants.jsonl").read_text().splitlines()]
STRIDE = 9  # of the quick version


def mutated(shared_data):
    """Every mutant of every gold, with its gold, each once."""
    texts = dict.fromkeys(str(gold) for _, gold in golds(shared_data))
    return [(mutant, gold) for gold in texts for mutant in mutants(gold)]


def unargued(pairs):
    """The pairs that are accepted without an argument."""
    argued = {(row["mutant"], row["gold"]) for row in ACCEPTED}
    with GradingPool(workers=2) as pool:
        verdicts = pool.grade_many(pairs)
    outcomes = [verdict.outcome for verdict in verdicts]
    assert outcomes.count(Outcome.WRONG) > 0.85 * len(pairs)  # most can be read, and are different
    return [
        pair for pair, outcome in zip(pairs, outcomes, strict=True) if outcome is Outcome.CORRECT and pair not in argued
    ]


@pytest.mark.slow
def test_every_ninth_mutant_that_is_accepted_is_argued(shared_data):
    assert unargued(mutated(shared_data)[::STRIDE]) == []


@pytest.mark.slow
def test_every_mutant_that_is_accepted_is_argued(shared_data):
    pairs = mutated(shared_data)
    assert len(pairs) > 10_000
    assert unargued(pairs) == []


def test_every_argument_is_one():
    assert all(len(row["argument"]) > 10 for row in ACCEPTED)
    assert len({(row["mutant"], row["gold"]) for row in ACCEPTED}) == len(ACCEPTED)


def test_mutants_change_one_token_each():
    assert set(mutants("2x")) == {"3x", "7x", "20x", "x", "2y", "2X", "2x_{9}", "2"}
    assert r"\cos 2" in {mutant.replace("  ", " ") for mutant in mutants(r"\sin 2")}
    assert all("ma" in mutant for mutant in mutants(r"\text{max}+1"))
