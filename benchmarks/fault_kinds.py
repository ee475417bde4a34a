"""What `faults.py` does to a command: signals, full, read-only and vanished disks, damage, a second command, other
inputs."""

import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.fault_trial import LIMIT, REMEDY, STRANGER, Trial, check_refusal, signalled, wait_for

HOWS = ("truncated", "bit flipped", "gone", "line doubled", "zeroed")
MAY_LOSE = {"bit flipped": 2, "line doubled": 0}  # rows: the bit may be one of the line's end; of others all
Moment = Iterator[bool]


def moment(trial: Trial, rng: random.Random, *, first: float = 0.25) -> Moment:
    """A random moment of a command that begins now: in its first seconds, with probability `first`, or after so many
    files have come and gone in its folder."""
    at_start, count, wait = rng.random() < first, rng.randrange(1, 60), rng.uniform(0.2, 4)
    began, known, changes = time.monotonic(), _files(trial.run), 0
    while True:
        passed = time.monotonic() - began
        if at_start:
            yield passed > wait
            continue
        files = _files(trial.run)
        changes, known = changes + len(files ^ known), files
        yield changes >= count or passed > LIMIT


def _files(folder: Path) -> set[str]:
    return {f"{root}/{name}" for root, _, names in os.walk(folder) for name in names}


def kill(trial: Trial, rng: random.Random, number: int) -> None:  # noqa: ARG001 (all faults take the same)
    """One to three SIGKILLs, each at a random moment."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        code = signalled(trial, signal.SIGKILL, moment(trial, rng))
        trial.what.append(f"ended with {code}")


def interrupt(trial: Trial, rng: random.Random, number: int) -> None:
    """Ctrl-C or SIGTERM at a random moment: its own exit code, and one line."""
    kind = (signal.SIGINT, signal.SIGTERM)[number % 2]
    code = signalled(trial, kind, moment(trial, rng, first=0.5))
    trial.what.append(f"{kind.name}, ended with {code}")
    # Before it hears signals, and after its work is done and said, the system ends it.
    assert code in (0, 128 + kind, -kind), f"{kind.name}: exit code {code}"
    if code == 128 + kind:
        own = (trial.folder / "output.txt").read_text(errors="replace")
        assert "stopped" in own.splitlines()[-1], "it was stopped and did not say so"


def limit_size(trial: Trial, rng: random.Random, number: int) -> None:  # noqa: ARG001
    """A file cannot grow beyond a size: what a full disk is where no small file system can be mounted."""
    # A grid's cells print into files of their own, without which no one could be given their errors.
    least = 20_000 if trial.command == "ablate" else 500
    size = int(math.exp(rng.uniform(math.log(least), math.log(max(least, *_sizes(trial))))))
    code = trial.end(trial.begin(file_size=size))
    trial.what.append(f"files of {size} bytes, ended with {code}")
    _check_disk_error(trial, code)


def fill_disk(trial: Trial, rng: random.Random, number: int) -> None:  # noqa: ARG001
    """A small tmpfs that is full at some moment; room is made afterwards."""
    pages = sum(size // 4096 + 1 for size in _sizes(trial))
    kilobytes = 4 * max(2, int(pages * rng.uniform(0.05, 0.95)))
    with _disk(trial, kilobytes) as disk:
        code = trial.end(trial.begin())
        trial.what.append(f"{kilobytes} kB, ended with {code}")
        _check_disk_error(trial, code)
        _run("mount", "-o", "remount,size=200m", disk)
        trial.finish()


def _sizes(trial: Trial) -> list[int]:
    """The sizes of the files that the command leaves where nothing happens to it."""
    return [file.stat().st_size for file in reference(trial).rglob("*") if file.is_file()] or [10**5]


def reference(trial: Trial) -> Path:
    """What the command of a trial leaves where nothing happens to it; `faults.py` keeps it there."""
    return trial.folder.parent / "references" / trial.command


def read_only(trial: Trial, rng: random.Random, number: int) -> None:  # noqa: ARG001
    """The disk becomes read-only at a random moment, and can be written afterwards."""
    with _disk(trial) as disk:
        process = trial.begin()
        wait_for(process, moment(trial, rng))
        _run("mount", "--bind", disk, trial.run)  # over the one that has files open, which could not change
        _run("mount", "-o", "remount,bind,ro", trial.run)
        code = trial.end(process)
        _run("umount", trial.run)
        trial.what.append(f"ended with {code}")
        _check_disk_error(trial, code)
        trial.finish()


def read_only_folder(trial: Trial, rng: random.Random, number: int) -> None:  # noqa: ARG001
    """As `read_only` where nothing can be mounted: the folders' permissions, which do not bind every root."""
    process = trial.begin()
    wait_for(process, moment(trial, rng))
    folders = [trial.run, *(Path(root) for root, _, _ in os.walk(trial.run))]
    for folder in folders:
        folder.chmod(0o500)
    code = trial.end(process)
    for folder in folders:
        folder.chmod(0o700)
    trial.what.append(f"ended with {code}")
    _check_disk_error(trial, code)


