"""Student and teacher prompts: a problem, worded by a template, as one user turn of the model's chat template.

Only the teacher's prompt contains the reference solution. Both end where the completion begins, so that the same
completion tokens follow either one.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from egrsd_jax.data.literal import encode_rendered
from egrsd_jax.data.problems import Problem
from egrsd_jax.verify.extract import THOUGHT_CLOSES, THOUGHT_OPENS
from egrsd_jax.verify.extract import AnswerFormat as AnswerFormat

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

# After Chain of Draft (arXiv 2502.18600), without its examples and with the answer in a box: the training-free way to
# shorter completions.
CHAIN_OF_DRAFT_TEMPLATE = (
    "{problem}\n\n"
    "Think step by step, but of each step write down a minimal draft alone, five words at most. "
    r"Finish by putting the answer alone in \boxed{}."
)

NAMED_TEMPLATES = {
    "default": STUDENT_TEMPLATE,
    "problem": PROBLEM_ALONE,
    "concise": CONCISE_TEMPLATE,
    "chain_of_draft": CHAIN_OF_DRAFT_TEMPLATE,
}

_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")  # {} alone stays: templates ask for \boxed{}
_TURN_ENDS = ("<|im_end|>", "<|endoftext|>")  # Qwen's end of a turn and end of a document


@dataclass(frozen=True)
class PromptTemplates:
    r"""The wording of both prompts, the turns before it, and whether the chat template's thinking mode is on for each.

    `{problem}` and `{solution}` stand for the problem's texts, in which braces mean nothing. A teacher that is not
    `privileged` is shown no solution. Both prompts begin with the turn of `system`, or without it that of the problem,
    and with the `examples`, pairs of a problem, worded as the student's, and the model's turn that solves it. Raises
    ValueError for a template without `{problem}`, a privileged teacher's without `{solution}`, any other's with it, or
    any other `{name}`.
    """

    student: str = STUDENT_TEMPLATE
    teacher: str = TEACHER_TEMPLATE
    student_thinking: bool = False
    teacher_thinking: bool = True
    privileged: bool = True
    system: str = ""
    examples: tuple[tuple[str, str], ...] = ()

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
    return _encode(tokenizer, templates, templates.student, problem, thinking=templates.student_thinking)


def encode_teacher(tokenizer: "PreTrainedTokenizerBase", templates: PromptTemplates, problem: Problem) -> list[int]:
    """The token ids of the teacher's prompt, with the reference solution where it is privileged, up to where the
    model's turn begins.

    Raises ValueError for a problem that was read without its solution.
    """
    if templates.privileged and not problem.solution.strip():
        raise ValueError(f"problem {problem.id} has no solution, and the teacher's prompt needs one")
    return _encode(tokenizer, templates, templates.teacher, problem, thinking=templates.teacher_thinking)


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
    needs_solution: bool = True,
) -> EncodedProblems:
    """Encode both prompts of every problem; keep, in order, the problems whose two prompts fit `max_prompt_tokens`.

    `teacher_problems` hold the solutions of the teacher's prompts, where they are not the problems' own. Without
    `needs_solution`, a problem that has none has the student's prompt in the place of the teacher's. Prompts are never
    truncated: a problem with a prompt over the budget is listed in `too_long`.
    Raises ValueError if no problem fits, or for a solution that is needed and missing.
    """
    encoded = EncodedProblems([], [], [], [])
    for problem, privileged in zip(problems, problems if teacher_problems is None else teacher_problems, strict=True):
        student = encode_student(tokenizer, templates, problem)
        is_solved = needs_solution or privileged.solution.strip()
        teacher = encode_teacher(tokenizer, templates, privileged) if is_solved else student
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


def render_chat(tokenizer: "PreTrainedTokenizerBase", turns: Sequence[dict[str, str]], thinking: bool) -> str:
    """The turns of a conversation, each a `role` and its `content`, as the chat template writes them, and the opening
    of the model's. With thinking off, Qwen3's template closes an empty think block here; with it on, `<think>` is the
    model's to sample.

    Raises ValueError, one line, where there is no template, where it raises, and where it leaves a turn out.
    """
    name = tokenizer.name_or_path
    if tokenizer.chat_template is None:
        raise ValueError(
            f"the tokenizer {name!r} has no chat template; take a chat model's, or put the one that the model was "
            "trained with into its folder as chat_template.jinja"
        )
    try:
        rendered = str(
            tokenizer.apply_chat_template(
                list(turns), tokenize=False, add_generation_prompt=True, enable_thinking=thinking
            )
        )
    except Exception as error:  # a template is a program, and raises what it likes
        reason = " ".join(str(error).split()) or repr(error)
        hint = (
            "" if turns[0]["role"] == "system" else "; if it wants a system turn, prompt.system or --system gives one"
        )
        raise ValueError(f"{name}: its chat template refuses the conversation: {reason}{hint}") from error
    for turn in turns:
        if (content := turn["content"].strip()) not in rendered:
            raise ValueError(
                f"{name}: its chat template leaves out the {turn['role']}'s turn {content!r:.60}; put a template for "
                "text alone into the model's folder as chat_template.jinja"
            )
    return rendered


def user_turn(text: str) -> list[dict[str, str]]:
    """A conversation of one turn."""
    return [{"role": "user", "content": text}]


def thinking_note(tokenizer: "PreTrainedTokenizerBase", wanted: dict[str, bool]) -> str | None:
    """A note for a chat template that does not do what the fields `wanted` ask: thinking on or off; else None."""
    on, off = (render_chat(tokenizer, user_turn("6 * 7"), thinking) for thinking in (True, False))
    if on != off:
        return None
    thinks = off.rfind(THOUGHT_OPENS) > off.rfind(THOUGHT_CLOSES)
    in_vain = [f"{name} {str(value).lower()}" for name, value in wanted.items() if value != thinks]
    if not in_vain:
        return None
    does = f"opens {THOUGHT_OPENS} whatever it is" if thinks else "never opens a thought"
    return f"the chat template ignores enable_thinking and {does}: {' and '.join(in_vain)} has no effect"


def _encode(
    tokenizer: "PreTrainedTokenizerBase", templates: PromptTemplates, template: str, problem: Problem, *, thinking: bool
) -> list[int]:
    """The system's turn and the examples, the template filled as the user's turn, and the opening of the model's."""
    shown = [text for example in templates.examples for text in example]

    def render(texts: Sequence[str]) -> str:
        system, text, solution, *pairs = texts
        turns = [{"role": "system", "content": system}] if system else []
        for asked, answered in zip(pairs[::2], pairs[1::2], strict=True):
            turns += user_turn(_filled(templates.student, {"problem": asked}))
            turns.append({"role": "assistant", "content": answered})
        turns += user_turn(_filled(template, {"problem": text, "solution": solution}))
        return render_chat(tokenizer, turns, thinking)

    texts = [templates.system or problem.system, problem.problem, problem.solution, *shown]
    return encode_rendered(tokenizer, render, texts)
