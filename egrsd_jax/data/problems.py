"""Problems from files, folders and Hugging Face data sets: where the flow begins.

Every row is checked as it is read, since a row without its problem, solution or answer would train on nothing.
"""

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from egrsd_jax.data.cells import cell, is_blank, is_turns, number_text, structured, system_of, text_of
from egrsd_jax.data.tables import BadRow, DataError, Table, open_table
from egrsd_jax.verify.extract import extract_answer

__all__ = ["DataError", "LoadedProblems", "Problem", "SkippedRow", "load_problems"]

ID_COLUMNS = ("id", "unique_id", "idx")  # what published data sets call a row's own name, in order of preference
COLUMNS_SHOWN = 20
_GSM8K_ANSWER = re.compile(r"^####[ \t]*(\S[^\n]*?)\s*\Z", re.MULTILINE)  # the last line: a Markdown heading is not
_GROUPED_NUMBER = re.compile(r"[-+]?\$?\d{1,3}(,\d{3})+(\.\d+)?")


@dataclass(frozen=True)
class Problem:
    """One problem; `solution` is the reference that the teacher sees, empty where there is none, and `system` the
    system's turn that the data has for it. A number that differs by at most `tolerance` is the answer too, where there
    is one."""

    id: str
    problem: str
    solution: str
    answer: str
    system: str = ""
    tolerance: float | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        """All of it that training reads, for fingerprints; the system's turn where it has one."""
        own = (self.id, self.problem, self.solution, self.answer)
        return (*own, self.system) if self.system else own


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
    needs_solution: bool = True,
    needs_answer: bool = True,
    tolerance: str | None = None,
    several: bool = False,
) -> LoadedProblems:
    r"""Read problems from a file (JSON Lines, JSON, CSV, TSV, Parquet, Arrow; the text ones also compressed), from a
    folder of them, or from the Hugging Face data set `owner/name`.

    `problem`, `solution`, `answer` and `tolerance` name columns; `reward_model.ground_truth` is a field in what a
    column holds. A column may hold a conversation: the problem is its user's turn, the solution its assistant's, and a
    system's turn comes with the problem. `solution=None` reads problems that have no reference, for evaluation; without
    `needs_solution` there may be none. Without `needs_answer`, `answer=None` reads prompts that have no
    answer. `split` and `name` (the configuration, "main" for openai/gsm8k) choose among the files of a folder, or of a
    data set of the hub.

    The answer is the `answer` column's text (of a number its digits: 42 for 42.0; with `several`, a list
    of answers is joined by commas, and else is a bad row). Where that is empty, where the
    data has no column of the default name, where `answer` is None or names the solution's own column, it is the
    last `\boxed{}` of the solution, or what follows `####` on its last line, as in GSM8K; where `answer` names the
    solution's own column and that has neither, its one line. After `####`, in either column, the commas that group
    thousands are removed. A solution's text is kept as it is.

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
    if needs_answer and solution is None and answer is None:
        raise ValueError("name the column of the solution, of the answer, or of both: an answer needs one of them")
    columns = _Columns(problem, solution, answer, tolerance, several)
    wanted = [*columns.names(), *ID_COLUMNS]
    table = open_table(path, wanted, split, name)
    if not needs_solution and solution is not None and not _has(table, solution):
        columns = columns._replace(solution=None)
    _check_columns(table, columns)
    return _collect(table, columns, on_bad_row, limit, needs_solution=needs_solution)


class _Columns(NamedTuple):
    """The names of the columns to read."""

    problem: str
    solution: str | None
    answer: str | None
    tolerance: str | None
    several: bool  # a list of answers is one answer, of all of them

    def names(self) -> list[str]:
        """Those that there are."""
        return [name for name in (self.problem, self.solution, self.answer, self.tolerance) if name is not None]


def _has(table: Table, column: str) -> bool:
    """Whether a table has a column, or the one that a field such as a.b is in; a table of no column has any."""
    return not table.columns or column in table.columns or column.partition(".")[0] in table.columns


def _check_columns(table: Table, columns: _Columns) -> None:
    """Raise for a column that no row has, naming those that come nearest.

    The answer's default name alone may be absent: then the answer is in the solution.
    """
    wanted = columns.names()
    if columns.answer == "answer" and columns.solution is not None:
        wanted.remove("answer")
    by_lower = {column.lower(): column for column in table.columns}
    for column in wanted:
        if _has(table, column):  # where no row could be read, the rows' own errors say more
            continue
        nearest = [by_lower[match] for match in difflib.get_close_matches(column.lower(), by_lower)]
        hint = f"nearest: {', '.join(map(repr, nearest))}; " if nearest else ""
        shown, more = table.columns[:COLUMNS_SHOWN], len(table.columns) - COLUMNS_SHOWN
        present = ", ".join(map(repr, shown)) + (f" and {more:,} more" if more > 0 else "")
        raise DataError(f"{table.label}: no column {column!r}; {hint}its columns: {present}")


def _collect(
    table: Table, columns: _Columns, on_bad_row: str, limit: int | None, *, needs_solution: bool
) -> LoadedProblems:
    """Read rows until there are `limit` problems or no more rows."""
    id_column = next((column for column in ID_COLUMNS if column in table.columns), None)
    problems, own_ids, skipped = [], [], []
    for number, row in table.rows:
        try:
            problems.append(_problem_of(number, row, columns, needs_solution=needs_solution))
        except BadRow as bad:
            if on_bad_row == "error":
                fix = 'on_bad_row="skip", on the command line --data.on_bad_row skip, leaves such rows out'
                raise DataError(f"{table.place(number)}: {bad} ({fix})") from None
            skipped.append(SkippedRow(number, str(bad)))
            continue
        own_ids.append(_own_id(row, id_column))
        if len(problems) == limit:
            break
    if not problems and skipped:
        first = f"{table.place(skipped[0].number)}: {skipped[0].reason}"
        raise DataError(f"{table.label}: no usable problem: all {len(skipped)} rows are bad, the first of them {first}")
    if not problems:
        raise DataError(f"{table.label}: no problem in it: it has no rows")
    if None in own_ids or len(set(own_ids)) < len(own_ids):
        return LoadedProblems(problems, skipped, None)
    named = [replace(problem, id=own_id) for problem, own_id in zip(problems, own_ids, strict=True)]
    return LoadedProblems(named, skipped, id_column)


def _problem_of(number: int, row: object, columns: _Columns, *, needs_solution: bool) -> Problem:
    """The row's problem, for now with its row number as its id. Raises BadRow."""
    if isinstance(row, BadRow):
        raise row
    if not isinstance(row, Mapping):
        raise BadRow(f"is a JSON {type(row).__name__}, not an object of columns")
    asked = cell(row, columns.problem)
    problem = text_of(asked, columns.problem, "user")
    given = None if columns.solution is None else cell(row, columns.solution)
    if columns.solution is None or (not needs_solution and is_blank(given)):
        solution = ""
    elif columns.solution == columns.answer and (digits := number_text(given, columns.solution)) is not None:
        solution = digits
    else:
        solution = text_of(given, columns.solution, "assistant")
    is_prompt = columns.answer is None and columns.solution is None
    answer, tolerance = "" if is_prompt else _answer(row, columns, solution), _tolerance(row, columns.tolerance)
    return Problem(str(number), problem, solution, answer, system_of(asked), tolerance)


