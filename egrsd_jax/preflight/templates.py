"""How a chat template opens the model's turn and ends it, and which ids end a completion. Imports no jax."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from egrsd_jax.config import PromptSettings
from egrsd_jax.data.prompts import render_chat, thinking_note, user_turn
from egrsd_jax.data.tokenizer import generation_eos

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ASKED, ANSWERED = "6 * 7 = ?", "480"  # digits that the built-in tasks' tokenizers read, and that differ
TAIL = 4  # last tokens of a prompt that are shown


@dataclass(frozen=True)
class Turns:
    """What a template writes around the model's turn.

    `opening` is what it adds after the user's turn, for student and teacher; None where it adds nothing on request.
    `end` is what it writes after the model's words, and `end_id` the first token of that, None where it writes nothing.
    `stops` are the ids that end a completion; `eos` is the tokenizer's of them, and `generation` what
    generation_config.json has. Tails are the last tokens of a real prompt. `thinking` is a note where the template does
    not do what the fields on thinking ask.
    """

    student_opening: str | None
    teacher_opening: str | None
    end: str
    end_id: int | None
    end_token: str | None
    stops: dict[int, str]
    eos: int | None
    generation: tuple[int, ...]
    student_tail: tuple[str, ...]
    teacher_tail: tuple[str, ...]
    thinking: str | None


def read_turns(
    tokenizer: "PreTrainedTokenizerBase",
    folder: Path,
    stop_ids: tuple[int, ...],
    prompt: PromptSettings,
    student_prompt: list[int],
    teacher_prompt: list[int],
    teacher_thinking: bool,
) -> Turns:
    """Raises ValueError, one line, for a template that refuses a conversation."""
    eos = generation_eos(folder)
    end = _end(tokenizer)
    ids = tokenizer.encode(end.lstrip(), add_special_tokens=False) if end.strip() else []
    wanted = {"prompt.student_thinking": prompt.student_thinking, "prompt.teacher_thinking": teacher_thinking}
    return Turns(
        student_opening=_opening(tokenizer, prompt.student_thinking),
        teacher_opening=_opening(tokenizer, teacher_thinking),
        end=end,
        end_id=ids[0] if ids else None,
        end_token=str(tokenizer.convert_ids_to_tokens(ids[0])) if ids else None,
        stops={token: str(tokenizer.convert_ids_to_tokens(token)) for token in stop_ids},
        eos=tokenizer.eos_token_id if isinstance(tokenizer.eos_token_id, int) else None,
        generation=() if eos is None else (eos,) if isinstance(eos, int) else tuple(eos),
        student_tail=_tail(tokenizer, student_prompt),
        teacher_tail=_tail(tokenizer, teacher_prompt),
        thinking=thinking_note(tokenizer, wanted),
    )


def _opening(tokenizer: "PreTrainedTokenizerBase", thinking: bool) -> str | None:
    opened = render_chat(tokenizer, user_turn(ASKED), thinking)
    closed = _rendered(tokenizer, user_turn(ASKED), thinking)
    return opened.removeprefix(closed) if opened != closed and opened.startswith(closed) else None


def _end(tokenizer: "PreTrainedTokenizerBase") -> str:
    """What the template writes after the model's words. Thoughts are before them, whichever mode it is."""
    rendered = _rendered(tokenizer, [*user_turn(ASKED), {"role": "assistant", "content": ANSWERED}], thinking=False)
    _, words, end = rendered.rpartition(ANSWERED)
    if not words:
        raise ValueError(
            f"{tokenizer.name_or_path}: its chat template leaves out the model's turn {ANSWERED!r}; put a template for "
            "text alone into the model's folder as chat_template.jinja"
        )
    return end


def _rendered(tokenizer: "PreTrainedTokenizerBase", turns: list[dict[str, str]], thinking: bool) -> str:
    try:
        return str(
            tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=False, enable_thinking=thinking)
        )
    except Exception as error:  # a template is a program, and raises what it likes
        reason = " ".join(str(error).split()) or repr(error)
        raise ValueError(
            f"{tokenizer.name_or_path}: its chat template refuses a conversation that it does not open a turn in: "
            f"{reason}; put a template for chat into the model's folder as chat_template.jinja"
        ) from error


def _tail(tokenizer: "PreTrainedTokenizerBase", prompt: list[int]) -> tuple[str, ...]:
    return tuple(str(tokenizer.decode([token])) for token in prompt[-TAIL:])
