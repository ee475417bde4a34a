"""Rows and their columns from files, folders and the hub: JSON, CSV, Parquet, Arrow, compressed or not. Imports no jax.

A file's kind is what it holds, and its name's ending where that does not say.
"""

import bz2
import codecs
import csv
import gzip
import io
import json
import lzma
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from egrsd_jax.data.folders import data_files
from egrsd_jax.side_files import refuse_lfs_pointer

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow")
COMPRESSED: dict[str, tuple[bytes, Callable[[Path], Any]]] = {
    ".gz": (b"\x1f\x8b", gzip.open),
    ".bz2": (b"BZh", bz2.open),
    ".xz": (b"\xfd7zXZ", lzma.open),
}
ENDINGS = (*SUFFIXES, *(f"{suffix}{more}" for suffix in SUFFIXES[:5] for more in COMPRESSED))
_HUB_NAME = re.compile(r"[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+")
_FILE_SUFFIX = re.compile(r"\.[A-Za-z][A-Za-z0-9]*")  # not the ".5" of a data set called owner/name-v1.5
_LIBRARY = (OSError, ValueError, EOFError, zlib.error, lzma.LZMAError)  # what reading a damaged file raises


class DataError(ValueError):
    """Data that cannot be used; the message names the file or data set, the row, and how to fix it."""


class BadRow(Exception):
    """What is wrong with one row, without its number."""


class Table(NamedTuple):
    """A data source: its name, where a row of some number is, its column names, and its rows with their numbers.

    A row is whatever the source contains there, or a BadRow where it could not be read at all.
    """

    label: str
    place: Callable[[int], str]
    columns: Sequence[str]
    rows: Iterable[tuple[int, object]]


class _File(NamedTuple):
    """One file's columns, and its rows with their numbers; `unit` is what a number counts."""

    unit: str
    columns: Sequence[str]
    rows: Iterable[tuple[int, object]]


def open_table(path: str, wanted: Sequence[str], split: str, name: str | None) -> Table:
    """The rows of a file, a folder or a data set of the hub; `wanted` are the columns that are read, or `a.b` of them.

    Raises DataError of one line, also while rows are read.
    """
    file = Path(path).expanduser()
    try:
        if file.is_dir():
            return _open_files(path, data_files(file, split, name), wanted)
        if file.exists():
            opened = _open_file(file, wanted)
            return Table(path, lambda number: f"{path}, {opened.unit} {number}", opened.columns, opened.rows)
    except DataError as error:
        raise error if str(error).startswith(path) else DataError(f"{path}: {error}") from None
    except ValueError as error:
        raise DataError(str(error)) from None
    if path.startswith((".", "/", "~")) or _FILE_SUFFIX.fullmatch(file.suffix):
        raise DataError(f"{path}: no such file (looked for {file.absolute()})")
    if not _HUB_NAME.fullmatch(path):
        raise DataError(f"{path}: neither an existing file nor the owner/name of a Hugging Face data set")
    return _open_hub(path, wanted, split, name)


def _to_read(wanted: Sequence[str], present: Iterable[str]) -> list[str]:
    """The columns of `present` to read; others, such as reasoning traces, can be very large."""
    tops = {*wanted, *(column.partition(".")[0] for column in wanted)}
    return [column for column in present if column in tops]


def _open_files(path: str, files: Sequence[Path], wanted: Sequence[str]) -> Table:
    """Several files as one table, numbered through; messages name the file and the row in it."""
    opened = [(file, _open_file(file, wanted)) for file in files]
    starts: list[tuple[int, Path, dict[int, int]]] = []

    def rows() -> Iterator[tuple[int, object]]:
        count = 0
        for file, table in opened:
            places: dict[int, int] = {}
            starts.append((count, file, places))
            for own, row in table.rows:
                count += 1
                places[count] = own
                yield count, row

    def place(number: int) -> str:
        file, places = next((file, places) for start, file, places in reversed(starts) if start < number)
        unit = next(table.unit for other, table in opened if other == file)
        return f"{file}, {unit} {places[number]}"

    columns = list(dict.fromkeys(chain.from_iterable(table.columns for _, table in opened)))
    return Table(path, place, columns, rows())