def _answer(row: Mapping[str, Any], columns: _Columns, solution: str) -> str:
    if columns.answer is not None and columns.answer != columns.solution:
        given = structured(cell(row, columns.answer), columns.answer)
        if isinstance(given, list) and len(given) == 1 and not is_turns(given):
            given = given[0]
        if isinstance(given, list) and not is_turns(given) and given:
            if columns.several:
                texts = [number_text(one, columns.answer) or text_of(one, columns.answer, "assistant") for one in given]
                return ", ".join(text.strip() for text in texts)
            raise BadRow(f"the column {columns.answer!r} holds {len(given)} answers, and one is read")
        if (number := None if is_blank(given) else number_text(given, columns.answer)) is not None:
            return number
        if columns.solution is None or not is_blank(given):
            text = text_of(given, columns.answer, "assistant")
            return _after_hashes(text) or ((extract_answer(text) or text).strip() if is_turns(given) else text.strip())
    answer = (extract_answer(solution) or "").strip() or _after_hashes(solution)
    if not answer and columns.answer == columns.solution and "\n" not in solution.strip():
        answer = solution.strip()
    if not answer:
        raise BadRow(rf"no answer: column {columns.answer!r} has none, and the solution no \boxed{{}} and no last ####")
    return answer


def _tolerance(row: Mapping[str, Any], column: str | None) -> float | None:
    """The tolerance of a row: a number, or one as text; of several, which are for several answers, the least."""
    if column is None or is_blank(given := cell(row, column)):
        return None
    try:
        tolerance = min(map(float, given.split(","))) if isinstance(given, str) else float(given)
    except (TypeError, ValueError):
        tolerance = math.nan
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise BadRow(f"the column {column!r} holds {given!r:.40}, which is no tolerance")
    return tolerance


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
