"""Locks: one holder at a time, and a dead one is taken over."""

import errno
import json
import os
import subprocess
import sys
import time

import pytest

from egrsd_jax.runs import lock as lock_module
from egrsd_jax.runs.files import NotWritten, read_rows
from egrsd_jax.runs.lock import (
    HEARTBEAT_SECONDS,
    STALE_SECONDS,
    FolderGone,
    Locked,
    check_free,
    check_held,
    held,
    hold,
    holder,
    release_all,
    take,
)
from egrsd_jax.runs.rows import append_rows, write_checked


@pytest.fixture
def dead() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def lock_of(folder, number: int = 0, *, age: float = 0.0, **said) -> None:
    """A lock that somebody else made."""
    folder.mkdir(exist_ok=True)
    file = folder / f"lock{number}.json"
    file.write_text(json.dumps({"host": "there", "machine": "there", "pid": 1, **said}))
    os.utime(file, (time.time() - age,) * 2)


def here(folder, **said) -> dict:
    """What a lock of this machine says."""
    lock = take(folder / "probe")
    assert lock is not None
    content = json.loads(next((folder / "probe").glob("lock*")).read_bytes())
    lock.release()
    return {**content, **said}


def test_a_lock_is_taken_once_and_can_be_given_back(tmp_path):
    cell = tmp_path / "cell"
    lock = take(cell)
    assert lock is not None
    assert take(cell) is None
    who = holder(cell)
    assert who is not None
    assert who.startswith(f"{os.uname().nodename}, process {os.getpid()}, since 2")
    lock.release()
    assert holder(cell) is None
    assert list(cell.iterdir()) == []
    assert take(cell) is not None


def test_the_lock_of_a_dead_process_of_this_machine_is_taken_over_at_once(tmp_path, dead):
    cell = tmp_path / "cell"
    lock_of(cell, **here(tmp_path, pid=dead))
    assert holder(cell) is None
    lock = take(cell)
    assert lock is not None
    assert holder(cell) is not None
    lock.release()
    assert list(cell.iterdir()) == []


def test_a_child_that_outlives_its_parent_keeps_the_lock(tmp_path, dead):
    lock_of(tmp_path / "cell", age=2 * STALE_SECONDS, **here(tmp_path, pid=dead, child=os.getpid()))
    assert take(tmp_path / "cell") is None


def test_a_process_that_ended_and_was_not_asked_how_is_dead(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    time.sleep(0.5)  # it ends, and stays in the table of processes until `wait`
    lock_of(tmp_path / "cell", **here(tmp_path, pid=process.pid, began=None))
    try:
        assert take(tmp_path / "cell") is not None
    finally:
        process.wait()


@pytest.mark.parametrize(("age", "taken"), [(STALE_SECONDS - 60, False), (STALE_SECONDS + 60, True)])
def test_another_hosts_lock_lives_as_long_as_its_heartbeat(tmp_path, age, taken):
    lock_of(tmp_path / "cell", age=age)
    assert (take(tmp_path / "cell") is not None) == taken


def test_who_lost_a_lock_is_told_at_the_next_heartbeat(tmp_path, monkeypatch):
    lock = take(tmp_path / "cell")
    assert lock is not None
    assert lock.beat()
    lock_of(tmp_path / "cell", 1)
    assert lock.beat()  # it looks only now and then
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 2 * HEARTBEAT_SECONDS)
    assert not lock.beat()


def test_of_many_processes_one_gets_the_lock_of_a_dead_one(tmp_path, dead):
    cell = tmp_path / "cell"
    lock_of(cell, **here(tmp_path, pid=dead))
    code = (
        "import sys, time; from pathlib import Path; from egrsd_jax.runs.lock import take; "
        f"taken = take(Path({str(cell)!r})); print(int(taken is not None), flush=True); sys.stdin.read()"
    )
    racing = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    assert sum(int(process.stdout.readline()) for process in racing) == 1
    for process in racing:
        process.communicate("")


def test_a_process_that_got_the_number_of_a_dead_one_is_not_its_holder(tmp_path):
    lock_of(tmp_path / "cell", **here(tmp_path, began="1"))
    assert take(tmp_path / "cell") is not None


def test_a_lock_that_a_kill_left_empty_is_dead_after_a_moment(tmp_path):
    file = tmp_path / "lock0.json"
    file.touch()
    assert take(tmp_path) is None
    os.utime(file, (time.time() - 10,) * 2)
    assert take(tmp_path) is not None


def test_what_another_process_holds_is_refused_by_name_and_free_when_it_is_dead(tmp_path):
    code = (
        "import sys; from pathlib import Path; from egrsd_jax.runs.lock import hold; "
        f"hold(Path({str(tmp_path)!r})); print('held', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        for refuse in (hold, check_free):
            with pytest.raises(Locked, match=f"is being written by .*, process {other.pid}, since .*; wait for it"):
                refuse(tmp_path)
    finally:
        other.kill()
        other.communicate()
    hold(tmp_path)
    hold(tmp_path)  # it is this process's own
    check_free(tmp_path)
    release_all()
    assert list(tmp_path.iterdir()) == []


def test_a_holder_that_was_taken_for_dead_writes_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr(lock_module, "_lost", [tmp_path])
    with pytest.raises(Locked, match="is written by another process now"):
        check_held()
    release_all()
    check_held()


@pytest.mark.parametrize("in_its_place", [False, True])
def test_what_was_moved_or_is_away_with_its_disk_is_written_no_more(in_its_place, tmp_path):
    folder, away = tmp_path / "run", tmp_path / "away"
    gone = f"^{folder} is no longer the folder that this command writes: .*: bring it back"
    block = held(folder)
    block.__enter__()
    append_rows(folder / "rows.jsonl", [{"step": 0}])
    folder.rename(away)
    if in_its_place:  # as under a disk that was unmounted
        folder.mkdir()
    with pytest.raises(FolderGone, match=gone):
        append_rows(folder / "rows.jsonl", [{"step": 1}])
    with pytest.raises(FolderGone, match=gone):
        write_checked(folder / "evaluation.json", {})
    with pytest.raises(FolderGone, match=gone):
        block.__exit__(None, None, None)
    assert not folder.exists() or list(folder.iterdir()) == []
    assert read_rows(away / "rows.jsonl") == [{"step": 0}]
    check_held()


def test_a_lock_that_is_away_is_not_lost_to_another_process(tmp_path, monkeypatch):
    lock = take(tmp_path / "cell")
    assert lock is not None
    (tmp_path / "cell").rename(tmp_path / "away")
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 2 * HEARTBEAT_SECONDS)
    assert lock.beat()
    assert not lock.is_there()


def test_a_lock_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    def is_full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(json, "dump", is_full)
    with pytest.raises(NotWritten, match=f"No space left on device: '{tmp_path}/lock0.json'"):
        take(tmp_path)
    assert list(tmp_path.iterdir()) == []
