"""Completions with the numbers of their tokens, as one HTML file that needs nothing else and asks no network.

Whatever a model wrote is data in it: JSON in script elements, in ASCII and with nothing that could end one, and shown
as text alone. The page itself is in viewer/assets.
"""

import base64
import hashlib
import html
import json
import math
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import numpy as np

SCRIPTS = ("text.js", "data.js", "panel.js", "viewer.js", "controls.js")
SUMMARY = ("problem", "correct", "stopped", "step", "answer", "reference_answer", "reward", "advantage")
COLUMNS = (
    "student_logp",
    "teacher_logp",
    "teacher_entropy",
    "student_entropy",
    "entropy_lookahead",
    "delta",
    "weight",
    "gate",
    "gate_lookahead",
)
TOPS = ("teacher_top", "student_top")
FIELDS = (*SUMMARY, *COLUMNS, "regime", *TOPS)
GATES = ("gate", "gate_lookahead")
REGIMES = ("lock", "mid", "pivot", "fork")
UNIT = 10_000  # numbers are kept as whole ten-thousandths: a third of the characters
SHOWN_SHARE = 0.98  # of the tokens are between the ends of a scale whose values have a long tail
SMALLEST_SCALE = 0.01  # a scale on which all values are equal still has two ends

Row = dict[str, Any]


def viewer_html(rows: Sequence[Row], *, title: str, lookahead: bool = False) -> str:
    """The page for some completions, complete.

    Args:
        rows: one per completion, as in scored.jsonl: `problem`, `tokens` (ids) and `token_texts`; and any of `correct`,
            `stopped`, `reward`, `advantage`, `step`, `answer`, `reference_answer`, the lists of numbers `COLUMNS`
            (log-probabilities and entropies in nats), `regime`, and the likeliest tokens `teacher_top` and
            `student_top` (for each token pairs of text and log p). What is None or not there is shown as missing.
        title: of the page.
        lookahead: whether the token advantage takes `gate_lookahead`, as CL-EGRSD does, and not `gate`.

    Raises:
        ValueError: there are no rows, or one lacks what it needs, has lists of different lengths or a number that is
            not finite; the message names the row, counted from 1.
    """
    if not rows:
        raise ValueError("there are no completions to show; give a file with at least one")
    strings: dict[str, int] = {}
    tokens = []
    for number, row in enumerate(rows, start=1):
        where = f"row {number} (problem {row.get('problem', '?')})"
        _check(where, row)
        tokens.append(_token_data(where, row, strings))
    gate = GATES[lookahead]
    index = {
        "unit": UNIT,
        "gate": gate,
        "has": {name: any(row.get(name) is not None for row in rows) for name in FIELDS},
        "scales": _scales(rows, gate),
        "rows": [_row_data(row, strings) for row in rows],
        "strings": list(strings),
    }
    return _page(title, {"index": index, **{f"tokens-{number}": data for number, data in enumerate(tokens)}})


def _check(where: str, row: Row) -> None:
    """Raises ValueError where a row cannot be shown as it is."""
    for name in ("problem", "tokens", "token_texts"):
        if row.get(name) is None:
            hint = "; give the run's folder, whose tokenizer knows them" if name == "token_texts" else ""
            raise ValueError(f"{where} has no {name}{hint}; a row has at least problem, tokens and token_texts")
    for name in ("token_texts", *COLUMNS, "regime", *TOPS):
        if (values := row.get(name)) is not None and len(values) != len(row["tokens"]):
            raise ValueError(
                f"{where}: {name} has {len(values)} entries and tokens {len(row['tokens'])}; a list has one per token"
            )
    for name in COLUMNS:
        try:
            finite = np.isfinite(_values(row, name))
        except (TypeError, ValueError):
            raise ValueError(f"{where}: {name} holds something else than numbers; it has one per token") from None
        if not finite.all():
            position = int(np.argmin(finite))
            raise ValueError(
                f"{where}: {name} of token {position + 1} is {row[name][position]}; it has to be a finite number, or "
                "the whole list null"
            )
    if unknown := set(row.get("regime") or ()) - {*REGIMES}:
        raise ValueError(f"{where}: there is no regime {unknown.pop()!r}; they are {', '.join(REGIMES)}")


def _row_data(row: Row, strings: dict[str, int]) -> Row:
    """What the page needs of a completion before its numbers: its summary, and the text to search in."""
    texts = [_number_of(text or "\ufffd", strings) for text in row["token_texts"]]  # "" ends within a character
    return {name: row.get(name) for name in SUMMARY} | {"texts": texts}


