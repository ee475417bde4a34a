"""The problems to train on, and how student and teacher are asked."""

from dataclasses import dataclass
from typing import Literal

from egrsd_jax.data.prompts import CONCISE_TEMPLATE, STUDENT_TEMPLATE, TEACHER_TEMPLATE, AnswerFormat, PromptTemplates
from egrsd_jax.ranges import at_least, check_ranges, require


@dataclass(frozen=True)
class DataSettings:
    r"""The problems to train on.

    Args:
        path: a file (.jsonl, .json, .csv, .tsv, .parquet, .arrow; .gz too) or a folder of them, a Hugging Face data set
            name, or a built-in task: `arithmetic`, `orders`, `words`, `words-easy`, `words-hard`, or
            `words-rechecked` and so on, whose references check steps.
        name: the data set's configuration, on the hub or in a folder, such as `main` of openai/gsm8k.
        split: the data set's split, on the hub or in a folder.
        problem: column of the problem, or a.b, the field b in the column a; of a conversation the user's turn.
        solution: column of the reference solution, which the teacher alone sees; of a conversation the model's turn. A
            method without a teacher that sees it needs none.
        answer: column of the final answer; where it is missing, the solution's last \boxed{} or its #### counts.
        on_bad_row: a row with an empty problem, solution or answer is an error, or is skipped and counted.
        max_prompt_tokens: problems whose student or teacher prompt is longer are skipped and counted.
        train_problems: how many problems a built-in task draws; files and data sets are read whole.
    """

    path: str = "arithmetic"
    name: str | None = None
    split: str = "train"
    problem: str = "problem"
    solution: str = "solution"
    answer: str = "answer"
    on_bad_row: Literal["error", "skip"] = "error"
    max_prompt_tokens: int = 8192
    train_problems: int = 20_000

    def __post_init__(self):
        check_ranges("data.", self, {"max_prompt_tokens": at_least(1), "train_problems": at_least(1)})


@dataclass(frozen=True)
class PromptSettings:
    """What the student and the teacher are asked; `{problem}` and `{solution}` are filled in.

    Args:
        student: the student's user turn.
        teacher: the teacher's user turn.
        concise: the teacher's user turn where method.privilege is `concise`; it has no solution.
        student_thinking: thinking mode of the chat template for the student. On, a small cap cuts most completions off.
        teacher_thinking: thinking mode of the chat template for the teacher.
        system: the system's turn that every prompt begins with; without one it is the one that the data has, if any.
        examples: worked problems that come before every prompt's own turn, a list of pairs of a problem, which is
            worded as the student's, and its solution, which is the model's turn.
        answer_format: where a completion has its answer: in a box, as its last number, or after the last of these words
            on their line. The templates have to ask for it.
    """

    student: str = STUDENT_TEMPLATE
    teacher: str = TEACHER_TEMPLATE
    concise: str = CONCISE_TEMPLATE
    student_thinking: bool = False
    teacher_thinking: bool = True
    system: str = ""
    examples: tuple[tuple[str, str], ...] = ()
    answer_format: AnswerFormat = "boxed"

    def __post_init__(self):
        require(
            (
                all(text.strip() for pair in self.examples for text in pair),
                "prompt.examples has an empty text; it is a list of pairs, a problem and its solution",
            )
        )

    def templates(self, *, thinking: bool | None = None) -> PromptTemplates:
        """What prompts are encoded with; `thinking` in the place of the student's own, where it is given."""
        return PromptTemplates(
            student=self.student,
            teacher=self.teacher,
            student_thinking=self.student_thinking if thinking is None else thinking,
            teacher_thinking=self.teacher_thinking,
            system=self.system,
            examples=self.examples,
        )
