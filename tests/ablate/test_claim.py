"""Claims: one holder at a time, and a dead one is taken over."""

import json
import os
import subprocess
import sys
import time

import pytest

from egrsd_jax.ablate.claim import HEARTBEAT_SECONDS, STALE_SECONDS, holder, take


@pytest.fixture
def dead() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def claim_of(folder, number: int = 0, *, age: float = 0.0, **said) -> None:
    """A claim that somebody else made."""
    folder.mkdir(exist_ok=True)
    file = folder / f"claim{number}.json"
    file.write_text(json.dumps({"host": "there", "machine": "there", "pid": 1, **said}))
    os.utime(file, (time.time() - age,) * 2)


def here(folder, **said) -> dict:
    """What a claim of this machine says."""
    claim = take(folder / "probe")
    assert claim is not None
    content = json.loads(next((folder / "probe").glob("claim*")).read_bytes())
    claim.release()
    return {**content, **said}


def test_a_claim_is_taken_once_and_can_be_given_back(tmp_path):
    cell = tmp_path / "cell"
    claim = take(cell)
    assert claim is not None
    assert take(cell) is None
    assert holder(cell) == f"{os.uname().nodename}, process {os.getpid()}"
    claim.release()
    assert holder(cell) is None
    assert list(cell.iterdir()) == []
    assert take(cell) is not None


def test_the_claim_of_a_dead_process_of_this_machine_is_taken_over_at_once(tmp_path, dead):
    cell = tmp_path / "cell"
    claim_of(cell, **here(tmp_path, pid=dead))
    assert holder(cell) is None
    claim = take(cell)
    assert claim is not None
    assert holder(cell) is not None
    claim.release()
    assert list(cell.iterdir()) == []


def test_a_child_that_outlives_its_parent_keeps_the_claim(tmp_path, dead):
    claim_of(tmp_path / "cell", age=2 * STALE_SECONDS, **here(tmp_path, pid=dead, child=os.getpid()))
    assert take(tmp_path / "cell") is None


def test_a_process_that_ended_and_was_not_asked_how_is_dead(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    time.sleep(0.5)  # it ends, and stays in the table of processes until `wait`
    claim_of(tmp_path / "cell", **here(tmp_path, pid=process.pid))
    try:
        assert take(tmp_path / "cell") is not None
    finally:
        process.wait()


@pytest.mark.parametrize(("age", "taken"), [(STALE_SECONDS - 60, False), (STALE_SECONDS + 60, True)])
def test_another_hosts_claim_lives_as_long_as_its_heartbeat(tmp_path, age, taken):
    claim_of(tmp_path / "cell", age=age)
    assert (take(tmp_path / "cell") is not None) == taken


def test_who_lost_a_claim_is_told_at_the_next_heartbeat(tmp_path, monkeypatch):
    claim = take(tmp_path / "cell")
    assert claim is not None
    assert claim.beat()
    claim_of(tmp_path / "cell", 1)
    assert claim.beat()  # it looks only now and then
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 2 * HEARTBEAT_SECONDS)
    assert not claim.beat()


def test_of_many_processes_one_gets_the_claim_of_a_dead_one(tmp_path, dead):
    cell = tmp_path / "cell"
    claim_of(cell, **here(tmp_path, pid=dead))
    code = (
        "import sys, time; from pathlib import Path; from egrsd_jax.ablate.claim import take; "
        f"taken = take(Path({str(cell)!r})); print(int(taken is not None), flush=True); sys.stdin.read()"
    )
    racing = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    assert sum(int(process.stdout.readline()) for process in racing) == 1
    for process in racing:
        process.communicate("")
