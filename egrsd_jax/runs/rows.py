"""JSON Lines that rows are added to for hours, and that heal: what is damaged is named and kept aside. Imports no jax.

Next to `NAME` a hidden `.NAME.crc` has a checksum per row, in the rows' order. By it a row that was changed, doubled or
taken away is known from one that is whole. Files of earlier versions have none; they get one when they are next added
to.
"""

import json
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from egrsd_jax.runs.files import append_bytes, read_json, write_whole_bytes
from egrsd_jax.runs.lock import check_held

DAMAGED = ".damaged"
OF_A_START = ("seconds", "programs")  # fields in which two starts of the same run differ


@dataclass
class Healed:
    """The rows that are whole in a file, and their lines; `notes` says, a line each, what was not."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    lines: list[bytes] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def append_rows(file: Path, rows: Iterable[dict[str, Any]], *, only_ascii: bool = True, to_disk: bool = False) -> None:
    """Adds rows to a JSON Lines file, which is made where it does not exist; all of them or, where it fails, none.

    A kill of this program does not lose them; with `to_disk` a failure of the machine does not either. Without
    `only_ascii` text stays readable. Errors are also those of `check_held`.
    """
    check_held()
    lines = [json.dumps(row, ensure_ascii=only_ascii).encode("utf-8", "surrogatepass") for row in rows]
    if not lines:
        return
    sums = _sums_file(file)
    if _is_empty(file):
        sums.unlink(missing_ok=True)
        sums.touch()
    append_bytes(file, b"".join(line + b"\n" for line in lines), to_disk=to_disk)
    if sums.is_file():
        append_bytes(sums, b"".join(_sum(line) + b"\n" for line in lines), to_disk=False)


def replace_rows(file: Path, lines: Sequence[bytes]) -> None:
    """Writes the file with these lines, whole, and their checksums."""
    write_whole_bytes(_sums_file(file), b"".join(_sum(line) + b"\n" for line in lines))
    write_whole_bytes(file, b"".join(line + b"\n" for line in lines))


def heal(
    file: Path, needs: Sequence[str] = (), *, one_of: Sequence[str] = (), same: Sequence[str] | None = None
) -> Healed:
    """The rows of a file that is about to be added to; none where it is missing.

    A last line that a kill cut short is taken off. A line that is no JSON object with the fields of `needs`, that was
    changed since it was written, or that is there twice is moved to `NAME.damaged`; the lines after it stay. Of rows
    with the same values of the fields `one_of` there can be one: the first, where they agree in `same` (None is every
    field but `OF_A_START`), and none where they do not.
    """
    healed = Healed()
    sums_file = _sums_file(file)
    if not file.is_file():
        if sums_file.is_file() and sums_file.stat().st_size:
            healed.notes.append(f"{file} is gone; its rows stay missing")
            sums_file.unlink()
        return healed
    whole, _, torn = file.read_bytes().rpartition(b"\n")
    lines = whole.split(b"\n") if whole else []
    sums = _read_sums(file, healed.notes)
    rows = [_row(line, needs) for line in lines]
    verdicts = _verdicts(lines, sums)
    for number, row in enumerate(rows):
        if verdicts[number] is None and row is None:
            verdicts[number] = "is no row" if lines[number].strip() else "is empty"
    if one_of:
        _find_doubles(rows, verdicts, one_of, same)
    good = [line for line, verdict in zip(lines, verdicts, strict=True) if verdict is None]
    aside = [line for line, verdict in zip(lines, verdicts, strict=True) if verdict not in (None, "is empty")]
    healed.lines = good
    healed.rows = [row for row, verdict in zip(rows, verdicts, strict=True) if verdict is None and row is not None]
    for number, verdict in enumerate(verdicts, start=1):
        if verdict not in (None, "is empty"):
            healed.notes.append(f"{file}, line {number}, {verdict}; it is kept in {file.name}{DAMAGED}")
    lost = 0 if sums is None else len(sums) - sum((Counter(sums) & Counter(map(_sum, good))).values())
    if lost:
        healed.notes.append(f"{file}: {lost} of the rows that were written {'is' if lost == 1 else 'are'} missing")
    if aside:
        append_bytes(file.with_name(file.name + DAMAGED), b"".join(line + b"\n" for line in aside), to_disk=True)
    if torn or sums is None or [*map(_sum, good)] != sums or len(good) != len(lines):
        replace_rows(file, good)
    return healed


def _find_doubles(
    rows: Sequence[dict[str, Any] | None],
    verdicts: list[str | None],
    one_of: Sequence[str],
    same: Sequence[str] | None,
) -> None:
    """Adds to the verdicts those on rows that are there more than once."""
    places: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        if row is not None and verdicts[number] is None:
            places.setdefault(json.dumps([row.get(name) for name in one_of]), []).append(number)
    for numbers in places.values():
        contents = {_content(rows[number], same) for number in numbers}
        for number in numbers[1:] if len(contents) == 1 else numbers:
            verdicts[number] = "is there twice" if len(contents) == 1 else "is there twice, with other content"


def _content(row: dict[str, Any] | None, same: Sequence[str] | None) -> str:
    row = row or {}
    names = [name for name in row if not name.startswith(OF_A_START)] if same is None else same
    return json.dumps({name: row.get(name) for name in names}, sort_keys=True)


def whole_rows(file: Path) -> list[dict[str, Any]]:
    """The rows that are what was written, of a file that nothing is done to; none where it is missing."""
    lines = file.read_bytes().split(b"\n")[:-1] if file.is_file() else []
    rows = [_row(line, ()) for line in lines]
    verdicts = _verdicts(lines, _read_sums(file, []))
    return [row for row, verdict in zip(rows, verdicts, strict=True) if verdict is None and row is not None]


def is_whole(file: Path) -> bool:
    """Whether `heal` would find nothing to do, by the checksums; True for a file that has none."""
    sums, content = _sums_file(file), file.read_bytes() if file.is_file() else b""
    if not sums.is_file():
        return True
    return sums.read_bytes().splitlines() == [_sum(line) for line in content.split(b"\n")[:-1]]


def write_checked(file: Path, content: dict[str, Any]) -> None:
    """Writes a JSON file of one line, whole, and its checksum. Raises ValueError for a number that is not finite;
    errors are also those of `check_held`."""
    check_held()
    line, sums = json.dumps(content, allow_nan=False).encode(), _sums_file(file)
    before = sums.read_bytes().split()[-1:] if sums.is_file() and file.is_file() else []
    # A kill in between leaves the old content or the new one, and the checksums of both.
    write_whole_bytes(sums, b"".join(value + b"\n" for value in [*before, _sum(line)]))
    write_whole_bytes(file, line + b"\n")
    write_whole_bytes(sums, _sum(line) + b"\n")


def read_checked(file: Path) -> dict[str, Any]:
    """What `write_checked` wrote. Raises FileNotFoundError, or ValueError of one line where it was changed since."""
    content, sums = read_json(file), _sums_file(file)
    known = sums.read_bytes().split() if sums.is_file() else []
    if known and _sum(file.read_bytes().rstrip(b"\n")) not in known:
        raise ValueError(f"{file} is not what was written: its checksum is another")
    if not isinstance(content, dict):
        raise ValueError(f"{file} is not what was written: it holds no fields")
    return content


def remove_checked(file: Path) -> None:
    """Removes what `write_checked` wrote."""
    file.unlink(missing_ok=True)
    _sums_file(file).unlink(missing_ok=True)


def gone(folder: Path, pattern: str) -> list[Path]:
    """The files that are not there, though their checksums are."""
    files = [folder / sums.name[1:].removesuffix(".crc") for sums in sorted(folder.glob(f".{pattern}.crc"))]
    return [file for file in files if not file.is_file()]


def _verdicts(lines: Sequence[bytes], sums: list[bytes] | None) -> list[str | None]:
    """What the checksums say against each line, or None. Rows after the last that has a checksum are new."""
    if sums is None:
        return [None] * len(lines)
    left, known = Counter(sums), set(sums)
    verdicts: list[str | None] = []
    for line in lines:
        value = _sum(line)
        verdicts.append(None if left[value] > 0 else "is there twice" if value in known else "unknown")
        left[value] -= left[value] > 0
    unmatched = sum(left.values())
    for number, verdict in enumerate(verdicts):
        if verdict == "unknown":
            verdicts[number] = "is not what was written" if unmatched > 0 else None
            unmatched -= 1
    return verdicts


def _read_sums(file: Path, notes: list[str]) -> list[bytes] | None:
    """The checksums of a file's rows; None where there are none that can be used."""
    sums = _sums_file(file)
    if not sums.is_file():
        return None
    values = sums.read_bytes().rpartition(b"\n")[0].split(b"\n")
    values = [value for value in values if value]
    if all(len(value) == 8 and set(value) <= set(b"0123456789abcdef") for value in values):
        return values
    notes.append(f"{sums} is damaged; the rows of {file.name} are taken as they are")
    return None


def _row(line: bytes, needs: Sequence[str]) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and all(name in row for name in needs) else None


def _sum(line: bytes) -> bytes:
    return b"%08x" % zlib.crc32(line)


def _sums_file(file: Path) -> Path:
    return file.with_name(f".{file.name}.crc")


def _is_empty(file: Path) -> bool:
    return not file.is_file() or file.stat().st_size == 0
