"""Training that signals end, each at a point that the run comes to: in the middle of a checkpoint, and in an
evaluation, which like a rollout changes nothing that is kept. The same commands come to the same end."""

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import chex
import pytest
from orbax.checkpoint import v1 as ocp

from egrsd_jax.cli.main import main
from egrsd_jax.evaluate.held_out import HeldOut
from egrsd_jax.runs import checksums, stopping
from tests.train.test_run import metrics

pytestmark = pytest.mark.slow
STEPS = 2
SMALL = (
    f"--train.steps={STEPS}",
    "--train.batch_size=8",
    "--train.checkpoint_every=1",
    "--rollout.samples_per_problem=4",
    "--rollout.max_new_tokens=16",
    "--lora.rank=4",
    "--evaluation.problems=8",
    "--evaluation.samples=1",
    "--evaluation.max_new_tokens=16",
    "--evaluation.every=1",
)


def train(folder: Path) -> None:
    main(["train", *SMALL, f"--run.dir={folder.parent}", f"--run.name={folder.name}"], program="train.py")


def final_state(folder: Path) -> Any:
    with ocp.training.Checkpointer(folder / "checkpoints") as checkpoints:
        return checkpoints.load(STEPS)


def stopped(folder: Path, code: int, capsys) -> str:
    """The last line of a training that a signal ends."""
    with pytest.raises(SystemExit) as stop:
        train(folder)
    assert stop.value.code == code
    return capsys.readouterr().err.splitlines()[-1]


def sends(number: signal.Signals, work: Any, *, at: int, ends_there: bool) -> Any:
    """`work`, whose call number `at` sends a signal to this process first, and is never done where it `ends_there`."""
    calls = []

    def and_sends(*arguments: Any, **more: Any) -> Any:
        calls.append(1)
        if len(calls) == at:
            os.kill(os.getpid(), number)
            if ends_there:
                threading.Event().wait(300)
                raise AssertionError("the signal ended nothing")
            while not stopping.stopping():
                time.sleep(0.001)
        return work(*arguments, **more)

    return and_sends


def test_signals_in_a_checkpoint_and_in_an_evaluation_change_no_number(tmp_path, monkeypatch, capsys):
    whole, folder = tmp_path / "whole", tmp_path / "stopped"
    train(whole)

    with monkeypatch.context() as patch:
        patch.setattr(checksums, "record", sends(signal.SIGTERM, checksums.record, at=1, ends_there=False))
        said = stopped(folder, 143, capsys)
    assert said == "stopped; the same command resumes from the checkpoint of step 1"
    assert checksums.checkpoint_steps(folder / "checkpoints") == [1]
    assert checksums.damage(folder / "checkpoints", 1) is None

    with monkeypatch.context() as patch:  # the evaluation of step 1 is the first that is made
        patch.setattr(HeldOut, "evaluate", sends(signal.SIGINT, HeldOut.evaluate, at=2, ends_there=True))
        said = stopped(folder, 130, capsys)
    assert said == "stopped; the same command resumes from the checkpoint of step 2"
    assert not (folder / "evaluation_step2.json").exists()

    assert len(metrics(folder)) == 2
    assert list(folder.glob("lock*")) == []

    train(folder)
    assert metrics(folder) == metrics(whole)
    for step in range(STEPS + 1):
        ours, theirs = (json.loads((run / f"evaluation_step{step}.json").read_text()) for run in (folder, whole))
        assert ours == theirs
    chex.assert_trees_all_equal(final_state(folder), final_state(whole))