def _token_data(where: str, row: Row, strings: dict[str, int]) -> Row:
    """The numbers of a completion's tokens; a list that the row lacks is left out."""
    data: Row = {"ids": row["tokens"]}
    for name in COLUMNS:
        if row.get(name) is not None:
            data[name] = np.rint(UNIT * _values(row, name)).astype(int).tolist()
    if row.get("regime") is not None:
        data["regime"] = "".join(regime[0] for regime in row["regime"])
    for name in TOPS:
        if row.get(name) is not None:
            try:
                data[name] = [_pairs(pairs, strings) for pairs in row[name]]
            except (TypeError, ValueError, OverflowError):
                raise ValueError(
                    f"{where}: {name} holds something else than pairs of text and finite log p; it has a list of them "
                    "for each token"
                ) from None
    return data


def _pairs(pairs: Sequence[tuple[str, float]], strings: dict[str, int]) -> list[int]:
    """Text and log p by turns, both as whole numbers."""
    return [part for text, logp in pairs for part in (_number_of(text, strings), round(UNIT * logp))]


def _number_of(text: str, strings: dict[str, int]) -> int:
    return strings.setdefault(text, len(strings))


def _scales(rows: Sequence[Row], gate: str) -> dict[str, dict[str, list[float]]]:
    """The ends of each colouring (`shown`) and the least and greatest value (`seen`), over all completions; none for a
    colouring that no completion has numbers for. Both gates share one scale, so that they can be compared."""
    names = ("teacher_entropy", "delta", "weight", *GATES)
    values = {name: np.concatenate([_values(row, name) for row in rows]) for name in names}
    values["token_advantage"] = np.concatenate([_token_advantage(row, gate) for row in rows])
    gates = np.concatenate([values[name] for name in GATES])
    scales = {}
    for name, column in values.items():
        if column.size:
            low, high = _ends(name, gates if name in GATES else column)
            scales[name] = {"shown": [low, high], "seen": [float(column.min()), float(column.max())]}
    return scales


def _ends(name: str, values: np.ndarray) -> tuple[float, float]:
    """The ends of a scale. A gate and w have bounds and are shown whole; the others have long tails, and are not."""
    if name in GATES:
        return 1 - _round_up(float(1 - values.min())), 1.0
    if name == "weight":
        reach = _round_up(float(np.abs(values - 1).max()))
        return 1 - reach, 1 + reach
    reach = _round_up(float(np.quantile(np.abs(values), SHOWN_SHARE)))
    return (0.0 if name == "teacher_entropy" else -reach), reach


def _values(row: Row, name: str) -> np.ndarray:
    """A list of numbers of a row, empty where it has none; None in it is not finite."""
    return np.asarray(row.get(name) or [], float)


def _token_advantage(row: Row, gate: str) -> np.ndarray:
    """A w omega of every token; empty where one of the three is missing."""
    if any(row.get(name) is None for name in ("advantage", "weight", gate)):
        return np.empty(0)
    return row["advantage"] * _values(row, "weight") * _values(row, gate)


def _round_up(value: float) -> float:
    """To two digits, so that a legend reads well."""
    value = max(value, SMALLEST_SCALE)
    step = 10.0 ** (math.floor(math.log10(value)) - 1)
    return round(math.ceil(round(value / step, 6)) * step, 6)


def _page(title: str, data: dict[str, Any]) -> str:
    """The template with style, scripts and data in it. Its policy lets nothing load, and no script run but its own."""
    folder = files("egrsd_jax.viewer") / "assets"
    style = (folder / "viewer.css").read_text(encoding="utf-8")
    script = "".join((folder / name).read_text(encoding="utf-8") for name in SCRIPTS)
    parts = {
        "TITLE": html.escape(title),
        "STYLE": style,
        "STYLE_HASH": _hash(style),
        "SCRIPT": script,
        "SCRIPT_HASH": _hash(script),
        "DATA": "\n".join(
            f'<script type="application/json" id="{name}">{_safe_json(value)}</script>' for name, value in data.items()
        ),
    }
    pieces = (folder / "viewer.html").read_text(encoding="utf-8").split("@")  # names and text by turns
    return "".join(parts[piece] if index % 2 else piece for index, piece in enumerate(pieces))


def _safe_json(value: Any) -> str:
    """JSON in ASCII without <, > and &, which occur only in strings: no text can end the element that holds it."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
