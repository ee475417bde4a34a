"""A completion with the numbers of its tokens: what an analysis keeps, one a line of `scored.jsonl`, for any reader."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from egrsd_jax.runs.files import numbered_rows, write_rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DECIMALS = 5  # of nats and weights in the file
_INCOMPLETE = "�"  # what a decoder shows for bytes that are no whole character yet

Alternatives = list[list[tuple[str, float]]]  # of every token, the likeliest: text and log-probability in nats


@dataclass(frozen=True)
class ScoredCompletion:
    """A completion and, for each of its tokens, what student and teacher think of it. Nats throughout.

    Attributes:
        problem: its id.
        text: the completion without special tokens; `token_texts` joined is the same with them.
        answer: the answer that was found in it, and `reference_answer` the right one.
        stopped: whether it ended by itself, not at the cap.
        advantage: what its tokens' updates are multiplied by; its sign is their direction.
        step: gradient steps before it was drawn.
        tokens: their ids, the end of turn included.
        student_logp, teacher_logp: log-probability of each token; `delta` the second less the first.
        teacher_entropy, student_entropy: over the whole vocabulary where the token stands.
        weight: w, the clipped likelihood ratio.
        gate, gate_lookahead: omega without and with the lookahead.
        entropy_lookahead: least teacher entropy within the lookahead's window.
        regime: `lock`, `mid`, `pivot` or `fork`.
        teacher_top, student_top: the likeliest tokens at each place. They and `student_entropy` are None where no
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


def token_texts(tokenizer: "PreTrainedTokenizerBase", tokens: Sequence[int]) -> list[str]:
    """A text for each token, special ones included, so that joined they are the whole text.

    Each is what the token adds behind the one before it, so that spaces between tokens stay. Where a character is
    spread over several tokens, the last of them has it and the others are empty.
    """

    def decode(start: int, end: int) -> str:
        return str(tokenizer.decode(list(tokens[start:end]), clean_up_tokenization_spaces=False))

    texts, before, begun = [], 0, 0  # the character before begins at token `before`, the one being read at `begun`
    for end in range(1, len(tokens) + 1):
        text = decode(before, end)
        if text.endswith(_INCOMPLETE) and end < len(tokens):
            texts.append("")
            continue
        texts.append(text[len(decode(before, begun)) :])
        before, begun = begun, end
    return texts
