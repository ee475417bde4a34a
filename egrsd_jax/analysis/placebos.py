"""Placebo teachers: the same completions scored with prompts whose reference is not the problem's own."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from egrsd_jax.analysis.completions import Written
from egrsd_jax.analysis.models import Models
from egrsd_jax.analysis.scoring import View, views
from egrsd_jax.config import Config
from egrsd_jax.data.privilege import teacher_problems
from egrsd_jax.data.problems import Problem
from egrsd_jax.data.prompts import encode_teacher
from egrsd_jax.objective.settings import privilege
from egrsd_jax.probes.statistics import Placebo, compare_placebo
from egrsd_jax.runs.progress import EvaluationProgress


def placebos(
    config: Config,
    models: Models,
    completions: Sequence[Written],
    scored: Sequence[tuple[View, View]],
    progress: EvaluationProgress,
) -> list[Placebo]:
    """The first completions under each placebo that can be made for them, compared with their true teacher.

    `wrong`: every digit of the reference changed; `other`: another problem's reference; `reference_only`: the
    reference without the problem; `none`: the student's own prompt: the signal that remains where teacher and student
    differ only in weights.
    """
    count = config.probes.placebo_completions
    if not count or privilege(config.method) not in ("reference", "wrong", "other"):
        return []
    asked = [
        (name, row, replace(written, teacher_prompt=prompt, logged={}))
        for row, written in enumerate(completions[:count])
        for name, prompt in _prompts(config, models, completions[:count], row).items()
    ]
    placebo_views = views(
        models,
        [written for _, _, written in asked],
        rows=min(config.train.micro_batch_size or config.train.batch_size, count),
        temperature=config.method.score_temperature,
        top=1,
        progress=progress,
    )
    compared = []
    for name in dict.fromkeys(name for name, _, _ in asked):
        teacher_logps = [
            (row, view[1].logp) for (kind, row, _), view in zip(asked, placebo_views, strict=True) if kind == name
        ]
        true = [np.asarray(scored[row][1].logp - scored[row][0].logp, float) for row, _ in teacher_logps]
        placebo = [np.asarray(logp - scored[row][0].logp, float) for row, logp in teacher_logps]
        compared.append(compare_placebo(name, true, placebo))
    return compared


def _prompts(config: Config, models: Models, completions: Sequence[Written], row: int) -> dict[str, list[int]]:
    """The prompt of every placebo that this completion's problem has."""
    wording, written = config.prompt, completions[row]
    templates = wording.templates()
    problem = written.problem
    shown: dict[str, Problem] = {}
    if any(letter.isdecimal() for letter in problem.solution):
        shown["wrong"] = teacher_problems([problem], "wrong", seed=config.seed)[0]
    later = [*completions[row + 1 :], *completions[:row]]
    if other := next((written.problem for written in later if written.problem.id != problem.id), None):
        shown["other"] = replace(problem, solution=other.solution)
    shown["reference_only"] = replace(problem, problem="")
    prompts = {name: encode_teacher(models.tokenizer, templates, variant) for name, variant in shown.items()}
    return {**prompts, "none": written.student_prompt}
