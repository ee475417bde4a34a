"""What a row has under a column: text, numbers, turns of a conversation, fields inside of fields. Imports no jax."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal

from egrsd_jax.data.tables import BadRow

_PRINTED = re.compile(r"\s*\[\s*\{\s*'(role|content|from|value)'\s*:")  # a conversation as Python prints it
_STRUCTURE = re.compile(r"""\s*[\[{]\s*(?P<quote>["']).*[\]}]\s*""", re.DOTALL)  # a list of texts or fields, as text
_ROLES = {"human": "user", "gpt": "assistant", "model": "assistant", "bot": "assistant"}  # of ShareGPT and others

Role = Literal["user", "assistant"]


def cell(row: Mapping[str, Any], column: str) -> Any:
    """The value of a column, or of `a.b`, the field b in what the column a holds; None where there is none.

    A conversation that a table of text holds as JSON is one. Raises BadRow for one that Python printed.
    """
    value = _field(row, column)
    if isinstance(value, str) and value.lstrip().startswith("["):
        if _PRINTED.match(value):
            raise BadRow(f"the column {column!r} holds a conversation as Python prints it; write it as JSON")
        turns = _parsed(value)
        return turns if is_turns(turns) and all({"role", "from"} & turn.keys() for turn in turns) else value
    return value


def _field(row: Mapping[str, Any], column: str) -> Any:
    if column in row:
        return row[column]
    top, *inner = column.split(".")
    value = row.get(top)
    for name in inner:
        if isinstance(value, str):
            value = _parsed(value)
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def is_blank(value: Any) -> bool:
    """Whether there is nothing: null, a text of blanks, or NaN, which pandas writes for a gap."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value))


def text_of(value: Any, column: str, role: Role) -> str:
    """The text of a cell, or of its conversation's turn of a role. Raises BadRow where there is none."""
    if is_turns(value):
        value = _turn(turns_of(value), column, role)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, bytes):
        try:
            value = value.decode("utf-8")
        except UnicodeDecodeError:
            raise BadRow(f"the column {column!r} holds bytes that are not UTF-8") from None
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise BadRow(f"the column {column!r} is missing or null")
    if isinstance(value, Mapping):
        fields = ", ".join(f"{column}.{name}" for name in value)
        raise BadRow(f"the column {column!r} holds fields, not text; name one of them: {fields}")
    if not isinstance(value, str):
        raise BadRow(f"the column {column!r} holds {value!r:.40} ({type(value).__name__}), not text")
    if not value.strip():
        raise BadRow(f"the column {column!r} is empty")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:  # JSON can spell half of a surrogate pair; no tokenizer takes it
        raise BadRow(f"the column {column!r} is not valid Unicode ({error.reason})") from None
    return value


def number_text(value: Any, column: str) -> str | None:
    """A number as the digits of an answer: 42 for 42.0, which pandas makes of 42 in a column with gaps. None for what
    is no number. Raises BadRow for one that is not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    if not math.isfinite(value):
        raise BadRow(f"the column {column!r} holds {value}, which is no answer")
    if isinstance(value, int) or value == int(value):
        return str(int(value))
    return format(Decimal(repr(value)) if isinstance(value, float) else value.normalize(), "f")


def structured(value: Any, column: str) -> Any:
    """The list of texts or the fields that a text of JSON holds, or the value itself. Raises BadRow for those that
    Python printed."""
    match = _STRUCTURE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return value
    if match["quote"] == "'":
        raise BadRow(f"the column {column!r} holds {value!r:.40} as Python prints it; write it as JSON, or as text")
    held = _parsed(value)
    is_texts = isinstance(held, list) and all(isinstance(text, str) for text in held)
    return held if is_texts or isinstance(held, Mapping) else value


def is_turns(value: Any) -> bool:
    """Whether a cell holds a conversation: turns with a role and content, in a list or as lists of both."""
    if isinstance(value, Mapping):  # how `datasets` once kept a list of turns
        return all(isinstance(value.get(name), list) for name in ("role", "content"))
    return isinstance(value, list) and bool(value) and all(isinstance(turn, Mapping) for turn in value)


def turns_of(value: Any) -> list[tuple[str, str]]:
    """A conversation as pairs of role and text. Raises BadRow for a turn without text."""
    if isinstance(value, Mapping):
        pairs: Sequence[tuple[Any, Any]] = list(zip(value["role"], value["content"], strict=False))
    else:
        pairs = [(turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))) for turn in value]
    return [(_ROLES.get(role, str(role)), _content(content)) for role, content in pairs]


def system_of(value: Any) -> str:
    """The system's turn of a conversation; empty where there is none."""
    if not is_turns(value):
        return ""
    return "\n\n".join(text for role, text in turns_of(value) if role == "system")


def _turn(turns: Sequence[tuple[str, str]], column: str, role: Role) -> str:
    texts = [text for own, text in turns if own == role]
    if len(texts) != 1:
        roles = ", ".join(own for own, _ in turns)
        raise BadRow(f"the column {column!r} holds {len(texts)} turns of the {role} ({roles}); exactly one is read")
    return texts[0]


def _content(content: Any) -> str:
    """A turn's text, or that of its parts."""
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, Mapping) else part for part in content]
        if all(isinstance(part, str) for part in parts):
            return "".join(map(str, parts))
    if not isinstance(content, str):
        raise BadRow(f"a turn holds {content!r:.40}, and only text is read")
    return content


def _parsed(text: str) -> Any:
    """What a text of JSON holds, or the text itself."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
