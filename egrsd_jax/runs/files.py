"""JSON files and JSON Lines that survive a kill: written whole or row by row, and bound to the settings that made them.

Imports no jax.
"""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


class SettingsMismatch(ValueError):
    """A file was written with other settings than those that would add to it."""


def write_whole(file: Path, text: str) -> None:
    """Writes a file so that a reader sees all of it or what was there before, never half."""
    unfinished = file.with_name(file.name + ".new")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(file)


def write_json(file: Path, content: dict[str, Any], *, indent: int | None = None) -> None:
    """Writes a JSON file, whole. Raises ValueError for a number that is not finite."""
    write_whole(file, json.dumps(content, indent=indent, allow_nan=False) + "\n")


def read_json(file: Path) -> dict[str, Any]:
    """The content of a JSON file. Raises FileNotFoundError, or ValueError of one line where it is no JSON."""
    try:
        return json.loads(file.read_bytes())
    except ValueError as error:
        raise ValueError(f"{file} cannot be read ({error}); it was written whole, so something changed it") from None


def write_rows(file: Path, rows: Iterable[dict[str, Any]], *, only_ascii: bool = True) -> None:
    """Writes a JSON Lines file, whole."""
    write_whole(file, "".join(json.dumps(row, ensure_ascii=only_ascii) + "\n" for row in rows))


def append_rows(file: Path, rows: Iterable[dict[str, Any]], *, only_ascii: bool = True, to_disk: bool = False) -> None:
    """Adds rows to a JSON Lines file, which is made where it does not exist; a kill of this program does not lose them.

    With `to_disk` a failure of the machine does not lose them either. Without `only_ascii` text stays readable.
    """
    with file.open("ab") as stream:
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=only_ascii).encode("utf-8", "surrogatepass") + b"\n")
        if to_disk:
            stream.flush()
            os.fsync(stream.fileno())


def numbered_rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, row) of every line of a JSON Lines file that is not blank; lines are counted from 1.

    Raises ValueError, one line, for a line that is no JSON object.
    """
    for number, line in enumerate(file.read_bytes().splitlines(), start=1):  # of bytes: U+2028 ends no line
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
    """The rows of a JSON Lines file that a run writes, up to a line that a kill cut short; none where it is missing."""
    if not file.is_file():
        return []
    rows = []
    for line in file.read_bytes().splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def resumed_rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """As `numbered_rows`, of a file that is about to be added to: a last line that a kill cut short is taken off."""
    if file.is_file():
        content = file.read_bytes()
        if content and not content.endswith(b"\n"):
            os.truncate(file, content.rfind(b"\n") + 1)
        yield from numbered_rows(file)


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
