"""The prompts that are to be completed, as text and as tokens. Imports no jax."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from egrsd_jax.data.literal import text_ids
from egrsd_jax.data.problems import Problem, load_problems
from egrsd_jax.data.prompts import PROBLEM_ALONE, PromptTemplates, encode_student
from egrsd_jax.data.tables import open_table
from egrsd_jax.evaluate.benchmarks import built_in_problems
from egrsd_jax.sample.settings import SampleSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Prompt(NamedTuple):
    """A prompt, its id (its row's, or its line), what messages call it, and the system's turn that its row has."""

    id: str
    text: str
    place: str
    system: str = ""


def read_prompts(settings: SampleSettings, *, built_in: str | None) -> list[Prompt]:
    """The prompt, all prompts of the file, or where neither is given a held-out problem of the `built_in` model.

    Raises ValueError where a file's row holds no prompt, or where there is no prompt at all.
    """
    if settings.prompt is not None:
        return [Prompt("0", settings.prompt, "--prompt")]
    if settings.file is None:
        if built_in is None:
            raise ValueError("give --prompt or --file: only a built-in model has problems of its own")
        problem = built_in_problems(built_in, 1)[0].problem
        return [Prompt("0", problem, "the problem")]
    return _of_text(settings.file) if settings.file.suffix == ".txt" else _of_rows(settings.file, settings.column)


def encode_prompt(
    tokenizer: "PreTrainedTokenizerBase", prompt: Prompt, *, raw: bool = False, thinking: bool = True, system: str = ""
) -> list[int]:
    """The token ids that a model reads: the prompt as a user's turn, after one of the `system` or else of its row if
    any, or `raw` as it is.

    Raises ValueError for a prompt that comes to no token, or that has words the tokenizer does not know.
    """
    if raw:
        ids = tokenizer.encode(prompt.text, add_special_tokens=False)
    else:
        templates = PromptTemplates(student=PROBLEM_ALONE, student_thinking=thinking, system=system)
        ids = encode_student(tokenizer, templates, Problem(prompt.id, prompt.text, "", "", prompt.system))
    if not ids:
        raise ValueError(f"{prompt.place} is empty: {prompt.text!r} has no token")
    # Of the prompt's own words: a chat template may begin with a token that is also the unknown one, as OLMo's does.
    if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in text_ids(tokenizer, prompt.text):
        raise ValueError(
            f"{prompt.place}: this model's tokenizer does not know every word of {prompt.text!r:.100}; the built-in "
            "model reads problems such as '7 + 5 * 3 - 8 + 6' alone"
        )
    return ids


def _of_text(file: Path) -> list[Prompt]:
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 ({error.reason} at byte {error.start})") from None
    prompts = [
        Prompt(str(number), line.rstrip("\r"), f"{file}, line {number}")
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if not prompts:
        raise ValueError(f"{file} is empty; it has one prompt a line")
    return prompts


def _of_rows(file: Path, column: str | None) -> list[Prompt]:
    column = column or _default_column(file)
    problems = load_problems(str(file), problem=column, answer=None, solution=None, needs_answer=False).problems
    return [Prompt(problem.id, problem.problem, f"{file}, prompt {problem.id}", problem.system) for problem in problems]


def _default_column(file: Path) -> str:
    """`prompt`, or `problem` where the rows have that alone; a wrong row is an error when it is read."""
    columns = open_table(str(file), ["prompt", "problem"], "train", None).columns
    return "problem" if "problem" in columns and "prompt" not in columns else "prompt"
