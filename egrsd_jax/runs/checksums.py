"""Which checkpoints of a run are whole: their commit marker, and a checksum of every file. Imports no jax.

orbax takes any folder named by a number for a checkpoint. One is whole that has orbax's marker, written last, and whose
files are those that were there when it was finished; `checksums/STEP.json` next to it lists them. In all of this
`folder` is the run's folder of checkpoints.
"""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from egrsd_jax.runs.files import read_json, write_json
from egrsd_jax.runs.fingerprint import is_of, of_files

CHECKSUMS = "checksums"
DAMAGED = "damaged"  # where checkpoints go that are not whole, when the run resumes from an older one
METADATA, MARKER = "_CHECKPOINT_METADATA", "commit_success.txt"  # orbax's


def checkpoint_steps(folder: Path) -> list[int]:
    """The steps of the checkpoints that are finished, in order; whether their files are whole is not checked."""
    return sorted(step for step, kept in _numbered(folder) if _is_finished(kept))


def recorded_steps(folder: Path) -> list[int]:
    """The steps of which there is a finished checkpoint, or checksums that say that there was one."""
    kept = {int(file.stem) for file in _entries(folder / CHECKSUMS) if file.suffix == ".json" and file.stem.isdigit()}
    return sorted({*checkpoint_steps(folder), *kept})


def record(folder: Path, step: int) -> None:
    """Reads a finished checkpoint back and keeps the checksums of its files.

    Raises OSError, one line, where it is not finished or cannot be read.
    """
    kept = folder / str(step)
    if not _is_finished(kept):
        raise OSError(f"the checkpoint {kept} was written and has no commit marker; the disk may have failed")
    (folder / CHECKSUMS).mkdir(exist_ok=True)
    files = {
        name: {"bytes": file.stat().st_size, "digest": of_files([file], quick=True)} for name, file in _files(kept)
    }
    write_json(_record_file(folder, step), {"files": files}, indent=1)


def damage(folder: Path, step: int) -> str | None:
    """What is wrong with a checkpoint, in words that name a file; None where nothing is known to be.

    Checkpoints of earlier versions have no checksums: of those only the marker is looked for.
    """
    kept = folder / str(step)
    if not kept.is_dir():
        return f"{kept} is gone"
    if not _is_finished(kept):
        return f"{kept} has no commit marker ({METADATA} or {MARKER})"
    if not has_checksums(folder, step):
        return None
    try:
        wanted: dict[str, Any] = read_json(_record_file(folder, step))["files"]
        present = dict(_files(kept))
        for name, was in wanted.items():
            if name not in present:
                return f"{kept / name} is gone"
            if (size := present[name].stat().st_size) != was["bytes"]:
                return f"{kept / name} has {size} bytes and had {was['bytes']}"
            if not is_of(was["digest"] if "digest" in was else was["sha256"], [present[name]]):
                return f"{kept / name} has other bytes than when it was written"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{_record_file(folder, step)}, its list of checksums, is damaged"
    except OSError as error:
        return f"{error.filename or kept} cannot be read ({error.strerror})"
    return None


def has_checksums(folder: Path, step: int) -> bool:
    """Whether the checksums of a checkpoint were kept; those of earlier versions were not."""
    return _record_file(folder, step).is_file()


def unfinished(folder: Path) -> list[int]:
    """The steps of folders that are called as a checkpoint and are not finished ones."""
    return sorted(step for step, kept in _numbered(folder) if not _is_finished(kept))


def set_aside(folder: Path, step: int) -> Path:
    """Moves what is left of a checkpoint, and its checksums, to where nothing looks for checkpoints; returns where."""
    place = folder / DAMAGED
    place.mkdir(exist_ok=True)
    to = next(free for number in range(10**6) if not (free := place / f"checkpoint_{step}_{number}").exists())
    kept = folder / str(step)
    if kept.exists():
        kept.rename(to)
    else:
        to.mkdir()
    if has_checksums(folder, step):
        _record_file(folder, step).rename(to / "checksums.json")
    return to


def remove(folder: Path, step: int) -> None:
    """Removes a checkpoint that is no longer needed: its checksums first, then its name, then its files."""
    _record_file(folder, step).unlink(missing_ok=True)
    kept, away = folder / str(step), folder / f".removed_{step}"
    if kept.is_dir():
        shutil.rmtree(away, ignore_errors=True)
        kept.rename(away)
    shutil.rmtree(away, ignore_errors=True)


def finish_removals(folder: Path) -> None:
    """Removes what a kill left of `remove`."""
    for entry in _entries(folder):
        if entry.name.startswith(".removed_"):
            shutil.rmtree(entry, ignore_errors=True)


def _is_finished(folder: Path) -> bool:
    if (folder / MARKER).is_file():
        return True
    try:
        return json.loads((folder / METADATA).read_bytes())["commit_timestamp_nsecs"] is not None
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _numbered(folder: Path) -> Iterator[tuple[int, Path]]:
    for entry in _entries(folder):
        if entry.name.isdigit() and entry.is_dir():
            yield int(entry.name), entry


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for root, _, names in os.walk(folder):
        for name in sorted(names):
            file = Path(root) / name
            yield file.relative_to(folder).as_posix(), file


def _record_file(folder: Path, step: int) -> Path:
    return folder / CHECKSUMS / f"{step}.json"
