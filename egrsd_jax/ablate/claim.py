"""Which process runs a cell: a file that only one process can create, and that expires with its process.

Claims are numbered. A claim whose holder is dead is taken over by creating the next number, which again only one
process can do; no claim is ever removed by anyone but its holder or the one that came after it.
"""

import json
import os
import platform
import time
import uuid
from pathlib import Path
from typing import Any

from egrsd_jax.runs.files import write_json

HEARTBEAT_SECONDS = 15
# Without a heartbeat for so long a holder on another host is taken for dead; clocks must differ by less.
STALE_SECONDS = 300


class Claim:
    """A cell that this process runs."""

    def __init__(self, file: Path):
        self._file = file
        self._beaten = time.monotonic()

    def name_child(self, pid: int) -> None:
        """Records the process that does the work: while it lives the claim holds, even where this process has ended."""
        self._write(json.loads(self._file.read_bytes()) | {"child": pid})

    def beat(self) -> bool:
        """A heartbeat, every `HEARTBEAT_SECONDS`. False where the claim was lost: another process took this one for
        dead."""
        if time.monotonic() - self._beaten < HEARTBEAT_SECONDS:
            return True
        self._beaten = time.monotonic()
        if not self._file.is_file() or _claims(self._file.parent)[-1] != self._file:
            return False
        os.utime(self._file)
        return True

    def release(self) -> None:
        """Releases the cell, and removes the claims of dead holders."""
        for file in _claims(self._file.parent):
            if _number(file) < _number(self._file):
                file.unlink(missing_ok=True)
        self._file.unlink(missing_ok=True)

    def _write(self, content: dict[str, Any]) -> None:
        write_json(self._file, content)


def take(folder: Path) -> Claim | None:
    """Claims a folder, which is created; None where another process has it."""
    folder.mkdir(parents=True, exist_ok=True)
    number, newest, before = 0, None, b""
    if claims := _claims(folder):
        number, newest = _number(claims[-1]) + 1, claims[-1]
        before = _bytes(newest)
        if _lives(newest):
            return None
    file = folder / f"claim{number}.json"
    content = {"host": platform.node(), "machine": _machine(), "pid": os.getpid(), "id": uuid.uuid4().hex}
    try:
        with file.open("x", encoding="utf-8") as stream:
            json.dump(content, stream)
    except FileExistsError:
        return None
    if newest is not None and _bytes(newest) != before:  # taken over and released in between
        file.unlink()
        return None
    return Claim(file)


def holder(folder: Path) -> str | None:
    """The process that runs a folder's cell, as `host, process N`; None where none does."""
    claims = _claims(folder)
    if not claims or not _lives(claims[-1]):
        return None
    claim = _content(claims[-1])
    return f"{claim.get('host', 'unknown host')}, process {claim.get('pid', 'unknown')}"


def _lives(file: Path) -> bool:
    """Whether a claim's holder is alive. On this machine its processes are checked, where a number without a heartbeat
    may since belong to another process; for other machines there is only the heartbeat."""
    try:
        beats = time.time() - file.stat().st_mtime < STALE_SECONDS
    except FileNotFoundError:
        return False
    claim = _content(file)
    if claim.get("machine") != _machine():
        return beats
    return (beats and _is_alive(claim["pid"])) or _is_alive(claim.get("child"))


def _is_alive(pid: int | None) -> bool:
    if pid is None:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    status = _bytes(Path(f"/proc/{pid}/stat"))
    return not status.rpartition(b")")[2].startswith(b" Z")  # a zombie: it ended, and its parent has not waited for it


def _machine() -> str:
    """Where process numbers are unique: the host, and on Linux its boot and the container."""
    space = Path("/proc/self/ns/pid")
    boot = _bytes(Path("/proc/sys/kernel/random/boot_id")).decode().strip()
    return " ".join([platform.node(), boot, str(space.readlink()) if space.is_symlink() else ""]).strip()


def _claims(folder: Path) -> list[Path]:
    """All claims on a folder, the newest last."""
    return sorted(folder.glob("claim*.json"), key=_number)


def _number(file: Path) -> int:
    return int(file.stem.removeprefix("claim"))


def _content(file: Path) -> dict[str, Any]:
    """A claim's content; empty where the file is gone or being written."""
    try:
        return json.loads(_bytes(file))
    except ValueError:
        return {}


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""
