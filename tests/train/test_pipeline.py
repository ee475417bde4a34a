"""Rollouts one step ahead: which weights sample which step, concurrently or in turn, stopped and resumed."""

import threading
from concurrent.futures import wait
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from egrsd_jax.command_line import parse_config
from egrsd_jax.config import Config, LoraSettings, RolloutSettings, TrainSettings, binding
from egrsd_jax.data.problems import Problem
from egrsd_jax.data.prompts import EncodedProblems
from egrsd_jax.objective.methods import method_settings
from egrsd_jax.objective.reward import init_moments
from egrsd_jax.rollout.grading import Grader
from egrsd_jax.rollout.requests import Completion
from egrsd_jax.runs.files import read_rows
from egrsd_jax.train import loop, pipeline
from egrsd_jax.train.pipeline import Pipeline
from egrsd_jax.train.state import TrainState, next_older
from egrsd_jax.verify.pool import GradingPool

STEPS = 6


class Letters:
    def decode(self, tokens: list[int], *, skip_special_tokens: bool) -> str:
        return "".join(map(chr, tokens))


class Recording:
    """An engine elsewhere that remembers which weights sampled which keys; `gates` hold up the nth call."""

    def __init__(self, gates: dict[int, threading.Event] | None = None, fails: int | None = None):
        self.weights, self.asked, self._gates, self._fails = None, [], gates or {}, fails
        self.threads = set()

    def update_params(self, params, lora=None) -> int:
        self.weights = float(np.asarray(params["weights"]))
        return 1

    def generate(self, requests):
        call, weights = len(self.asked), self.weights
        self.asked.append((weights, [tuple(request.key.tolist()) for request in requests]))
        self.threads.add(threading.current_thread().name)
        if call in self._gates:
            assert self._gates[call].wait(60)
        if call == self._fails:
            raise ConnectionError("the server is gone")
        for number, _ in enumerate(requests):
            yield number, Completion([ord("1")], np.zeros(1, np.float32), "stop")


def run_with(engine: Recording, ahead: int) -> SimpleNamespace:
    config = Config(
        lora=LoraSettings(rank=0),
        rollout=RolloutSettings(max_new_tokens=8, samples_per_problem=2, ahead=ahead),
        train=TrainSettings(batch_size=4, steps=STEPS),
    )
    problems = [Problem(str(n), f"problem {n}", "1", "1") for n in range(5)]
    encoded = EncodedProblems(problems, [[n] for n in range(5)], [[n] for n in range(5)], [])
    return SimpleNamespace(config=config, base={}, engine=engine, tokenizer=Letters(), problems=encoded, stored=None)


def state_of(ahead: int) -> TrainState:
    """Weights that hold the number of steps that made them."""
    key = jax.random.key_data(jax.random.key(0))
    weights = [{"weights": jnp.array(0.0)} for _ in range(ahead + 1)]
    return TrainState(weights[0], (), {}, init_moments(), jnp.int32(0), jnp.int32(0), key, tuple(weights[1:]))


def after_a_step(state: TrainState) -> TrainState:
    older = next_older(state)
    trained = {"weights": state.trainable["weights"] + 1}
    state.trainable["weights"].delete()  # as a step that donates it
    return state._replace(trainable=trained, step=state.step + 1, position=state.position + 2, older=older)


def steps_of(ahead: int, *, concurrent: bool, resumed_at: int | None = None):
    """The rollouts of a run, and what its engines were asked for; from a step on by another process."""
    engines, rollouts, state = [], [], state_of(ahead)
    with GradingPool(1) as pool:
        grader = Grader(Letters(), pool)  # pyright: ignore[reportArgumentType]
        for step in range(STEPS):
            if step in (0, resumed_at):
                engines.append(Recording())
                rest = Pipeline(run_with(engines[-1], ahead), grader, concurrent=concurrent)  # pyright: ignore
            rollouts.append(rest.rollout(state))
            state = after_a_step(state)
    return rollouts, engines


