"""What a run depends on besides its settings: the model's weights, its tokenizer, the rows of its data. Imports no jax.

A path says where something is and not what it is; a fingerprint is its content. Weights are hashed whole, in pieces on
several threads, since a sample would miss a change outside it.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from egrsd_jax.model.hf.checkpoint_files import weight_files
from egrsd_jax.runs.files import read_json, write_json

PIECE = 2**26  # bytes that one thread reads and hashes at a time
AT_A_TIME = 2**20  # of them in memory


class InputsChanged(ValueError):
    """What a run depends on is not what it was when the run began."""


def of_files(files: Iterable[Path]) -> str:
    """SHA-256 of the names, sizes and contents of some files, in their order; those that are not there are left out."""
    present = [file for file in files if file.is_file()]
    pieces = [(file, start) for file in present for start in range(0, max(file.stat().st_size, 1), PIECE)]
    with ThreadPoolExecutor(min(32, os.cpu_count() or 1)) as pool:
        digests = [*pool.map(lambda piece: _of_piece(*piece), pieces)]
    whole = hashlib.sha256("".join(f"{file.name} {file.stat().st_size}\n" for file in present).encode())
    for digest in digests:
        whole.update(digest)
    return whole.hexdigest()


def of_weights(folder: Path) -> str:
    """SHA-256 of a checkpoint folder's weight files. Errors are those of `weight_files`."""
    return of_files(weight_files(folder))


def of_rows(rows: Iterable[tuple[str, ...]]) -> str:
    """SHA-256 of rows of text, in their order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(("\0".join(row) + "\1").encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def check(file: Path, now: Mapping[str, str], places: Mapping[str, str], how_to_fix: str) -> list[str]:
    """Compares fingerprints with those that a run's folder has in `file`; returns the names of those that it lacks.

    `places` says in words where each is from. Raises InputsChanged, one line that names every one that differs.
    """
    was: dict[str, Any] = read_json(file) if file.is_file() else {}
    changed = [
        f"{places[name]} (fingerprint {was[name][:12]}, now {now[name][:12]})"
        for name in now
        if name in was and was[name] != now[name]
    ]
    if changed:
        raise InputsChanged(f"since {file.parent} began this has changed: {'; '.join(changed)}; {how_to_fix}")
    return [name for name in now if name not in was]


def record(file: Path, now: Mapping[str, str]) -> None:
    """Writes fingerprints next to those that are there."""
    was: dict[str, Any] = read_json(file) if file.is_file() else {}
    if {**was, **now} != was:
        write_json(file, {**was, **now}, indent=1)


def _of_piece(file: Path, start: int) -> bytes:
    digest = hashlib.sha256()
    with file.open("rb", buffering=0) as stream:
        stream.seek(start)
        left = PIECE
        while left and (read := stream.read(min(AT_A_TIME, left))):
            digest.update(read)
            left -= len(read)
    return digest.digest()
