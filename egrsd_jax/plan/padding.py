"""What a run's own data makes of its update: how many programs, rows of what lengths, how much padding."""

from typing import Any, NamedTuple

from egrsd_jax.config import Config
from egrsd_jax.data.order import problem_indices
from egrsd_jax.data.packing import Shapes, padding
from egrsd_jax.data.prompts import EncodedProblems, encode_reference
from egrsd_jax.data.tokenizer import load_tokenizer
from egrsd_jax.model.hf.hub import resolve_folder
from egrsd_jax.model.sharding import batch_shards
from egrsd_jax.plan.steps import Workload
from egrsd_jax.train.collect import rows_of
from egrsd_jax.train.problems import encode_fitting, read_problems
from egrsd_jax.train.rows import row_shapes, shared_prefixes

STEPS = 100


class DataPadding(NamedTuple):
    """The first steps of a run, with completions as long as the reference solutions, or as the limit without one."""

    steps: int
    updates: int  # programs that are compiled for them
    shapes: Shapes | None  # None: a row for each completion
    student: float  # positions that are computed for each real one
    teacher: float | None  # None: a method without a teacher


def data_padding(workload: Workload) -> DataPadding:
    """Reads the data and the tokenizer, no weights, and lays out the run's first steps for the workload's mesh.

    Raises ValueError or OSError of one line as training does.
    """
    config, shards = workload.config, batch_shards(workload.mesh)
    tokenizer, _ = load_tokenizer(resolve_folder(config.model.path))
    problems, notes = read_problems(config)
    encoded = encode_fitting(config, tokenizer, problems, notes)
    prefixes = shared_prefixes(config, workload.model, encoded)
    shapes = row_shapes(config, encoded, shards, prefixes)
    encoded = encoded._replace(
        student_prompts=[prompt[len(prefixes.student) :] for prompt in encoded.student_prompts],
        teacher_prompts=[prompt[len(prefixes.teacher) :] for prompt in encoded.teacher_prompts],
    )
    steps = min(config.train.steps, STEPS)
    views = [_laid_out(config, tokenizer, encoded, shapes, shards, step) for step in range(steps)]
    shares = [_share([view[whose] for view in views]) for whose in range(2)]
    signatures = {tuple(tuple(array.shape for array in rows) for view in views_ for rows in view) for views_ in views}
    student, teacher = shares
    return DataPadding(steps, len(signatures), shapes, student or 0.0, teacher)


def _laid_out(
    config: Config, tokenizer: Any, encoded: EncodedProblems, shapes: Shapes | None, shards: int, step: int
) -> list[tuple]:
    """The student's and the teacher's rows of a step."""
    group = config.rollout.samples_per_problem
    count = config.train.batch_size // group
    order = [
        index
        for index in problem_indices(config.seed, step * count, count, len(encoded.problems))
        for _ in range(group)
    ]
    most = config.rollout.max_new_tokens
    solved = ((index, encoded.problems[index]) for index in order)
    completions = [
        encode_reference(tokenizer, problem)[:most] if problem.solution else encoded.student_prompts[index][:1] * most
        for index, problem in solved
    ]
    return [
        rows_of(config, shards, shapes, whose, [prompts[index] for index in order], completions)
        for whose, prompts in (("student", encoded.student_prompts), ("teacher", encoded.teacher_prompts))
    ]


def _share(views: list[tuple]) -> float | None:
    """Computed positions over real ones, of all steps together."""
    parts = [rows for view in views for rows in view]
    return padding(parts) if parts else None


def padding_lines(data: DataPadding) -> list[str]:
    """What a reader is shown of it."""
    updates = f"{data.updates} program{'s' if data.updates > 1 else ''}"
    shares = [f"student {data.student:.2f}", *([] if data.teacher is None else [f"teacher {data.teacher:.2f}"])]
    lines = [
        f"the data's first {data.steps} steps, with completions as long as the reference solutions: the update is "
        f"{updates}; positions computed for each real one: {', '.join(shares)}"
    ]
    if data.shapes is not None:
        for whose, shapes in zip(("student", "teacher"), data.shapes, strict=True):
            rows = " and ".join(f"{shape.rows} × {shape.positions:,}" for shape in shapes)
            lines += [f"  {whose}: micro-batches of {rows} positions"] if shapes else []
    return lines
