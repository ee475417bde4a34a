"""A short campaign of faults: ten trials in this process, in which nothing races with a clock."""

import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import fault_kinds, fault_trial, faults
from egrsd_jax.cli.main import main

pytestmark = pytest.mark.slow


class Ended:
    """A command that ran in this process, as a process that has ended."""

    def __init__(self, arguments: Sequence[str], *, stdout: Any, **_: Any):
        self.code = 0
        with contextlib.redirect_stdout(open(stdout.fileno(), "w", closefd=False)) as output:
            with contextlib.redirect_stderr(output):
                try:
                    main(arguments, program=f"egrsd {arguments[0]}")
                except SystemExit as end:
                    self.code = int(end.code or 0)
            output.flush()

    def wait(self, _: float) -> int:
        return self.code

    def poll(self) -> int:
        return self.code

    def send_signal(self, _: int) -> None:
        """It has ended."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a campaign: what commands leave where nothing happens to them is made once."""
    return tmp_path_factory.mktemp("faults")


def test_ten_trials_end_as_they_must(folder: Path):
    start: Any = Ended
    planned = faults.plan(10, ("damage", "damage", "changed"), ("train, LoRA", "evaluate", "sample"))
    ends = [*faults.campaign(folder, 3, planned, start, mounts=False)]
    assert [trial.end for trial in ends if trial.end.startswith("FAILED")] == []
    assert {trial.planned.fault for trial in ends} == {"damage", "changed"}
    assert {trial.planned.command for trial in ends} == {"train, LoRA", "evaluate", "sample"}


def test_what_comes_after_lost_rows_and_a_damaged_evaluation_is_the_same(folder: Path):
    """Limits and averages of the probes, alarms, and the best checkpoints do not depend on these files."""
    start: Any = Ended
    wanted = faults._reference(folder, "train, LoRA", start)
    trial = faults.prepare(folder / "trial", "train, LoRA", start)
    trial.arguments.append("--train.steps=2")
    assert trial.finish() == 0, trial.output
    trial.arguments.pop()
    (trial.run / "probes.jsonl").unlink()
    evaluation = trial.run / "evaluation_step0.json"
    evaluation.write_bytes(evaluation.read_bytes().replace(b"16.0", b"17.0", 1))
    code = trial.finish()
    with pytest.raises(AssertionError, match=r"probes\.jsonl is another, and nothing was done to it"):
        faults.verdict(trial, code, wanted)
    trial.damaged, trial.may_lose = "probes.jsonl", 1
    with pytest.raises(AssertionError, match=r"probes\.jsonl has lost 2 rows, and 1 could be damaged"):
        faults.verdict(trial, code, wanted)
    trial.may_lose = 2
    assert faults.verdict(trial, code, wanted) == "named"
    printed = " ".join(trial.output.split())
    for line in (
        "probes.jsonl is gone; its rows stay missing",
        "evaluation_step0.json is not what was written: its checksum is another; it is kept as",
        "evaluation_step0.json is written again, from the checkpoint",
    ):
        assert line in printed


def test_every_fault_comes_to_every_command_and_the_beginning_has_some_of_each():
    planned = faults.plan(60, faults.ORDER, [*fault_trial.COMMANDS])
    pairs = {(trial.fault, trial.command) for trial in planned}
    assert len(pairs) == len(fault_kinds.faults(mounts=True)) * len(fault_trial.COMMANDS)
    assert {trial.fault for trial in planned[:12]} == set(fault_kinds.faults(mounts=True))
    assert {trial.command for trial in planned[:5]} == set(fault_trial.COMMANDS)
    damaged = [trial.turn for trial in planned if trial.fault == "damage"]
    assert damaged == [*range(len(damaged))]
    assert faults.plan(12, faults.ORDER, [*fault_trial.COMMANDS]) == planned[:12]


def test_where_nothing_can_be_mounted_permissions_make_a_folder_read_only_if_they_bind(monkeypatch):
    for allowed in (True, False):
        monkeypatch.setattr(fault_kinds.os, "access", lambda *_, allowed=allowed: allowed)
        assert ("read-only disk" in fault_kinds.faults(mounts=False)) is not allowed


def test_a_campaign_that_was_stopped_goes_on_where_it_was(tmp_path: Path, monkeypatch, capsys):
    start: Any = Ended
    monkeypatch.setattr(faults, "starter", lambda _: start)

    def piece(trials: int, *more: str) -> tuple[int, str]:
        options = ["--only", "damage", "--commands", "sample", f"--folder={tmp_path}", f"--trials={trials}", *more]
        monkeypatch.setattr(sys, "argv", ["faults.py", *options])
        with pytest.raises(SystemExit) as end:
            faults.main()
        return int(end.value.code or 0), capsys.readouterr().out

    assert "\n0 of 2 trials" in piece(2, "--minutes=0")[1]
    assert "\n1 of 1 trials" in piece(1)[1]
    code, printed = piece(2)
    assert code == 0
    assert not printed.startswith("   0 ")
    assert "| damage | 2 |" in printed
    results = tmp_path / "results.jsonl"
    assert [json.loads(line)["number"] for line in results.read_text().splitlines()] == [0, 1]
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    rows[1]["end"] = "FAILED: on purpose"
    results.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert piece(2)[0] == 1
    code, printed = piece(2, "--again")
    assert (code, printed.startswith("   1 ")) == (0, True)
    assert piece(2, "--seed=1")[0] == 2


def test_a_verdict_can_fail(tmp_path: Path):
    trial = faults.prepare(tmp_path / "trial", "sample", lambda *_, **__: None)  # pyright: ignore
    trial.codes.append(2)
    trial.damaged = "c.jsonl"
    for output, code, failure in (
        ("Traceback (most recent call last):\n", 1, "a traceback"),
        ("error: no\n", 2, "the refusal names no file"),
        (f"error: {trial.folder} is broken\n", 2, "the refusal has no remedy"),
        ("done\n", 0, "another, and nothing says so"),
    ):
        trial.output = output
        with pytest.raises(AssertionError, match=failure):
            faults.verdict(trial, code, {"c.jsonl": ["{}"]})
    (trial.run / fault_trial.STRANGER).unlink()
    trial.output = "done\n"
    with pytest.raises(OSError, match=fault_trial.STRANGER):
        faults.verdict(trial, 0, {})
