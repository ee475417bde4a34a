"""One writer at a time: a file that only one process can create, and that expires with its process. Imports no jax.

Locks are numbered. One whose holder is dead is taken over by creating the next number, which again only one process
can do; no lock is ever removed by anyone but its holder or the one that came after it.

It asks of the file system that a file can be created exclusively, as local disks, NFS from version 3, Lustre, GPFS and
CephFS do. Mounted object stores (gcsfuse, s3fs) do not promise that between hosts: there, only processes of one machine
are kept apart.
"""

import json
import os
import platform
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from egrsd_jax.runs.files import NotWritten, write_json

HEARTBEAT_SECONDS = 15
# Without a heartbeat for so long a holder on another host is taken for dead; clocks must differ by less.
STALE_SECONDS = 300
WRITTEN_SECONDS = 5  # a lock is made and then written, which takes far less
LOCK = "lock"  # of a folder that a command writes; a grid's claim on a cell has a name of its own


class Locked(OSError):
    """Another process writes there."""


class FolderGone(NotWritten):
    """What this process writes to is no longer where it was."""


class Lock:
    """What this process holds."""

    def __init__(self, file: Path, name: str):
        self._file, self._name = file, name
        self._beaten = time.monotonic()

    def name_child(self, pid: int) -> None:
        """Records the process that does the work: while it lives the lock holds, even where this process has ended."""
        self._write(json.loads(self._file.read_bytes()) | {"child": pid, "child_began": _began(pid)})

    def beat(self) -> bool:
        """A heartbeat, every `HEARTBEAT_SECONDS`. False where the lock was lost: another process took this one for
        dead. A lock that is away with its disk may come back, and is not lost: `is_there` says so."""
        if time.monotonic() - self._beaten < HEARTBEAT_SECONDS:
            return True
        self._beaten = time.monotonic()
        if (locks := _locks(self._file.parent, self._name)) and locks[-1] != self._file:
            return False
        if self.is_there():
            os.utime(self._file)
        return True

    def is_there(self) -> bool:
        """Whether the lock is still in its folder, and the folder with its disk where it was."""
        return self._file.is_file()

    def release(self) -> None:
        """Lets others write, and removes the locks of dead holders. Where the disk lets nothing be removed they stay,
        and do no harm: this process is dead soon as well."""
        with suppress(OSError):
            for file in _locks(self._file.parent, self._name):
                if _number(file, self._name) < _number(self._file, self._name):
                    file.unlink(missing_ok=True)
            self._file.unlink(missing_ok=True)

    def _write(self, content: dict[str, Any]) -> None:
        write_json(self._file, content)


def take(folder: Path, name: str = LOCK) -> Lock | None:
    """Locks a folder, which is created; None where another process has it."""
    folder.mkdir(parents=True, exist_ok=True)
    number, newest, before = 0, None, b""
    if locks := _locks(folder, name):
        number, newest = _number(locks[-1], name) + 1, locks[-1]
        before = _bytes(newest)
        if _lives(newest):
            return None
    file = folder / f"{name}{number}.json"
    content = {
        "host": platform.node(),
        "machine": _machine(),
        "pid": os.getpid(),
        "began": _began(os.getpid()),
        "start": time.time(),
        "command": Path(sys.argv[0]).name,
        "id": uuid.uuid4().hex,
    }
    try:
        with file.open("x", encoding="utf-8") as stream:
            json.dump(content, stream)
    except FileExistsError:
        return None
    except OSError as error:  # a full disk: an empty lock would keep the same command out for a moment
        with suppress(OSError):
            file.unlink(missing_ok=True)
        raise NotWritten(error.errno, error.strerror, error.filename or str(file)) from None
    if newest is not None and _bytes(newest) != before:  # taken over and released in between
        file.unlink()
        return None
    return Lock(file, name)


def holder(folder: Path, name: str = LOCK) -> str | None:
    """The process that writes a folder, as `host, process N, since TIME`; None where none does."""
    locks = _locks(folder, name)
    if not locks or not _lives(locks[-1]):
        return None
    content = _content(locks[-1])
    who = f"{content.get('host', 'unknown host')}, process {content.get('pid', 'unknown')}"
    if "start" in content:
        who += f", since {datetime.fromtimestamp(content['start'], UTC):%Y-%m-%d %H:%M:%S} UTC"
    return who


_held: dict[tuple[Path, str], Lock] = {}
_lost: list[Path] = []


def hold(folder: Path, name: str = LOCK, *, what: Path | None = None) -> None:
    """Locks a folder, which is created, until `release_all` or the end of this process; once more is no error.

    `what` is what is written there, where it is not the folder. Raises Locked, one line that names the process that
    writes it now.
    """
    key = (folder.absolute(), name)
    if key in _held:
        return
    if (lock := take(*key)) is None:
        raise Locked(_refusal(folder, name, what))
    _held[key] = lock
    if len(_held) == 1:
        threading.Thread(target=_beat_while_held, name="lock", daemon=True).start()


