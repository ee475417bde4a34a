"""Student and teacher prompts: a problem, worded by a template, as one user turn of the model's chat template.

Only the teacher's prompt contains the reference solution. Both end where the completion begins, so that the same
completion tokens follow either one.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from egrsd_jax.data.problems import Problem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_REQUEST = r"Reason step by step, and finish by putting the answer alone in \boxed{}."

PROBLEM_ALONE = "{problem}"  # a user's turn that is the problem, or any prompt, and nothing else

STUDENT_TEMPLATE = PROBLEM_ALONE + "\n\n" + _REQUEST

TEACHER_TEMPLATE = f"""{{problem}}

A reference solution of this problem follows.
=== reference solution begins ===
{{solution}}
=== reference solution ends ===

Read it until you understand why every step holds. Then derive the answer anew, in your own words. {_REQUEST}"""

CONCISE_TEMPLATE = (
    "{problem}\n\n"
    "Be concise: write the steps that the answer needs, each as briefly as it can be said, and nothing else. "
    + _REQUEST
)

_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")  # {} alone stays: templates ask for \boxed{}
_TURN_ENDS = ("<|im_end|>", "<|endoftext|>")  # Qwen's end of a turn and end of a document


@dataclass(frozen=True)
class PromptTemplates:
    r"""The wording of both prompts, and whether the chat template's thinking mode is on for each.

    `{problem}` and `{solution}` stand for the problem's texts, in which braces mean nothing. A teacher that is not
    `privileged` is shown no solution. Raises ValueError for a template without `{problem}`, a privileged teacher's
    without `{solution}`, any other's with it, or any other `{name}`.
    """

    student: str = STUDENT_TEMPLATE
    teacher: str = TEACHER_TEMPLATE
    student_thinking: bool = False
    teacher_thinking: bool = True
    privileged: bool = True

    def __post_init__(self) -> None:
        _check_placeholders("student", self.student, {"problem"})
        _check_placeholders("teacher", self.teacher, {"problem", "solution"} if self.privileged else {"problem"})


class TooLong(NamedTuple):
    """A problem whose prompts exceed the budget, with the length of both in tokens."""

    id: str
    student_tokens: int
    teacher_tokens: int


class EncodedProblems(NamedTuple):
    """The problems that fit, the ids of both their prompts (one list per problem), and those that are too long."""

    problems: list[Problem]
    student_prompts: list[list[int]]
    teacher_prompts: list[list[int]]
    too_long: list[TooLong]


def encode_student(tokenizer: "PreTrainedTokenizerBase", templates: PromptTemplates, problem: Problem) -> list[int]:
    """The token ids of the prompt without privileged information, up to where the model's turn begins."""
    text = _filled(templates.student, {"problem": problem.problem})
    return _user_turn(tokenizer, text, templates.student_thinking)


def encode_teacher(tokenizer: "PreTrainedTokenizerBase", templates: PromptTemplates, problem: Problem) -> list[int]:
    """The token ids of the teacher's prompt, with the reference solution where it is privileged, up to where the
    model's turn begins.

    Raises ValueError for a problem that was read without its solution.
    """
    if templates.privileged and not problem.solution.strip():
        raise ValueError(f"problem {problem.id} has no solution, and the teacher's prompt needs one")
    text = _filled(templates.teacher, {"problem": problem.problem, "solution": problem.solution})
    return _user_turn(tokenizer, text, templates.teacher_thinking)


def encode_reference(tokenizer: "PreTrainedTokenizerBase", problem: Problem) -> list[int]:
    """The reference solution as a completion: its token ids and the end of the turn.

    Raises ValueError for a tokenizer without one.
    """
    end = tokenizer.eos_token_id
    if not isinstance(end, int):
        raise ValueError("the tokenizer has no eos_token, which ends a solution; set it in its tokenizer_config.json")
    return [*tokenizer.encode(problem.solution, add_special_tokens=False), end]