def versions(engine: Recording) -> list[float]:
    return [weights for weights, _ in engine.asked]


@pytest.mark.parametrize("ahead", [0, 1, 2])
@pytest.mark.parametrize("concurrent", [False, True])
def test_a_step_is_sampled_by_the_weights_of_so_many_steps_before(ahead, concurrent):
    rollouts, [engine] = steps_of(ahead, concurrent=concurrent)
    expected = [max(0, step - ahead) for step in range(STEPS)]
    assert versions(engine) == expected
    assert [rollout.version for rollout in rollouts] == expected
    assert [rollout.age for rollout in rollouts] == [min(step, ahead) for step in range(STEPS)]
    assert engine.threads == ({"sampling"} if ahead and concurrent else {"MainThread"})
    if ahead:
        assert [rollout.metrics["rollout_age"] for rollout in rollouts] == [rollout.age for rollout in rollouts]
    seconds = {"seconds_sampling", "seconds_grading"} if ahead and concurrent else set()
    assert {name for name in rollouts[0].metrics if name.startswith("seconds")} == seconds


@pytest.mark.parametrize("concurrent", [False, True])
def test_keys_and_problems_are_those_of_a_run_on_policy(concurrent):
    on_policy, ahead = steps_of(0, concurrent=False), steps_of(2, concurrent=concurrent)
    assert [keys for _, keys in ahead[1][0].asked] == [keys for _, keys in on_policy[1][0].asked]
    for one, other in zip(ahead[0], on_policy[0], strict=True):
        np.testing.assert_array_equal(one.problem, other.problem)
        np.testing.assert_array_equal(one.advantage, other.advantage)


def test_a_run_that_resumes_asks_again_for_what_was_on_its_way():
    whole, resumed = steps_of(2, concurrent=True), steps_of(2, concurrent=True, resumed_at=3)
    first, second = resumed[1]
    assert first.asked[:3] == whole[1][0].asked[:3]
    assert second.asked == whole[1][0].asked[3:]


def test_the_next_step_is_sampled_while_this_one_is_computed(monkeypatch):
    """Its completions end only when the first step's rollout was already handed out, and something waits for them."""
    gates = {1: threading.Event()}
    engine, state = Recording(gates), state_of(1)

    def opens_the_gate(futures):
        gates[1].set()
        return wait(futures)

    monkeypatch.setattr(pipeline, "wait", opens_the_gate)
    with GradingPool(1) as pool:
        rollouts = Pipeline(run_with(engine, 1), Grader(Letters(), pool), concurrent=True)  # pyright: ignore
        rollouts.rollout(state)
        assert not rollouts._pending[1].grades.done()  # pyright: ignore
        rollouts.finish_pending()
        assert rollouts._pending[1].grades.done()  # pyright: ignore
        assert versions(engine) == [0, 0]  # nothing is asked for before its weights are there
        ended = []
        rollouts.rollout(after_a_step(state), on_completion=ended.append)
        assert len(ended) == 4


def test_what_sampling_raises_reaches_the_step_that_needs_it():
    engine, state = Recording(fails=1), state_of(1)
    with GradingPool(1) as pool:
        rollouts = Pipeline(run_with(engine, 1), Grader(Letters(), pool), concurrent=True)  # pyright: ignore
        rollouts.rollout(state)
        with pytest.raises(ConnectionError, match="the server is gone"):
            rollouts.rollout(after_a_step(state))
        rollouts.close()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": method_settings("gates")}, "rollout.ahead is 1, and gates learns from completions that are not"),
        ({"method": method_settings("ssd")}, "rollout.ahead is 1, and ssd learns from completions that are not"),
        ({"method": method_settings("sdpo", ratio_cap=2.0)}, "set method.ratio_cap to 0, or method.importance to none"),
        ({"lora": LoraSettings(dropout=0.1)}, "set lora.dropout to 0, or method.importance to none"),
    ],
)
def test_what_cannot_be_sampled_ahead_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Config(rollout=RolloutSettings(ahead=1), **settings)


