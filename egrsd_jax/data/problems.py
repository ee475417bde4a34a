"""Problems from a JSON Lines file, a Parquet file or a Hugging Face data set: where the flow begins.

Every row is checked as it is read, since a row without its problem, solution or answer would train on nothing.
"""

import codecs
import difflib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

from egrsd_jax.verify.extract import extract_answer

ID_COLUMNS = ("id", "unique_id", "idx")  # what published data sets call a row's own name, in order of preference
_JSON_LINES = (".jsonl", ".ndjson")
_HUB_NAME = re.compile(r"[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+")
_FILE_SUFFIX = re.compile(r"\.[A-Za-z][A-Za-z0-9]*")  # not the ".5" of a data set called owner/name-v1.5
_GSM8K_ANSWER = re.compile(r"^####[ \t]*(\S[^\n]*?)\s*\Z", re.MULTILINE)  # the last line: a Markdown heading is not
_GROUPED_NUMBER = re.compile(r"[-+]?\$?\d{1,3}(,\d{3})+(\.\d+)?")


class DataError(ValueError):
    """Data that cannot be used; the message names the file or data set, the row, and how to fix it."""


@dataclass(frozen=True)
class Problem:
    """One problem; `solution` is the reference that the teacher sees, empty where there is none, and `system` the
    system's turn that the data has for it."""

    id: str
    problem: str
    solution: str
    answer: str
    system: str = ""


class SkippedRow(NamedTuple):
    """A row that was left out: its number (from 1, as an editor counts lines) and what was wrong with it."""

    number: int
    reason: str


@dataclass(frozen=True)
class LoadedProblems:
    """The problems in the data's order, the rows left out, and the column the ids came from (None: row numbers)."""

    problems: list[Problem]
    skipped: list[SkippedRow]
    id_column: str | None


def load_problems(
    path: str,
    *,
    problem: str = "problem",
    solution: str | None = "solution",
    answer: str | None = "answer",
    split: str = "train",
    name: str | None = None,
    on_bad_row: Literal["error", "skip"] = "error",
    limit: int | None = None,
) -> LoadedProblems:
    r"""Read problems from a `.jsonl` or `.parquet` file, or from the Hugging Face data set `owner/name`.

    `problem`, `solution` and `answer` name columns. `solution=None` reads problems that have no reference, for
    evaluation. `split` and `name` (the configuration, "main" for openai/gsm8k) concern Hugging Face data sets alone.

    The answer is the `answer` column's text (a whole number is taken as its digits). Where that is empty, where the
    data has no column of the default name, where `answer` is None or names the solution's own column, it is the
    last `\boxed{}` of the solution, or what follows `####` on its last line, as in GSM8K. After `####`, in either
    column, the commas that group thousands are removed. A solution's text is kept as it is.

    A row is bad if it is not a JSON object, or if one of the three texts is missing, blank or not text. With
    `on_bad_row="error"` the first one raises; with "skip" they are returned as `skipped`. Blank lines of a JSON
    Lines file are no rows, but count as lines. At most `limit` problems are returned, the first ones.

    An id is the row's `id`, `unique_id` or `idx`, the first of these columns that the data has; if two problems
    share an id or one has none, all ids are row numbers, so that an id always names one problem.

    Raises DataError: no such file, an unknown column, a bad row, no problem left.
    """
    if on_bad_row not in ("error", "skip"):
        raise ValueError(f'on_bad_row must be "error" or "skip", not {on_bad_row!r}')
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, or None for all problems, not {limit}")
    if solution is None and answer is None:
        raise ValueError("name the column of the solution, of the answer, or of both: an answer needs one of them")
    columns = _Columns(problem, solution, answer)
    table = _open_table(path, columns, split, name)
    _check_columns(table, columns)
    return _collect(table, columns, on_bad_row, limit)


class _Columns(NamedTuple):
    """The names of the columns to read."""

    problem: str
    solution: str | None
    answer: str | None

    def to_read(self, present: Iterable[str]) -> list[str]:
        """The columns of `present` to read, ids included; others, such as reasoning traces, can be very large."""
        return [column for column in present if column in (*self, *ID_COLUMNS)]


