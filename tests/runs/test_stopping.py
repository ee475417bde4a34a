"""Signals, each at a point of the program and not at a time: what is stopped says so in one line."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from egrsd_jax.runs import lock
from tests.commands import ROOT

BEGIN = """
import os, signal, sys, threading
from pathlib import Path
from egrsd_jax.runs import lock, stopping
def send(name):
    os.kill(os.getpid(), getattr(signal, name))
def heard():
    while not stopping.stopping():
        threading.Event().wait(0.001)
def for_ever():
    threading.Event().wait()
with stopping.listening("the same command starts again"):
"""
AT_IMPORT = """
import os, runpy, signal, sys, threading
class At:
    def find_spec(self, name, *_):
        if name == {module!r}:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), {number})
            threading.Event().wait()
sys.meta_path.insert(0, At())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(*command: str) -> tuple[int, str]:
    """The exit code and what was printed, of a process that has to end by itself."""
    ended = subprocess.run([sys.executable, "-c", *command], capture_output=True, text=True, timeout=300, check=False)
    return ended.returncode, ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("body", "code", "says"),
    [
        ('send("SIGINT"); for_ever()', 130, "stopped; the same command starts again"),
        ('stopping.stops_within(1000, "it resumes"); send("SIGTERM"); heard(); stopping.check()', 143, None),
        ('stopping.stops_within(0, "it resumes"); send("SIGTERM"); for_ever()', 143, "stopped; it resumes"),
        (
            'stopping.SECOND = 0; stopping.stops_within(1000, "it resumes"); send("SIGINT"); heard(); send("SIGTERM"); '
            "for_ever()",
            143,
            "stopped; it resumes",
        ),
    ],
    ids=["nothing to save", "in order", "the grace is over", "a second one"],
)
def test_a_signal_ends_a_command(body, code, says):
    ended = "except stopping.Stopped as stop: sys.exit(stop.code)"
    ends_with, printed = run(f"{BEGIN}    try: {body}\n    {ended}\n")
    assert ends_with == code
    assert printed.strip() == (says or "")


def test_what_a_signal_ends_at_once_lets_go_of_its_locks(tmp_path):
    assert run(f'{BEGIN}    lock.hold(Path({str(tmp_path)!r})); send("SIGTERM"); for_ever()\n')[0] == 143
    assert list(tmp_path.iterdir()) == []
    assert lock.holder(tmp_path) is None


@pytest.mark.parametrize(
    ("module", "number"),
    [("egrsd_jax.cli.train", signal.SIGINT), ("jax", signal.SIGTERM), ("orbax.checkpoint", signal.SIGINT)],
)
def test_a_command_that_only_begins_ends_in_one_line(module, number, tmp_path):
    code, printed = run(
        AT_IMPORT.format(module=module, number=int(number)),
        str(ROOT / "launch/train.py"),
        f"--run.dir={tmp_path}",
    )
    assert code == 128 + number
    assert printed.strip() == (
        "stopped; the same command resumes from the newest checkpoint, or starts again where there is none"
    )
    assert [*Path(tmp_path).iterdir()] == []