def test_methods_with_a_ratio_of_their_own_have_no_other():
    for name in ("grpo_group", "dr_grpo", "dapo", "eopd", "rlsd"):
        with pytest.raises(ValueError, match=rf"method.importance is token, and {name} has it fixed at none"):
            method_settings(name, importance="token")
        assert Config(method=method_settings(name), rollout=RolloutSettings(ahead=1)).method.importance == "none"


def test_a_checkpoint_on_policy_is_bound_to_what_earlier_versions_had():
    bound = binding(asdict(Config(method=method_settings("egrsd", importance="token"))))
    assert "ahead" not in bound["rollout"]
    assert not {"importance", "importance_cap"} & bound["method"].keys()
    bound = binding(asdict(Config(rollout=RolloutSettings(ahead=1))))
    assert (bound["rollout"]["ahead"], bound["method"]["importance"]) == (1, "sequence")


def options(folder: Path, name: str, steps: int) -> list[str]:
    return [
        f"--run.dir={folder}",
        f"--run.name={name}",
        "--run.track=none",
        f"--train.steps={steps}",
        "--lora.rank=4",
        "--rollout.ahead=2",
        "--rollout.max_new_tokens=16",
        "--evaluation.problems=4",
        "--evaluation.samples=1",
        "--evaluation.max_new_tokens=16",
        "--evaluation.every=3",
        "--train.batch_size=8",
        "--train.micro_batch_size=8",
        "--train.learning_rate=0.003",
        "--train.warmup_steps=0",
        "--train.sample_every=1",
        "--train.checkpoint_every=1",
        "--train.keep_best=0",
    ]


def trained(folder: Path, name: str, steps: int) -> Path:
    from egrsd_jax.train.setup import prepare

    loop.train(prepare(parse_config(options(folder, name, steps), program="train", description=None)))
    return folder / name


def final_state(run: Path, step: int):
    with ocp.training.Checkpointer(run / "checkpoints") as checkpoints:
        return checkpoints.load(step)


def logged(run: Path) -> list[dict]:
    rows = read_rows(run / "metrics.jsonl")
    return [
        {name: value for name, value in row.items() if not name.startswith(("seconds", "programs"))} for row in rows
    ]


@pytest.mark.slow
def test_concurrent_in_turn_and_resumed_runs_are_equal_to_the_bit(tmp_path, monkeypatch):
    whole = trained(tmp_path, "whole", 4)
    rows = logged(whole)
    assert [row["rollout_version"] for row in rows] == [0, 0, 0, 1]
    assert [row["rollout_age"] for row in rows] == [0, 1, 2, 2]
    assert all(row["sampler_logp_gap_max"] < 1e-4 for row in rows)  # of the version that sampled
    assert [row["importance_std"] > 0 for row in rows] == [False, True, True, True]
    samples = read_rows(whole / "samples.jsonl")
    assert {(row["step"], row["version"], row["age"]) for row in samples} == {
        (0, 0, 0),
        (1, 0, 1),
        (2, 0, 2),
        (3, 1, 2),
    }
    for row in samples:
        change = np.sum(np.subtract(row["student_logp"], row["version_logp"]))
        np.testing.assert_allclose(row["importance"], min(np.exp(change), 2) if row["step"] else 1, atol=1e-3)

    monkeypatch.setattr(pipeline, "Engine", type("NoEngine", (), {}))  # as if the engine were elsewhere
    trained(tmp_path, "concurrent", 2)
    concurrent = trained(tmp_path, "concurrent", 4)
    assert logged(concurrent) == rows
    assert (concurrent / "samples.jsonl").read_text() == (whole / "samples.jsonl").read_text()
    chex.assert_trees_all_equal(final_state(concurrent, 4), final_state(whole, 4))
    assert len(final_state(whole, 4)["older"]) == 2
