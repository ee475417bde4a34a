"""What a run depends on besides its settings: the model's weights, its tokenizer, the rows of its data. Imports no jax.

A path says where something is and not what it is; a fingerprint is its content. Weights are read whole, since a
sample would miss a change outside it: in pieces, on threads that run while the weights are loaded, so that they are
read from the disk once. Of weights and checkpoints a piece counts by its CRC-32, which takes a fraction of SHA-256's
time: no flipped bit, nor any change within four bytes in a row, leaves it as it was, and another change does with a
chance of 1 in 2³². That is against accidents; somebody who means to could make other weights with the same fingerprint.
"""

import hashlib
import os
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from egrsd_jax.model.hf.checkpoint_files import weight_files
from egrsd_jax.runs.files import read_json, write_json

PIECE = 2**26  # bytes that one thread reads and hashes at a time
AT_A_TIME = 2**22  # of them in memory: long enough that a thread seldom waits for the interpreter's lock
QUICK = "02"  # what a fingerprint by CRC-32 begins with, before 64 digits; those of SHA-256 have no more than these

IsOf = Callable[[str], bool]  # whether a fingerprint, of an earlier version's kind too, is of what is there now


class InputsChanged(ValueError):
    """What a run depends on is not what it was when the run began."""


def of_files(files: Iterable[Path], *, quick: bool = False) -> str:
    """SHA-256 of the names, sizes and contents of some files, in their order; those that are not there are left out.
    With `quick`, for large ones, contents count by the CRC-32 of each piece."""
    return begin_of_files(files, quick=quick)()


def begin_of_files(files: Iterable[Path], *, quick: bool = False) -> Callable[[], str]:
    """Begins what `of_files` does on threads of its own, where it is more than a moment's work; returns what waits for
    its result, or raises its error.

    Nobody waits for the threads of a program that ends before.
    """
    present = [(file, file.stat().st_size) for file in files if file.is_file()]
    pieces = [(file, start) for file, size in present for start in range(0, max(size, 1), PIECE)]
    digests: list[bytes] = [b""] * len(pieces)
    errors: list[Exception] = []
    of_piece = _crc32 if quick else _sha256
    left = iter(range(len(pieces)))  # a range's iterator gives each number to one thread

    def work() -> None:
        buffer = bytearray(min(AT_A_TIME, PIECE))
        try:
            for number in left:
                if errors:
                    return
                digests[number] = of_piece(_blocks(*pieces[number], buffer))
        except Exception as error:
            errors.append(error)

    count = min(32, os.cpu_count() or 1, len(pieces))
    threads = [threading.Thread(target=work, name="fingerprint", daemon=True) for _ in range(count)]
    if count == 1:
        threads.clear()
        work()
    for thread in threads:
        thread.start()

    def result() -> str:
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        whole = hashlib.sha256("".join(f"{file.name} {size}\n" for file, size in present).encode())
        for digest in digests:
            whole.update(digest)
        return (QUICK if quick else "") + whole.hexdigest()

    return result


def is_of(digest: str, files: Iterable[Path]) -> bool:
    """Whether a fingerprint, of either kind, is that of some files."""
    return digest == of_files(files, quick=len(digest) == len(QUICK) + 64)


def of_weights(folder: Path) -> str:
    """The quick fingerprint of a checkpoint folder's weight files. Errors are those of `weight_files`."""
    return begin_of_weights(folder)()


def begin_of_weights(folder: Path) -> Callable[[], str]:
    """Begins what `of_weights` does, as `begin_of_files`."""
    return begin_of_files(weight_files(folder), quick=True)


def is_of_weights(folder: Path, digest: str) -> bool:
    """`is_of` a checkpoint folder's weight files."""
    return is_of(digest, weight_files(folder))


def of_rows(rows: Iterable[tuple[str, ...]]) -> str:
    """SHA-256 of rows of text, in their order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(("\0".join(row) + "\1").encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def check(
    file: Path, now: Mapping[str, str], places: Mapping[str, str], how_to_fix: str, is_of: Mapping[str, IsOf]
) -> list[str]:
    """Compares fingerprints with those that a run's folder has in `file`; returns the names of those that it lacks.

    `places` says in words where each is from; `is_of` compares those that earlier versions made otherwise. Raises
    InputsChanged, one line that names every one that differs.
    """
    was: dict[str, Any] = read_json(file) if file.is_file() else {}
    changed = [
        f"{places[name]} (fingerprint {was[name][:12]}, now {now[name][:12]})"
        for name in now
        if name in was and was[name] != now[name] and not (name in is_of and is_of[name](was[name]))
    ]
    if changed:
        raise InputsChanged(f"since {file.parent} began this has changed: {'; '.join(changed)}; {how_to_fix}")
    return [name for name in now if name not in was]


def record(file: Path, now: Mapping[str, str]) -> None:
    """Writes fingerprints next to those that are there."""
    was: dict[str, Any] = read_json(file) if file.is_file() else {}
    if {**was, **now} != was:
        write_json(file, {**was, **now}, indent=1)


def _blocks(file: Path, start: int, buffer: bytearray) -> Iterator[memoryview]:
    """The piece of a file that begins at `start`, as the same memory again and again."""
    view = memoryview(buffer)
    with file.open("rb", buffering=0) as stream:
        stream.seek(start)
        left = PIECE
        while left and (count := stream.readinto(view[: min(len(buffer), left)])):
            yield view[:count]
            left -= count


def _sha256(blocks: Iterable[memoryview]) -> bytes:
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block)
    return digest.digest()


def _crc32(blocks: Iterable[memoryview]) -> bytes:
    value = 0
    for block in blocks:
        value = zlib.crc32(block, value)
    return value.to_bytes(4, "big")