def vanish(trial: Trial, rng: random.Random, number: int) -> None:  # noqa: ARG001
    """The disk is unmounted at a random moment, so that an empty folder is in its place, and mounted again."""
    with _disk(trial) as disk:
        process = trial.begin()
        wait_for(process, moment(trial, rng))
        _run("umount", "-l", trial.run)
        code = trial.end(process)
        _run("mount", "--bind", disk, trial.run)
        trial.what.append(f"ended with {code}")
        _check_disk_error(trial, code)
        trial.finish()


def move_away(trial: Trial, rng: random.Random, number: int) -> None:  # noqa: ARG001
    """As `vanish` where nothing can be mounted: the folder has another name for a while."""
    process = trial.begin()
    wait_for(process, moment(trial, rng))
    away = trial.folder / "away"
    trial.run.rename(away)
    code = trial.end(process)
    shutil.rmtree(trial.run, ignore_errors=True)
    away.rename(trial.run)
    trial.what.append(f"ended with {code}")
    _check_disk_error(trial, code)


def damage(trial: Trial, rng: random.Random, number: int) -> None:
    """The command has ended, or is killed half-way; then one file that it left is truncated, zeroed, has a bit flipped
    or a line doubled, or is gone."""
    if rng.random() < 0.5:
        shutil.copytree(reference(trial), trial.run, dirs_exist_ok=True)
    else:
        signalled(trial, signal.SIGKILL, moment(trial, rng, first=0.0))
    files = sorted(file for file in trial.run.rglob("*") if file.is_file() and file.name != STRANGER)
    files = [file for file in files if "tensorboard" not in file.parts]
    if not files:
        return
    kinds = sorted({_kind(file, trial.run) for file in files})
    kind = rng.choice(kinds)
    file = rng.choice([file for file in files if _kind(file, trial.run) == kind])
    how = HOWS[(number // 5 + number) % 5]
    _damage(file, how, rng)
    trial.damaged = file.with_name(file.name.removeprefix(".").removesuffix(".crc")).relative_to(trial.run).as_posix()
    trial.may_lose = MAY_LOSE.get(how, sys.maxsize)
    trial.what.append(f"{file.relative_to(trial.run)}: {how}")


def _kind(file: Path, run: Path) -> str:
    """Files of one kind: a checkpoint has many, which are one here."""
    parts = file.relative_to(run).parts
    return parts[0] if "checkpoints" not in parts else "/".join(parts[: parts.index("checkpoints") + 2])


def _damage(file: Path, how: str, rng: random.Random) -> None:
    content = file.read_bytes()
    place = rng.randrange(max(len(content), 1))
    if how == "truncated":
        file.write_bytes(content[:place])
    elif how == "zeroed":
        file.write_bytes(bytes(len(content)))
    elif how == "bit flipped" and content:
        file.write_bytes(content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :])
    elif how == "gone":
        file.unlink()
    elif lines := content.splitlines(keepends=True):
        number = rng.randrange(len(lines))
        file.write_bytes(b"".join([*lines[: number + 1], *lines[number:]]))


def double(trial: Trial, rng: random.Random, number: int) -> None:  # noqa: ARG001
    """The same command twice at once: one of them does the work, and the other is refused and names it. Two of a grid
    share it."""
    first = trial.begin()
    wait_for(first, moment(trial, rng, first=0.5))
    codes = sorted(trial.end(process) for process in (first, trial.begin()))
    trial.what.append(f"ended with {codes}")
    assert codes in ([0, 0], [0, 2]), f"exit codes {codes}"
    if codes == [0, 2]:
        assert "is being written by" in trial.output, "the second was refused for another reason"


def change(trial: Trial, rng: random.Random, number: int) -> None:
    """A row of the data, or a setting, is another when the command is started again; then it is put back."""
    signalled(trial, signal.SIGKILL, moment(trial, rng, first=0.0))
    trains = trial.command.startswith(("train", "ablate"))
    kind = "data" if trial.command.startswith("train") and number % 2 else "setting"
    bound_by = ("fingerprints.json",) if kind == "data" else ("config.yaml", "*.jsonl")
    has_begun = any(file for name in bound_by for file in trial.run.rglob(name))
    data, kept = trial.folder / "data.jsonl", [*trial.arguments]
    rows = data.read_bytes()
    if kind == "data":
        data.write_bytes(rows.replace(b'"problem": "', b'"problem": "1 + ', 1))
    else:
        trial.arguments.append("--train.learning_rate=0.01" if trains else "--seed=7")
    code = trial.end(trial.begin()) if has_begun else 2
    trial.arguments = kept
    data.write_bytes(rows)
    trial.what.append(f"another {kind}, ended with {code}")
    assert code == 2 or (code == 1 and trial.command == "ablate"), f"another {kind}: exit code {code}"
    if has_begun:
        check_refusal(trial)


def _check_disk_error(trial: Trial, code: int) -> None:
    """A disk's error is one line with a remedy, and exit code 1; of a grid, the number of its cells."""
    assert code in (0, 1) or (code == 2 and trial.command == "ablate"), f"exit code {code}: {trial.last_line()}"
    if code:
        last = trial.last_line()
        assert "error:" in last, last
        assert REMEDY.search(last), last


@contextmanager
def _disk(trial: Trial, kilobytes: int = 200_000) -> Iterator[Path]:
    """The trial's folder on a tmpfs of its own, which is mounted a second time at the place that is returned."""
    disk, aside = trial.folder / "disk", trial.folder / "aside"
    trial.run.rename(aside)
    disk.mkdir()
    trial.run.mkdir()
    _run("mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", disk)
    try:
        _run("mount", "--bind", disk, trial.run)
        shutil.copytree(aside, disk, dirs_exist_ok=True)
        yield disk
    finally:
        left = shutil.copytree(disk, trial.folder / "left")
        unmount_under(trial.folder)
        for folder in (trial.run, aside):
            shutil.rmtree(folder)
        left.rename(trial.run)


def unmount_under(folder: Path) -> None:
    """Unmounts everything that is mounted in a folder."""
    mounted = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for place in reversed(mounted):
        if Path(place).is_relative_to(folder):
            _run("umount", "-l", place)


def can_mount() -> bool:
    """Whether this process may mount file systems: root outside most containers."""
    if os.geteuid() != 0:
        return False
    with tempfile.TemporaryDirectory() as folder:
        tried = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True, check=False)
        if tried.returncode == 0:
            _run("umount", folder)
        return tried.returncode == 0


def permissions_bind() -> bool:
    """Whether a folder's permissions can refuse this process: not where it is root with all capabilities."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o500)
        return not os.access(folder, os.W_OK)


def _run(*command: str | Path) -> None:
    subprocess.run([*map(str, command)], check=True, capture_output=True)


Fault = Callable[[Trial, random.Random, int], None]


def faults(*, mounts: bool) -> dict[str, Fault]:
    """Every fault by name; without `mounts` those in place of a disk of its own, and none where none can."""
    kinds: dict[str, Fault] = {
        "kill": kill,
        "damage": damage,
        "signal": interrupt,
        "file size": limit_size,
        "two at once": double,
        "changed": change,
    }
    if mounts:
        return kinds | {"full disk": fill_disk, "read-only disk": read_only, "vanished disk": vanish}
    if permissions_bind():
        kinds["read-only disk"] = read_only_folder
    return kinds | {"vanished disk": move_away}
