"""A short campaign of faults: ten trials in this process, in which nothing races with a clock."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import faults
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


def test_ten_trials_end_as_they_must(tmp_path: Path):
    start: Any = Ended
    commands = ("train, LoRA", "evaluate", "sample")
    ends = [*faults.campaign(tmp_path, 3, 10, ("damage", "damage", "changed"), start, commands)]
    assert [end for *_, end, _ in ends if end.startswith("FAILED")] == []
    assert {fault for fault, *_ in ends} == {"damage", "changed"}


def test_a_verdict_can_fail(tmp_path: Path):
    trial = faults.prepare(tmp_path / "trial", "sample", lambda *_, **__: None)  # pyright: ignore
    for output, code, failure in (
        ("Traceback (most recent call last):\n", 1, "a traceback"),
        ("error: no\n", 2, "the refusal names no file"),
        (f"error: {trial.folder} is broken\n", 2, "the refusal has no remedy"),
        ("done\n", 0, "another, and nothing says so"),
    ):
        trial.output = output
        with pytest.raises(AssertionError, match=failure):
            faults.verdict(trial, code, {"c.jsonl": ["{}"]})
    (trial.run / faults.STRANGER).unlink()
    trial.output = "done\n"
    with pytest.raises(OSError, match=faults.STRANGER):
        faults.verdict(trial, 0, {})
