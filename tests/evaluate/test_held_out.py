"""Metrics and standard errors of held-out evaluations, against plain formulas and simulation; and earlier files."""

import json

import jax
import numpy as np
import pytest

from egrsd_jax.config import EvaluationSettings
from egrsd_jax.evaluate.benchmarks import BENCHMARKS, load_benchmark
from egrsd_jax.evaluate.held_out import HeldOut, ProblemSet, problem_set, read_evaluations
from egrsd_jax.evaluate.scores import Scores, paired_difference
from egrsd_jax.rollout.requests import Sampling
from tests.evaluate.examples import held_out

# As versions before 0.2 wrote them: a run's evaluation, and the scores of a benchmark in results.json.
EARLIER_EVALUATION = """{
  "summary": {"accuracy": 0.5, "accuracy_error": 0.28, "length": 20.0, "length_error": 5.0, "cut_off": 0.25,
              "ungradable": 1},
  "correct": [[1, 0], [1, 1], [0, 0]], "length": [[10, 20], [30, 30], [5, 25]], "cut_off": 0.25, "ungradable": 1
}"""
EARLIER_SCORES = """{
  "benchmark": "set", "identity": "data", "problems": ["0", "1", "2"], "right": [[1, 0], [1, 1], [0, 0]],
  "tokens": [[10, 20], [30, 30], [5, 25]], "cut_off": 0.25, "ungradable": 1, "max_new_tokens": 96, "majority": null
}"""
RECORD = held_out([[1, 0], [1, 1], [0, 0]], [[10, 20], [30, 30], [5, 25]], cut_off=0.25, ungradable=1)


def test_metrics_of_a_record():
    assert RECORD.accuracy == pytest.approx(0.5)
    assert RECORD.mean_length == pytest.approx(20)
    assert RECORD.accuracy_error == pytest.approx(np.std([0.5, 1, 0], ddof=1) / np.sqrt(3))
    assert RECORD.length_error == pytest.approx(np.std([15, 30, 15], ddof=1) / np.sqrt(3))
    assert list(RECORD.summary()) == list(json.loads(EARLIER_EVALUATION)["summary"])
    counted = held_out(RECORD.correct, missing={"no box": 1, "cut off": 2}, ungradable=1)
    assert (counted.no_answer, counted.summary()["no_answer"], counted.ungradable_share) == (0.5, 0.5, 1 / 6)
    assert RECORD.no_answer is None


def test_a_record_is_read_as_it_was_written():
    assert Scores.from_json(json.loads(json.dumps(RECORD.to_json()))) == RECORD


def test_records_of_earlier_versions_are_read():
    assert Scores.from_json(json.loads(EARLIER_SCORES)) == RECORD
    unnamed = {"benchmark": "set", "identity": "data", "problems": ["0", "1", "2"], "max_new_tokens": 96}
    assert Scores.from_json(json.loads(EARLIER_EVALUATION), **unnamed) == RECORD
    with pytest.raises(ValueError, match=r"no scores of held-out problems: .*missing .*'benchmark'"):
        Scores.from_json(json.loads(EARLIER_EVALUATION))


def test_evaluations_of_a_run_are_named_by_its_settings(tmp_path):
    settings = EvaluationSettings(path="data/test.jsonl", split="dev", problems=3, max_new_tokens=96)
    of = problem_set(settings, 3)
    assert of == ProblemSet("test", "data/test.jsonl dev", ["0", "1", "2"])
    new = held_out(RECORD.correct, RECORD.tokens, **of._asdict())
    (tmp_path / "evaluation_step0.json").write_text(EARLIER_EVALUATION)
    (tmp_path / "evaluation_step10.json").write_text(json.dumps(new.to_json()))
    evaluations = read_evaluations(tmp_path, settings)
    assert list(evaluations) == [0, 10]
    assert evaluations[10] == new
    assert (evaluations[0].identity, evaluations[0].problems, evaluations[0].tokens) == (*of[1:], RECORD.tokens)
    (tmp_path / "evaluation_step10.json").write_text("{}")
    with pytest.raises(ValueError, match=r"no scores of held-out problems: .*missing"):
        read_evaluations(tmp_path, settings)


def test_a_built_in_task_is_the_benchmark_of_its_name():
    loaded = load_benchmark(BENCHMARKS["orders"])
    of = problem_set(EvaluationSettings(path="orders"), 20)
    assert of == ProblemSet("orders", loaded.hash, [problem.id for problem in loaded.problems[:20]])


def test_one_problem_is_refused_before_anything_is_sampled():
    with pytest.raises(ValueError, match="set has 1 held-out problem; accuracy needs at least 2"):
        HeldOut(ProblemSet("set", "data", ["0"]), [[1]], ["1"], 4, Sampling(), jax.random.key(0))


def test_standard_error_covers_what_it_should():
    """Over many sets of problems and samples the spread of the accuracy is what one evaluation says it is."""
    source = np.random.default_rng(0)
    accuracies, errors = [], []
    for _ in range(600):
        skill = source.beta(2, 1, 200)[:, None]
        record = held_out(source.random((200, 2)) < skill)
        accuracies.append(record.accuracy)
        errors.append(record.accuracy_error)
    assert np.mean(errors) == pytest.approx(np.std(accuracies), rel=0.1)  # 600 sets know a spread to 3%


def test_differences_are_paired():
    before = held_out([[0], [1], [0], [1]], [[40], [80], [20], [60]])
    after = held_out([[1], [1], [1], [1]], [[30], [70], [10], [50]])
    change = paired_difference(before, after)
    assert change["accuracy"] == pytest.approx(0.5)
    assert change["length"] == pytest.approx(-10)
    assert change["length_error"] == pytest.approx(0)  # every problem lost exactly 10 tokens
    assert change["accuracy_error"] == pytest.approx(np.std([1, 0, 1, 0], ddof=1) / 2)
