"""The completions that the token viewer shows, from a file of scored completions or from a training run's folder."""

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from egrsd_jax.data.detokenizer import token_texts
from egrsd_jax.runs.files import numbered_rows, read_json, read_rows
from egrsd_jax.runs.layout import FINGERPRINTS, SAMPLES, SCORED

if TYPE_CHECKING:
    from egrsd_jax.config import Config

Row = dict[str, Any]


@dataclass(frozen=True)
class Completions:
    """What to show. `lookahead`: whether the method's gate is that of CL-EGRSD."""

    rows: list[Row]
    title: str
    lookahead: bool


def read_completions(
    source: Path, *, step: int | None = None, lookahead: bool = False, base: str | None = None
) -> Completions:
    """The completions of `source`: a scored.jsonl, a folder with one, or a run's folder. Of one step where it is given.

    `base` is where a run's model is now, where it was moved.

    Raises ValueError or OSError of one line: no such file, no completions, a line that is no JSON object, a step that
    is not there.
    """
    if (source / SCORED).is_file():
        source /= SCORED
    if source.is_dir():
        return _of_run(source, step, base)
    title = "/".join(source.resolve().parts[-3:-1]) if source.name == SCORED else source.stem
    return Completions(_at(step, _read_lines(source), source), title, lookahead)


def _read_lines(file: Path) -> list[Row]:
    if not file.is_file():
        raise FileNotFoundError(f"there is no {file}; give a {SCORED} or the folder of a run")
    return [row for _, row in numbered_rows(file)]


def _at(step: int | None, rows: list[Row], source: Path) -> list[Row]:
    if not rows:
        raise ValueError(f"{source} holds no completions; there is nothing to show")
    kept = [row for row in rows if step is None or row.get("step") == step]
    if not kept:
        steps = sorted({row["step"] for row in rows if row.get("step") is not None})
        raise ValueError(f"{source} has no completions of step {step}; it has those of {', '.join(map(str, steps))}")
    return kept


def _of_run(folder: Path, step: int | None, base: str | None) -> Completions:
    """A run's samples, with the texts of their tokens, and regimes where the whole batch of a step is there."""
    from egrsd_jax.data.tokenizer import FILES_BESIDE_WEIGHTS, load_tokenizer
    from egrsd_jax.model.config import read_config
    from egrsd_jax.runs import fingerprint
    from egrsd_jax.runs.restore import base_folder, read_run  # imported late: they bring jax, which a file does without

    config = read_run(folder, "merged", base=base)
    rows = _at(step, read_rows(folder / SAMPLES), folder / SAMPLES)
    model = base_folder(folder, config)
    was = read_json(folder / FINGERPRINTS) if (folder / FINGERPRINTS).is_file() else {}
    if was.get("tokenizer") not in (None, fingerprint.of_files(model / name for name in FILES_BESIDE_WEIGHTS)):
        raise ValueError(
            f"the tokenizer or config.json in {model} is not what it was when {folder} began, so the tokens may read "
            "otherwise; give the run's own model as --base"
        )
    tokenizer, _ = load_tokenizer(model)

    vocab_size = read_config(model).vocab_size
    shown = []
    for _, batch in groupby(rows, key=lambda row: row["step"]):
        batch = [row | {"token_texts": token_texts(tokenizer, row["tokens"])} for row in batch]
        shown += _with_gates(batch, config, vocab_size)
    return Completions(shown, folder.resolve().name, _looks_ahead(config))


def _looks_ahead(config: "Config") -> bool:
    """Whether the recorded gate is omega^CL; a control that moves weights about (`--method.gate`) is neither."""
    from egrsd_jax.objective.settings import GateSettings

    method = config.method
    return isinstance(method, GateSettings) and method.gate == "entropy" and method.is_papers_gate and method.window > 0


def _with_gates(batch: list[Row], config: "Config", vocab_size: int) -> list[Row]:
    """The completions of a step with their regimes, the entropy after the lookahead and, under CL-EGRSD, both gates.

    All of it follows from the recorded entropies of the whole batch, as it did in the step (train/log.py); of a part
    of the batch it does not, and is left out. Completions that were not in the loss have no entropy, and no part in it.
    """
    import numpy as np

    from egrsd_jax.objective.gate import gate, gate_arguments, linear_gate
    from egrsd_jax.objective.regimes import REGIME_NAMES, REGIME_WINDOW, token_regimes
    from egrsd_jax.objective.settings import GateSettings

    scored = [row for row in batch if "teacher_entropy" in row]
    if len(batch) != config.train.batch_size or not scored:
        return [_named_gate(row, config) for row in batch]
    lengths = [len(row["tokens"]) for row in scored]
    mask_BT = np.arange(max(lengths)) < np.array(lengths)[:, None]
    entropy_BT = np.zeros(mask_BT.shape, np.float32)
    entropy_BT[mask_BT] = np.concatenate([row["teacher_entropy"] for row in scored])
    no_gate: dict[str, Any] = {"gamma": 0.0}  # of a method without one the regimes are read, and no weights
    own = gate_arguments(config.method, vocab_size) if isinstance(config.method, GateSettings) else no_gate
    window = own.get("window") or REGIME_WINDOW
    ahead = gate(entropy_BT, mask_BT, **{**own, "window": window})
    regimes_BT = np.asarray(token_regimes(entropy_BT, mask_BT, window=window, entropy_max=ahead.normaliser))
    columns = {"entropy_lookahead": ahead.entropy_BT}
    if _looks_ahead(config):
        columns["gate"] = linear_gate(entropy_BT, mask_BT, ahead.normaliser, gamma=own["gamma"], floor=own["floor"])
    columns = {name: np.asarray(array_BT).astype(float) for name, array_BT in columns.items()}
    made: list[Row] = []
    for index, (row, length) in enumerate(zip(scored, lengths, strict=True)):
        numbers = {name: array_BT[index, :length].round(5).tolist() for name, array_BT in columns.items()}
        regime = [REGIME_NAMES[code] for code in regimes_BT[index, :length]]
        made.append(_named_gate(row, config) | numbers | {"regime": regime})
    in_order = iter(made)
    return [next(in_order) if "teacher_entropy" in row else row for row in batch]


def _named_gate(row: Row, config: "Config") -> Row:
    """The row with its recorded gate under the name that it has in a scored completion."""
    if not _looks_ahead(config) or "gate" not in row:
        return row
    return {name: value for name, value in row.items() if name != "gate"} | {"gate_lookahead": row["gate"]}
