"""JSON files and JSON Lines that survive a kill: written whole or row by row, and bound to the settings that made them.

Imports no jax.
"""

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


class SettingsMismatch(ValueError):
    """A file was written with other settings than those that would add to it."""


class NotWritten(OSError):
    """A file could not be written; what was there before is whole."""

    exit_code = 1


def write_whole(file: Path, text: str) -> None:
    """Writes a file so that a reader sees all of it or what was there before, never half."""
    write_whole_bytes(file, text.encode("utf-8"))


def write_whole_bytes(file: Path, content: bytes) -> None:
    """As `write_whole`; it is on disk when this returns, and where it fails nothing is left of it."""
    unfinished = file.with_name(file.name + ".new")
    try:
        with unfinished.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        unfinished.replace(file)
    except OSError as error:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise _named(error, file) from None


def append_bytes(file: Path, content: bytes, *, to_disk: bool) -> None:
    """Adds to a file, which is made where it does not exist: all of `content` or, where that fails, none.

    An unfinished last line, which a kill left, is taken off first.
    """
    try:
        with file.open("a+b", buffering=0) as stream:
            size = _whole_lines(stream)
            try:
                written = 0
                while written < len(content):
                    written += stream.write(content[written:]) or 0
                if to_disk:
                    os.fsync(stream.fileno())
            except BaseException:
                os.ftruncate(stream.fileno(), size)
                raise
    except OSError as error:
        raise _named(error, file) from None


def _whole_lines(stream: Any) -> int:
    """The size of a file after an unfinished last line is taken off."""
    size = end = stream.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - 4096)
        stream.seek(start)
        block = stream.read(end - start)
        if b"\n" in block:
            end = start + block.rfind(b"\n") + 1
            break
        end = start
    if end < size:
        os.ftruncate(stream.fileno(), end)
    return end


def _named(error: OSError, file: Path) -> OSError:
    """The same error with the file's name, which errors of open files do not have."""
    return error if error.errno is None else NotWritten(error.errno, error.strerror, error.filename or str(file))


def write_json(file: Path, content: dict[str, Any], *, indent: int | None = None) -> None:
    """Writes a JSON file, whole. Raises ValueError for a number that is not finite."""
    write_whole(file, json.dumps(content, indent=indent, allow_nan=False) + "\n")


def read_json(file: Path) -> dict[str, Any]:
    """The content of a JSON file. Raises FileNotFoundError, or ValueError of one line where it is no JSON."""
    try:
        return json.loads(file.read_bytes())
    except ValueError as error:
        raise ValueError(
            f"{file} cannot be read ({error}); it was written whole, and something changed it: put it back"
        ) from None


def write_rows(file: Path, rows: Iterable[dict[str, Any]], *, only_ascii: bool = True) -> None:
    """Writes a JSON Lines file, whole."""
    write_whole(file, "".join(json.dumps(row, ensure_ascii=only_ascii) + "\n" for row in rows))


def numbered_rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, row) of every line of a JSON Lines file that is not blank; lines are counted from 1.

    Raises ValueError, one line, for a line that is no JSON object.
    """
    return _numbered(file, file.read_bytes())


def _numbered(file: Path, content: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(content.splitlines(), start=1):  # of bytes: U+2028 ends no line
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{file}, line {number}, is not JSON ({error}); correct or remove the line") from None
        if not isinstance(row, dict):
            raise ValueError(f"{file}, line {number}, is a {type(row).__name__}; it has to be a JSON object")
        yield number, row


def read_rows(file: Path) -> list[dict[str, Any]]:
    """The rows of a JSON Lines file that a run writes, without a last line that a kill cut short; none where it is
    missing. Raises ValueError, one line, for a line in between that is no JSON object."""
    if not file.is_file():
        return []
    content = file.read_bytes()
    return [row for _, row in _numbered(file, content[: content.rfind(b"\n") + 1])]


def read_settings(file: Path) -> dict[str, Any]:
    """The settings that rows are bound to; empty where there are none yet. Raises ValueError where they are no JSON."""
    return read_json(file) if file.is_file() else {}


def check_settings(what: str, was: dict[str, Any], now: dict[str, Any]) -> None:
    """Raises SettingsMismatch, one line, where `what` (a plural) was sampled with other settings than those of now."""
    if different := differences(was, now):
        raise SettingsMismatch(
            f"{what} were sampled with other settings: {'; '.join(different)}; give those settings, or another place "
            "with --to"
        )


def differences(was: Any, now: Any, name: str = "") -> list[str]:
    """A line for each value in which two nested dicts differ; what is under a key `free` does not count."""
    if isinstance(was, dict) and isinstance(now, dict):
        keys = [key for key in sorted(was.keys() | now.keys()) if key != "free"]
        return [line for key in keys for line in differences(was.get(key), now.get(key), f"{name}.{key}".lstrip("."))]
    return [] if was == now else [f"{name} was {was!r} and is {now!r}"]