def _open_file(file: Path, wanted: Sequence[str]) -> _File:
    refuse_lfs_pointer(file)
    with file.open("rb") as stream:
        head = stream.read(8)
    suffixes = [suffix.lower() for suffix in file.suffixes]
    opener: Callable[[Path], Any] = _plain
    for suffix, (magic, compressed) in COMPRESSED.items():
        if head.startswith(magic) or suffixes[-1:] == [suffix]:
            opener, suffixes = compressed, [other for other in suffixes if other != suffix]
    kind = suffixes[-1] if suffixes else ""
    if head.startswith(b"PAR1") or kind == ".parquet":
        return _open_parquet(file, wanted)
    if head.startswith(b"ARROW1") or kind == ".arrow":
        return _open_arrow(file, wanted)
    if kind in (".csv", ".tsv"):
        return _open_csv(file, opener, "\t" if kind == ".tsv" else ",", wanted)
    if kind in (".jsonl", ".ndjson", ".json"):
        return _open_json(file, opener, kind, wanted)
    raise DataError(f"{file}: unknown kind of file {file.suffix!r}; a data file ends in {', '.join(SUFFIXES)}, or .gz")


def _plain(file: Path) -> BinaryIO:
    return file.open("rb")


def _guarded(file: Path, rows: Iterable[Any]) -> Iterator[Any]:
    """The rows; what a library raises over the file while it reads them is one line that names it."""
    try:
        yield from rows
    except _LIBRARY as error:
        raise DataError(f"{file}: cannot be read: {_one_line(error)}; download or write it again") from error


def _open_json(file: Path, opener: Callable[[Path], BinaryIO], kind: str, wanted: Sequence[str]) -> _File:
    """JSON Lines, or one JSON value that holds all rows."""
    stream = iter(_guarded(file, _lines(file, opener)))
    first = next((line for line in stream if line.removeprefix(codecs.BOM_UTF8).strip()), b"")
    start = first.removeprefix(codecs.BOM_UTF8).lstrip()[:1]
    if start == b"[" or (kind == ".json" and start == b"{"):
        text = b"".join(_guarded(file, _lines(file, opener))).removeprefix(codecs.BOM_UTF8)
        whole = _parse_line(text)
        if (rows := _rows_of(whole, wanted)) is not None:
            return _selected("entry", rows, wanted)
        if isinstance(whole, BadRow) and kind == ".json" and b"\n" not in text.strip():
            raise DataError(f"{file}: {whole}")
    lines = enumerate(_guarded(file, _lines(file, opener)), start=1)
    parsed = ((number, _parse_line(line.removeprefix(codecs.BOM_UTF8))) for number, line in lines if line.strip())
    return _selected("line", parsed, wanted)


def _lines(file: Path, opener: Callable[[Path], BinaryIO]) -> Iterator[bytes]:
    with opener(file) as stream:  # bytes split at \n alone; text would also count other line ends
        yield from stream


def _parse_line(line: bytes) -> object:
    try:
        return json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return BadRow(f"not UTF-8 (byte {error.start + 1} of the line); save the file as UTF-8")
    except json.JSONDecodeError as error:
        return BadRow(f"not valid JSON ({error.msg}, column {error.colno}); each line is one JSON object")
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets thousands deep
        return BadRow(f"not readable JSON ({error}); each line is one JSON object of texts")


def _rows_of(value: object, wanted: Sequence[str]) -> Iterable[tuple[int, object]] | None:
    """The rows of a JSON file that is one value: a list of objects, an object with one such list and no column that is
    wanted, an object of columns as pandas writes it, or an object that is one row; None for anything else."""
    if isinstance(value, list) and any(isinstance(row, dict) for row in value):
        return enumerate(value, start=1)
    if not isinstance(value, dict):
        return None
    lists = [
        entry for entry in value.values() if isinstance(entry, list) and any(isinstance(row, dict) for row in entry)
    ]
    if len(lists) == 1 and not _to_read(wanted, value):
        return enumerate(lists[0], start=1)
    columns = {
        name: list(entry.values()) if isinstance(entry, dict) else entry
        for name, entry in value.items()
        if isinstance(entry, dict | list)
    }
    is_one_row = any(map(_is_conversation, value.values()))
    if (
        columns
        and not is_one_row
        and len(columns) == len(value)
        and len({len(column) for column in columns.values()}) == 1
    ):
        rows = zip(*columns.values(), strict=True)
        return enumerate((dict(zip(columns, row, strict=True)) for row in rows), start=1)
    return [(1, value)]


