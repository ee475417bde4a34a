"""What a chat template does to a completion: where it begins, in both prompts, and how it ends."""

from collections.abc import Sequence

from egrsd_jax.preflight.checks.line import Judgement, Line
from egrsd_jax.preflight.templates import Turns


def end_of_turn(turns: Turns) -> Line:
    """Whether a completion can end as the chat template ends a turn of the model's."""
    stops = ", ".join(f"{text} {token}" for token, text in turns.stops.items())
    written = "nothing" if turns.end_id is None else f"{turns.end_token} {turns.end_id}"
    value = f"template writes {written}; completions end with {stops}"
    numbers = {
        "template": turns.end_id,
        "eos_token": turns.eos,
        "generation_config": list(turns.generation),
        "stop_ids": list(turns.stops),
    }

    def line(judgement: Judgement, reason: str) -> Line:
        return Line("end_of_turn", "end of turn", value, judgement, reason, numbers)

    if turns.end_id is None:
        return line("look", "the chat template writes nothing after the model's turn: is it this model's?")
    if turns.end_id not in turns.stops:
        return line(
            "stop",
            "the template ends a turn with a token that ends no completion here: it is another model's, or "
            "eos_token (tokenizer_config.json) and eos_token_id (generation_config.json) are",
        )
    others = {"eos_token": turns.eos, "generation_config.json": turns.generation or None}
    apart = [
        name
        for name, ids in others.items()
        if ids is not None and turns.end_id not in ((ids,) if isinstance(ids, int) else ids)
    ]
    if apart:
        return line("look", f"{' and '.join(apart)} have another end than the template; any of them ends a completion")
    return line("go", "template, tokenizer and generation_config.json agree")


def opening(turns: Turns, *, teaches: bool) -> Line:
    """Whether a completion follows both prompts at the same place; `teaches` where there is a teacher's prompt."""
    student, teacher = (_shown(text) for text in (turns.student_opening, turns.teacher_opening))
    value = student if student == teacher else f"student {student}, teacher {teacher}"
    value += f"; prompts end in {_joined(turns.student_tail)}"
    if turns.teacher_tail != turns.student_tail and teaches:
        value += f" and {_joined(turns.teacher_tail)}"
    numbers = {"student": turns.student_opening, "teacher": turns.teacher_opening, "thinking": turns.thinking}

    def line(judgement: Judgement, reason: str) -> Line:
        return Line("opening", "opening of the model's turn", value, judgement, reason, numbers)

    if turns.student_opening is None:
        return line(
            "look", "the template does not open the model's turn on request: does the prompt end where it writes?"
        )
    if teaches and turns.student_opening != turns.teacher_opening:
        return line(
            "look",
            "the teacher expects another beginning, such as a thought: its delta at first tokens is about that "
            "(prompt.student_thinking, prompt.teacher_thinking)",
        )
    if turns.thinking is not None:
        return line("look", turns.thinking)
    return line("go", "completions follow both prompts at the same place")


def _shown(text: str | None) -> str:
    return "nothing" if text is None else f"'{_one_line(text)}'"


def _joined(tokens: Sequence[str]) -> str:
    return f"'{_one_line(''.join(tokens))}'"


def _one_line(text: str) -> str:
    return text.replace("\n", "\\n").replace("\t", "\\t")