def hold_anew(folder: Path, aside: Path) -> None:
    """Moves a folder aside under its lock, and locks a new one in its place. Raises Locked, one line."""
    hold(folder)
    folder.rename(aside)
    del _held[folder.absolute(), LOCK]
    for file in _locks(aside, LOCK):
        file.unlink(missing_ok=True)
    hold(folder)


def check_free(folder: Path, name: str = LOCK) -> None:
    """Raises Locked where another process writes a folder. Writes nothing: for before the work that precedes `hold`."""
    if (folder.absolute(), name) not in _held and holder(folder, name) is not None:
        raise Locked(_refusal(folder, name, None))


def check_held() -> None:
    """Raises Locked where another process took this one for dead, as one that was stopped for minutes, and FolderGone
    where a folder that this process holds was moved or its disk is away: what is written next would go elsewhere."""
    if _lost:
        raise Locked(
            f"{_lost[0]} is written by another process now: this one gave no sign of life for {STALE_SECONDS} s; it "
            "writes nothing more there"
        )
    for (folder, _), lock in [*_held.items()]:
        if not lock.is_there():
            raise FolderGone(
                f"{folder} is no longer the folder that this command writes: it was moved, or its disk is away; what "
                "was written there is in it: bring it back, and the same command resumes"
            )


@contextmanager
def held(folder: Path, name: str = LOCK, *, what: Path | None = None) -> Iterator[None]:
    """As `hold`, until the end of the block; where this process held it before, it still does afterwards. Errors are
    also those of `check_held`, so that what ends without one has written to the folder that is there."""
    is_first = (folder.absolute(), name) not in _held
    hold(folder, name, what=what)
    try:
        yield
        check_held()
    finally:
        if is_first:
            release(folder, name)


def release(folder: Path, name: str = LOCK) -> None:
    """Lets go of what `hold` locked."""
    if (lock := _held.pop((folder.absolute(), name), None)) is not None:
        lock.release()


def release_all() -> None:
    """Lets go of everything that `hold` locked."""
    while _held:
        _held.popitem()[1].release()
    _lost.clear()


def _beat_while_held() -> None:
    while _held:
        time.sleep(1)
        for (folder, _), lock in [*_held.items()]:
            try:
                if not lock.beat() and folder not in _lost:
                    _lost.append(folder)
            except OSError:
                continue  # a disk that is away for a moment; what writes there says so


def _refusal(folder: Path, name: str, what: Path | None) -> str:
    who = holder(folder, name) or "another process"
    return f"{what or folder} is being written by {who}; wait for it, stop it, or write to another place"


def _lives(file: Path) -> bool:
    """Whether a lock's holder is alive. On this machine its processes are checked, by number and start, so that a
    number that has come to another process counts for nothing; for others there is only the heartbeat."""
    try:
        beats = time.time() - file.stat().st_mtime < STALE_SECONDS
    except FileNotFoundError:
        return False
    if not (content := _content(file)):  # its holder was killed before it wrote, or writes at this very moment
        return time.time() - file.stat().st_mtime < WRITTEN_SECONDS
    if content.get("machine") != _machine():
        return beats
    knows = "began" in content
    return ((beats or knows) and _is_alive(content["pid"], content.get("began"))) or _is_alive(
        content.get("child"), content.get("child_began")
    )


def _is_alive(pid: int | None, began: str | None) -> bool:
    if pid is None:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    if began and _began(pid) != began:
        return False  # another process has the number now
    status = _bytes(Path(f"/proc/{pid}/stat"))
    return not status.rpartition(b")")[2].startswith(b" Z")  # a zombie: it ended, and its parent has not waited for it


def _began(pid: int) -> str | None:
    """When a process began, in ticks since the machine's start; None where the system does not say."""
    fields = _bytes(Path(f"/proc/{pid}/stat")).rpartition(b")")[2].split()
    return fields[19].decode() if len(fields) > 19 else None


def _machine() -> str:
    """Where process numbers are unique: the host, and on Linux its boot and the container."""
    space = Path("/proc/self/ns/pid")
    boot = _bytes(Path("/proc/sys/kernel/random/boot_id")).decode().strip()
    return " ".join([platform.node(), boot, str(space.readlink()) if space.is_symlink() else ""]).strip()


def _locks(folder: Path, name: str) -> list[Path]:
    """All locks of a name on a folder, the newest last."""
    try:
        files = [file for file in folder.iterdir() if file.name.startswith(name) and file.suffix == ".json"]
    except (FileNotFoundError, NotADirectoryError):
        return []
    numbered = [file for file in files if file.stem.removeprefix(name).isdigit()]
    return sorted(numbered, key=lambda file: _number(file, name))


def _number(file: Path, name: str) -> int:
    return int(file.stem.removeprefix(name))


def _content(file: Path) -> dict[str, Any]:
    """A lock's content; empty where the file is gone or being written."""
    try:
        content = json.loads(_bytes(file))
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""