def _is_conversation(value: object) -> bool:
    """Whether a list has turns, which no column of a table has one by one."""
    return isinstance(value, list) and any(isinstance(turn, dict) and {"role", "from"} & turn.keys() for turn in value)


def _selected(unit: str, numbered: Iterable[tuple[int, object]], wanted: Sequence[str]) -> _File:
    """All rows with the wanted columns alone, and the columns of all of them in order of first appearance."""
    names: dict[str, None] = {}
    rows: list[tuple[int, object]] = []
    for number, row in numbered:
        if isinstance(row, dict):
            names.update(dict.fromkeys(row))
            row = {column: row[column] for column in _to_read(wanted, row)}
        rows.append((number, row))
    return _File(unit, list(names), rows)


def _open_csv(file: Path, opener: Callable[[Path], BinaryIO], delimiter: str, wanted: Sequence[str]) -> _File:
    """Every cell is text: no library guesses that the answer 007 is seven."""
    csv.field_size_limit(2**31 - 1)  # a solution may be longer than the module's 128 kB

    def rows() -> Iterator[tuple[int, object]]:
        with opener(file) as stream, io.TextIOWrapper(stream, "utf-8-sig", newline="") as text:
            reader = csv.DictReader(text, delimiter=delimiter, strict=True)
            try:
                for row in reader:
                    if None in row:
                        yield (
                            reader.line_num,
                            BadRow(f"has more fields than the {len(row) - 1} columns of the first line"),
                        )
                    else:
                        yield reader.line_num, row
            except csv.Error as error:
                raise DataError(f"{file}: not readable as CSV after line {reader.line_num} ({error})") from None

    def guarded() -> Iterator[tuple[int, object]]:
        try:
            yield from rows()
        except DataError:
            raise
        except _LIBRARY as error:
            raise DataError(f"{file}: cannot be read: {_one_line(error)}; save it as UTF-8 CSV") from error

    return _selected("line", guarded(), wanted)


def _open_parquet(file: Path, wanted: Sequence[str]) -> _File:
    import pyarrow.parquet

    try:
        parquet = pyarrow.parquet.ParquetFile(file)
    except _LIBRARY as error:
        raise DataError(f"{file}: not a Parquet file ({_one_line(error)})") from error
    names = parquet.schema_arrow.names
    batches = parquet.iter_batches(columns=_to_read(wanted, names))
    rows = (row for batch in batches for row in batch.to_pylist())
    return _File("row", names, enumerate(_guarded(file, rows), start=1))


def _open_arrow(file: Path, wanted: Sequence[str]) -> _File:
    """A file of Arrow batches, as a stream (what `save_to_disk` of `datasets` writes) or with a footer."""
    import pyarrow.ipc

    try:
        try:
            reader = pyarrow.ipc.open_stream(pyarrow.memory_map(str(file)))
        except pyarrow.ArrowInvalid:
            opened = pyarrow.ipc.open_file(pyarrow.memory_map(str(file)))
            reader, batches = opened, (opened.get_batch(at) for at in range(opened.num_record_batches))
        else:
            batches = iter(reader)
        names = reader.schema.names
    except _LIBRARY as error:
        raise DataError(f"{file}: not an Arrow file ({_one_line(error)})") from error
    rows = (row for batch in batches for row in batch.select(_to_read(wanted, names)).to_pylist())
    return _File("row", names, enumerate(_guarded(file, rows), start=1))


def _open_hub(path: str, wanted: Sequence[str], split: str, name: str | None) -> Table:
    try:
        import datasets  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise DataError(
            f"{path}: reading a Hugging Face data set needs the package datasets: pip install datasets "
            "(or download it, and give its folder)"
        ) from None
    label = f"{path} ({split} of {name})" if name else f"{path} ({split})"
    try:
        dataset = datasets.load_dataset(path, name=name, split=split)
        selected = dataset.select_columns(_to_read(wanted, dataset.column_names))
    except Exception as error:  # its builders raise what they like: DatasetGenerationError is a bare Exception
        raise DataError(f"{label}: could not be loaded: {_one_line(_cause(error))}") from error

    def rows() -> Iterator[Any]:
        try:
            yield from selected
        except Exception as error:
            raise DataError(f"{label}: could not be read: {_one_line(error)}") from error

    return Table(label, lambda number: f"{label}, row {number}", dataset.column_names, enumerate(rows(), start=1))


def _cause(error: BaseException) -> BaseException:
    """What first went wrong, where a library only says that something did."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or repr(error)