def encode_problems(
    tokenizer: "PreTrainedTokenizerBase",
    templates: PromptTemplates,
    problems: Sequence[Problem],
    *,
    max_prompt_tokens: int,
    teacher_problems: Sequence[Problem] | None = None,
) -> EncodedProblems:
    """Encode both prompts of every problem; keep, in order, the problems whose two prompts fit `max_prompt_tokens`.

    `teacher_problems` hold the solutions of the teacher's prompts, where they are not the problems' own. Prompts
    are never truncated: a problem with a prompt over the budget is listed in `too_long`.
    Raises ValueError if no problem fits.
    """
    encoded = EncodedProblems([], [], [], [])
    for problem, privileged in zip(problems, problems if teacher_problems is None else teacher_problems, strict=True):
        student = encode_student(tokenizer, templates, problem)
        teacher = encode_teacher(tokenizer, templates, privileged)
        if max(len(student), len(teacher)) > max_prompt_tokens:
            encoded.too_long.append(TooLong(problem.id, len(student), len(teacher)))
            continue
        encoded.problems.append(problem)
        encoded.student_prompts.append(student)
        encoded.teacher_prompts.append(teacher)
    if not encoded.problems:
        lengths = [max(long.student_tokens, long.teacher_tokens) for long in encoded.too_long]
        reason = f"they take {min(lengths)} to {max(lengths)} tokens" if lengths else "there are no problems"
        raise ValueError(f"no problem's prompts fit max_prompt_tokens={max_prompt_tokens}: {reason}")
    return encoded


def stop_token_ids(
    tokenizer: "PreTrainedTokenizerBase", generation_config_eos: int | Sequence[int] | None = None
) -> tuple[int, ...]:
    """The ids that end a completion, ascending: the tokenizer's end of sequence, Qwen's two, and the model's own.

    `generation_config_eos` is `eos_token_id` of the checkpoint's generation_config.json. Raises ValueError if there
    is none at all, since every completion would then run to its cap.
    """
    vocabulary = tokenizer.get_vocab()
    stops = {vocabulary[token] for token in (*_TURN_ENDS, tokenizer.eos_token) if token in vocabulary}
    if generation_config_eos is not None:
        stops.update([generation_config_eos] if isinstance(generation_config_eos, int) else generation_config_eos)
    if not stops:
        raise ValueError(
            f"no stop token: the tokenizer has no eos_token and neither of {', '.join(_TURN_ENDS)}; "
            "set eos_token in its tokenizer_config.json"
        )
    return tuple(sorted(stops))


def _check_placeholders(whose: str, template: str, allowed: set[str]) -> None:
    placeholders = set(_PLACEHOLDER.findall(template))
    for name in sorted(placeholders - allowed):
        known = " and ".join(f"{{{known}}}" for known in sorted(allowed))
        raise ValueError(f"the {whose}'s template has the placeholder {{{name}}}; it may have only {known}")
    for name in sorted(allowed - placeholders):
        raise ValueError(f"the {whose}'s template lacks the placeholder {{{name}}}: {template!r}")


def _filled(template: str, texts: dict[str, str]) -> str:
    """Replace the placeholders in one pass, so that nothing inside a replacement is taken for a placeholder."""
    return _PLACEHOLDER.sub(lambda match: texts[match[1]], template)


def _user_turn(tokenizer: "PreTrainedTokenizerBase", text: str, thinking: bool) -> list[int]:
    """One user turn and the opening of the model's. With thinking off, Qwen3's template closes an empty think block
    here; with it on, `<think>` is the model's to sample.
    """
    if tokenizer.chat_template is None:
        raise ValueError(f"the tokenizer {tokenizer.name_or_path!r} has no chat template; take a chat model's")
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True, enable_thinking=thinking
    )
    return tokenizer.encode(str(rendered), add_special_tokens=False)  # the chat template has written them all
