"""The problems of a run and its held-out ones, encoded, and only those that fit."""

from dataclasses import replace
from itertools import compress

import jax

from egrsd_jax.config import Config, EvaluationSettings
from egrsd_jax.data.privilege import teacher_problems, teacher_templates
from egrsd_jax.data.problems import Problem, load_problems
from egrsd_jax.data.prompts import (
    EncodedProblems,
    encode_problems,
    encode_reference,
    encode_student,
    encode_teacher,
)
from egrsd_jax.data.tasks.registry import BUILT_IN_SEED, BUILT_IN_TASKS
from egrsd_jax.evaluate.benchmarks import BUILT_IN_PROBLEMS, built_in_problems
from egrsd_jax.evaluate.held_out import HeldOut, problem_set
from egrsd_jax.model.config import ModelConfig
from egrsd_jax.objective.methods import METHODS
from egrsd_jax.objective.settings import TeacherSettings, privilege, shows_completion
from egrsd_jax.rollout.requests import Sampling


def needs_solution(config: Config) -> bool:
    """Whether the method learns from reference solutions or shows the teacher any; others train without."""
    shown = privilege(config.method) if isinstance(config.method, TeacherSettings) else "none"
    without = ("none", "concise", "answer", "attempt", "own")
    return shown not in without or METHODS[config.method.name].writer == "reference"


def read_problems(config: Config) -> tuple[list[Problem], list[str]]:
    """The problems to train on, and a note on rows that were skipped."""
    data = config.data
    if data.path in BUILT_IN_TASKS:
        return BUILT_IN_TASKS[data.path].problems(data.train_problems, seed=BUILT_IN_SEED, held_out=False), []
    loaded = load_problems(
        data.path,
        problem=data.problem,
        solution=data.solution,
        answer=data.answer,
        split=data.split,
        name=data.name,
        on_bad_row=data.on_bad_row,
        needs_solution=needs_solution(config),
    )
    first = loaded.skipped[:1]
    return loaded.problems, [f"{len(loaded.skipped)} rows skipped; row {row.number}: {row.reason}" for row in first]


def encode_fitting(config: Config, tokenizer, problems: list[Problem], notes: list[str]) -> EncodedProblems:
    """Both prompts of the problems that fit, the teacher's with what `method.privilege` shows.

    Every method and control arm skips what the reference solution makes too long, so that a seed draws the same
    problems in the same order in all of them. An arm that shows something longer still, and a method that learns
    solutions too long for a completion, skip more. `notes` gets a line on each. Raises ValueError where too few fit.
    """
    shown_to_teacher, most, templates = (
        privilege(config.method),
        config.data.max_prompt_tokens,
        config.prompt.templates(),
    )
    encoded = encode_problems(
        tokenizer, templates, problems, max_prompt_tokens=most, needs_solution=needs_solution(config)
    )
    if encoded.too_long:
        first = encoded.too_long[0]
        notes.append(
            f"{len(encoded.too_long)} problems skipped: a prompt is longer than data.max_prompt_tokens {most}; "
            f"{first.id} takes {max(first.student_tokens, first.teacher_tokens)}"
        )
    if shown_to_teacher != "reference":
        arm = teacher_templates(templates, shown_to_teacher, config.prompt.concise)
        if shows_completion(config.method):  # the rollout has them; until then the answer alone
            shown = [replace(problem, solution=problem.answer) for problem in encoded.problems]
        else:
            shown = teacher_problems(encoded.problems, shown_to_teacher, seed=config.seed)
        encoded = encoded._replace(teacher_prompts=[encode_teacher(tokenizer, arm, problem) for problem in shown])
        what = f"a teacher's prompt with method.privilege {shown_to_teacher} is longer than data.max_prompt_tokens"
        encoded = _without_long(encoded, encoded.teacher_prompts, most, what, notes)
    if METHODS[config.method.name].writer == "reference":
        references = [encode_reference(tokenizer, problem) for problem in encoded.problems]
        what = "a reference solution is longer than rollout.max_new_tokens"
        encoded = _without_long(encoded, references, config.rollout.max_new_tokens, what, notes)
    needed = config.train.batch_size // (config.rollout.samples_per_problem)
    if len(encoded.problems) < needed:
        raise ValueError(f"{len(encoded.problems)} problems fit, and a step takes {needed}; lower train.batch_size")
    return encoded


def _without_long(
    encoded: EncodedProblems, texts: list[list[int]], most: int, what: str, notes: list[str]
) -> EncodedProblems:
    """Without the problems whose text, one per problem, is longer than `most` tokens."""
    lengths = [len(text) for text in texts]
    too_long = sum(length > most for length in lengths)
    if too_long == len(texts):
        raise ValueError(f"every problem is skipped: {what} {most}; they take {min(lengths)} to {max(lengths)} tokens")
    if too_long:
        notes.append(f"{too_long} problems skipped: {what} {most}; the longest takes {max(lengths)}")
    fits = [length <= most for length in lengths]
    return EncodedProblems(
        problems=list(compress(encoded.problems, fits)),
        student_prompts=list(compress(encoded.student_prompts, fits)),
        teacher_prompts=list(compress(encoded.teacher_prompts, fits)),
        too_long=encoded.too_long,
    )


def read_held_out(config: Config, tokenizer) -> HeldOut | None:
    """The held-out problems and how they are asked; None where nothing is evaluated. Errors are `load_problems`'s."""
    settings = config.evaluation
    if settings.path is None:
        return None
    problems = _held_out_problems(settings)
    templates = config.prompt.templates(thinking=settings.thinking)
    return HeldOut(
        of=problem_set(settings, len(problems)),
        prompts=[encode_student(tokenizer, templates, problem) for problem in problems],
        answers=[problem.answer for problem in problems],
        samples=settings.samples,
        sampling=Sampling.of(settings),
        key=jax.random.key(BUILT_IN_SEED),
    )


def _held_out_problems(settings: EvaluationSettings) -> list[Problem]:
    if settings.path in BUILT_IN_TASKS:
        return built_in_problems(settings.path, settings.problems or BUILT_IN_PROBLEMS)
    loaded = load_problems(
        str(settings.path),
        problem=settings.problem,
        solution=None,
        answer=settings.answer,
        split=settings.split,
        name=settings.name,
        limit=settings.problems,
    )
    return loaded.problems


def check_positions(config: Config, model: ModelConfig, held_out: HeldOut | None) -> None:
    """Raises ValueError where a prompt with a whole completion may be longer than what the model was made for."""
    longest = {"data.max_prompt_tokens + rollout.max_new_tokens": _longest_training(config)}
    if held_out is not None:
        longest["a held-out prompt + evaluation.max_new_tokens"] = (
            max(map(len, held_out.prompts)) + config.evaluation.max_new_tokens
        )
    for what, tokens in longest.items():
        if tokens > model.max_positions:
            raise ValueError(f"{what} is {tokens}, more than the model's {model.max_positions} positions")


def _longest_training(config: Config) -> int:
    return config.data.max_prompt_tokens + config.rollout.max_new_tokens
