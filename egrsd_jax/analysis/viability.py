"""Branch viability: correct completions left for the teacher's alternative, and whether they still reach the answer."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from egrsd_jax.analysis.completions import Written, complete
from egrsd_jax.analysis.models import Models
from egrsd_jax.analysis.scoring import View
from egrsd_jax.config import Config
from egrsd_jax.ops.keys import Use
from egrsd_jax.probes.branches import Branch, choose_branches
from egrsd_jax.probes.statistics import Auroc, auroc
from egrsd_jax.rollout.grading import Grader
from egrsd_jax.rollout.requests import Completion
from egrsd_jax.runs.progress import EvaluationProgress
from egrsd_jax.verify.pool import GradingPool


@dataclass(frozen=True)
class Viability:
    """Branches, whether each reached the correct answer, and how well entropy and position predict it.

    Both areas are for reaching the answer: over 0.5, high entropy, or a late position, makes it more likely.
    """

    by: str
    branches: list[Branch]
    reached: list[bool]
    entropy: Auroc
    position: Auroc


def viability(
    config: Config,
    models: Models,
    completions: Sequence[Written],
    scored: Sequence[tuple[View, View]],
    progress: EvaluationProgress,
) -> Viability | None:
    """Takes the teacher's likeliest other token at some positions of correct completions, and samples the rest as in
    training; None where no branch is asked for or none can be made."""
    correct = [row for row, written in enumerate(completions) if written.correct]
    branches = choose_branches(
        [np.asarray(scored[row][1].entropy) for row in correct],
        [_alternatives(completions[row], scored[row][1], models.stop_ids) for row in correct],
        config.probes.branches,
    )
    if not branches:
        return None
    tried = [branch for branch in branches for _ in range(config.probes.branch_samples)]
    written = [completions[correct[branch.completion]] for branch in tried]
    continued = _continued(config, models, tried, written, progress)
    with GradingPool() as pool:
        grader = Grader(models.tokenizer, pool, answer_format=config.prompt.answer_format)
        grades = grader.grade(continued, [completion.problem.answer for completion in written])
    reached = np.array([grade.correct for grade in grades])
    cluster = np.array([branch.completion for branch in tried])
    by_entropy, by_position = (
        auroc(np.array([getattr(branch, name) for branch in tried]), reached, cluster)
        for name in ("entropy", "position")
    )
    return Viability(config.probes.branch_by, tried, reached.tolist(), by_entropy, by_position)


def _alternatives(written: Written, teacher: View, stop_ids: Sequence[int]) -> np.ndarray:
    """At every position the likeliest of the teacher's tokens that neither was written nor ends the completion, or
    -1."""
    ids_TK = np.asarray(teacher.top_ids)
    other_TK = (ids_TK != np.array(written.tokens)[:, None]) & ~np.isin(ids_TK, stop_ids)
    first_T = other_TK.argmax(axis=1)
    return np.where(other_TK.any(axis=1), ids_TK[np.arange(len(ids_TK)), first_T], -1)


def _continued(
    config: Config,
    models: Models,
    branches: Sequence[Branch],
    written: Sequence[Written],
    progress: EvaluationProgress,
) -> list[Completion]:
    """The whole completions: what was written up to the branch, the alternative, and what was sampled after it."""
    by_teacher = config.probes.branch_by == "teacher"
    pairs = zip(branches, written, strict=True)
    started = [[*completion.tokens[: branch.place], branch.token] for branch, completion in pairs]
    prompts = [completion.teacher_prompt if by_teacher else completion.student_prompt for completion in written]
    progress.start("branch", done=0, total=len(branches))
    policy = models.teacher if by_teacher else models.student
    return complete(config, models, policy, prompts, progress, use=Use.BRANCHES, started=started)