class _Table(NamedTuple):
    """A data source: its name and that of its rows in messages, its column names, and its rows with their numbers.

    A row is whatever the source contains there, or a _BadRow where it could not be read at all.
    """

    label: str
    row_label: str
    columns: Sequence[str]
    rows: Iterable[tuple[int, object]]


class _BadRow(Exception):
    """What is wrong with one row, without its number."""


def _open_table(path: str, columns: _Columns, split: str, name: str | None) -> _Table:
    file = Path(path).expanduser()
    if file.is_dir():
        inside = sorted(entry.name for entry in file.iterdir() if entry.suffix in (*_JSON_LINES, ".parquet"))
        contents = f"it holds {', '.join(inside[:5])}" if inside else "it holds none"
        raise DataError(f"{path}: is a folder; give one .jsonl or .parquet file ({contents})")
    if file.exists():
        return _open_file(file, path, columns)
    if path.startswith((".", "/", "~")) or _FILE_SUFFIX.fullmatch(file.suffix):
        raise DataError(f"{path}: no such file (looked for {file.absolute()})")
    if not _HUB_NAME.fullmatch(path):
        raise DataError(f"{path}: neither an existing file nor the owner/name of a Hugging Face data set")
    return _open_hub(path, columns, split, name)


def _open_file(file: Path, path: str, columns: _Columns) -> _Table:
    if file.suffix.lower() in _JSON_LINES:
        return _open_json_lines(file, path, columns)
    if file.suffix.lower() == ".parquet":
        return _open_parquet(file, path, columns)
    raise DataError(f"{path}: unknown kind of file {file.suffix!r}; a data file ends in .jsonl, .ndjson or .parquet")


def _open_json_lines(file: Path, path: str, columns: _Columns) -> _Table:
    names: dict[str, None] = {}  # the columns of all rows, in order of first appearance
    rows: list[tuple[int, object]] = []
    with file.open("rb") as lines:  # bytes split at \n alone; text would also count other line ends
        for number, line in enumerate(lines, start=1):
            text = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            if not text.strip():
                continue
            row = _parse_line(text)
            if isinstance(row, dict):
                names.update(dict.fromkeys(row))
                row = {column: row[column] for column in columns.to_read(row)}
            rows.append((number, row))
    return _Table(path, f"{path}, line", list(names), rows)


def _parse_line(line: bytes) -> object:
    try:
        return json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return _BadRow(f"not UTF-8 (byte {error.start + 1} of the line); save the file as UTF-8")
    except json.JSONDecodeError as error:
        return _BadRow(f"not valid JSON ({error.msg}, column {error.colno}); each line is one JSON object")
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets thousands deep
        return _BadRow(f"not readable JSON ({error}); each line is one JSON object of texts")


def _open_parquet(file: Path, path: str, columns: _Columns) -> _Table:
    import pyarrow
    import pyarrow.parquet

    try:
        parquet = pyarrow.parquet.ParquetFile(file)
    except pyarrow.ArrowInvalid as error:
        raise DataError(f"{path}: not a Parquet file ({_one_line(error)})") from error
    names = parquet.schema_arrow.names
    batches = parquet.iter_batches(columns=columns.to_read(names))
    rows = (row for batch in batches for row in batch.to_pylist())
    return _Table(path, f"{path}, row", names, enumerate(rows, start=1))


def _open_hub(path: str, columns: _Columns, split: str, name: str | None) -> _Table:
    try:
        import datasets  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise DataError(
            f"{path}: reading a Hugging Face data set needs the package datasets: pip install datasets "
            "(or give a .jsonl or .parquet file)"
        ) from None
    label = f"{path} ({split} of {name})" if name else f"{path} ({split})"
    try:
        dataset = datasets.load_dataset(path, name=name, split=split)
    except (OSError, ValueError) as error:  # not found, no network; unknown configuration or split
        raise DataError(f"{label}: could not be loaded: {_one_line(error)}") from error
    rows = dataset.select_columns(columns.to_read(dataset.column_names))
    return _Table(label, f"{label}, row", dataset.column_names, enumerate(rows, start=1))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _check_columns(table: _Table, columns: _Columns) -> None:
    """Raise for a column that no row has, naming those that come nearest.

    The answer's default name alone may be absent: then the answer is in the solution.
    """
    if not table.columns:
        return  # no row could be read: the rows' own errors say more
    wanted = [column for column in columns if column is not None]
    if columns.answer == "answer" and columns.solution is not None:
        wanted.remove("answer")
    by_lower = {column.lower(): column for column in table.columns}
    for column in wanted:
        if column in table.columns:
            continue
        nearest = [by_lower[match] for match in difflib.get_close_matches(column.lower(), by_lower)]
        hint = f"nearest: {', '.join(map(repr, nearest))}; " if nearest else ""
        raise DataError(
            f"{table.label}: no column {column!r}; {hint}its columns: {', '.join(map(repr, table.columns))}"
        )


