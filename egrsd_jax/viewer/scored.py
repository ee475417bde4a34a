"""A completion with the numbers of its tokens: what an analysis keeps, one per line of `scored.jsonl`, for any
reader."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from egrsd_jax.runs.files import numbered_rows, write_rows

DECIMALS = 5  # of nats and weights in the file

Alternatives = list[list[tuple[str, float]]]  # of every token, the likeliest: text and log-probability in nats


@dataclass(frozen=True)
class ScoredCompletion:
    """A completion and, for each of its tokens, the scores of student and teacher. Nats throughout.

    Attributes:
        problem: its id.
        text: the completion without special tokens; `token_texts` joined is the same with them.
        answer: the answer that was extracted from it, and `reference_answer` the correct one.
        stopped: whether it ended by itself, not at the cap.
        advantage: what its tokens' updates are multiplied by; its sign is their direction.
        step: gradient steps before it was sampled.
        tokens: their ids, the end of turn included.
        student_logp, teacher_logp: log-probability of each token; `delta` the second less the first.
        teacher_entropy, student_entropy: over the whole vocabulary at the token's position.
        weight: w, the clipped likelihood ratio.
        gate, gate_lookahead: omega without and with the lookahead.
        entropy_lookahead: least teacher entropy within the lookahead's window.
        regime: `lock`, `mid`, `pivot` or `fork`.
        teacher_top, student_top: the likeliest tokens at each position. They and `student_entropy` are None where no
            model was run for them.
    """

    problem: str
    text: str
    answer: str | None
    reference_answer: str
    correct: bool
    stopped: bool
    reward: float
    advantage: float
    step: int
    tokens: list[int]
    token_texts: list[str]
    student_logp: list[float]
    teacher_logp: list[float]
    teacher_entropy: list[float]
    student_entropy: list[float] | None
    delta: list[float]
    weight: list[float]
    gate: list[float]
    gate_lookahead: list[float]
    entropy_lookahead: list[float]
    regime: list[str]
    teacher_top: Alternatives | None
    student_top: Alternatives | None


def write_scored(file: Path, completions: Iterable[ScoredCompletion]) -> None:
    """One completion per line."""
    write_rows(file, map(asdict, completions), only_ascii=False)


def read_scored(file: Path) -> list[ScoredCompletion]:
    """What `write_scored` wrote. Raises FileNotFoundError, or ValueError that names the line that is no completion."""
    if not file.is_file():
        raise FileNotFoundError(f"there is no {file}; `egrsd analyze` writes one")
    completions = []
    for number, row in numbered_rows(file):
        try:
            for name in ("teacher_top", "student_top"):
                row[name] = row[name] and [[(text, logp) for text, logp in place] for place in row[name]]
            completions.append(ScoredCompletion(**row))
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{file}, line {number}, is not a scored completion: {error!r}") from None
    return completions