def _collect(table: _Table, columns: _Columns, on_bad_row: str, limit: int | None) -> LoadedProblems:
    """Read rows until there are `limit` problems or no more rows."""
    id_column = next((column for column in ID_COLUMNS if column in table.columns), None)
    problems, own_ids, skipped = [], [], []
    for number, row in table.rows:
        try:
            problems.append(_problem_of(number, row, columns))
        except _BadRow as bad:
            if on_bad_row == "error":
                fix = 'on_bad_row="skip", on the command line --data.on_bad_row skip, leaves such rows out'
                raise DataError(f"{table.row_label} {number}: {bad} ({fix})") from None
            skipped.append(SkippedRow(number, str(bad)))
            continue
        own_ids.append(_own_id(row, id_column))
        if len(problems) == limit:
            break
    if not problems and skipped:
        first = f"{table.row_label} {skipped[0].number}: {skipped[0].reason}"
        raise DataError(f"{table.label}: no usable problem: all {len(skipped)} rows are bad, the first of them {first}")
    if not problems:
        raise DataError(f"{table.label}: no problem in it: it has no rows")
    if None in own_ids or len(set(own_ids)) < len(own_ids):
        return LoadedProblems(problems, skipped, None)
    named = [replace(problem, id=own_id) for problem, own_id in zip(problems, own_ids, strict=True)]
    return LoadedProblems(named, skipped, id_column)


def _problem_of(number: int, row: object, columns: _Columns) -> Problem:
    """The row's problem, for now with its row number as its id. Raises _BadRow."""
    if isinstance(row, _BadRow):
        raise row
    if not isinstance(row, dict):
        raise _BadRow(f"is a JSON {type(row).__name__}, not an object of columns")
    problem = _text(row, columns.problem)
    solution = "" if columns.solution is None else _text(row, columns.solution)
    return Problem(str(number), problem, solution, _answer(row, columns, solution))


def _text(row: dict, column: str) -> str:
    value = row.get(column)
    if value is None:
        raise _BadRow(f"the column {column!r} is missing or null")
    if not isinstance(value, str):
        raise _BadRow(f"the column {column!r} holds {value!r:.40} ({type(value).__name__}), not text")
    if not value.strip():
        raise _BadRow(f"the column {column!r} is empty")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:  # JSON can spell half of a surrogate pair; no tokenizer takes it
        raise _BadRow(f"the column {column!r} is not valid Unicode ({error.reason})") from None
    return value


def _answer(row: dict, columns: _Columns, solution: str) -> str:
    if columns.answer is not None and columns.answer != columns.solution:
        given = row.get(columns.answer)
        if isinstance(given, int) and not isinstance(given, bool):
            return str(given)
        blank = given is None or (isinstance(given, str) and not given.strip())
        if columns.solution is None or not blank:
            text = _text(row, columns.answer)
            return _after_hashes(text) or text.strip()
    answer = (extract_answer(solution) or "").strip() or _after_hashes(solution)
    if not answer:
        raise _BadRow(
            rf"no answer: column {columns.answer!r} has none, and the solution no \boxed{{}} and no last ####"
        )
    return answer


def _after_hashes(text: str) -> str | None:
    """What follows `####` on the text's last line, GSM8K's form, without the commas of a number such as 1,450,000."""
    match = _GSM8K_ANSWER.search(text)
    if match is None:
        return None
    return match[1].replace(",", "") if _GROUPED_NUMBER.fullmatch(match[1]) else match[1]


def _own_id(row: object, id_column: str | None) -> str | None:
    """The row's id as text; None if there is no such column, or neither text nor a whole number in it."""
    value = row.get(id_column) if isinstance(row, dict) and id_column else None
    usable = isinstance(value, (str, int)) and not isinstance(value, bool)
    return str(value).strip() or None if usable else None
