"""The completions of an analysis: those that a run recorded, or new ones from a model. Text, grade, reward; no
scores yet, except those that were logged."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from egrsd_jax.analysis.models import Models, checkpoint_steps
from egrsd_jax.config import Config
from egrsd_jax.data.privilege import teacher_problems, teacher_templates
from egrsd_jax.data.problems import Problem
from egrsd_jax.data.prompts import EncodedProblems, encode_problems
from egrsd_jax.objective.reward import init_moments, shaped_reward, whiten
from egrsd_jax.objective.settings import privilege
from egrsd_jax.ops.keys import Use, key_for
from egrsd_jax.policy import Policy
from egrsd_jax.rollout.engine import engine_for, sample_keys
from egrsd_jax.rollout.grading import Grader
from egrsd_jax.rollout.requests import Completion, Request, Sampling
from egrsd_jax.runs.files import read_rows
from egrsd_jax.runs.layout import SAMPLES
from egrsd_jax.runs.progress import EvaluationProgress
from egrsd_jax.train.problems import needs_solution, read_problems
from egrsd_jax.verify.pool import GradingPool

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LOGGED = ("student_logp", "teacher_logp", "teacher_entropy")  # of every token, where the method knows them


@dataclass(frozen=True)
class Written:
    """A completion before it is scored, with both of its prompts. `logged` holds what a run logged of
    its tokens, nats."""

    problem: Problem
    student_prompt: list[int]
    teacher_prompt: list[int]
    tokens: list[int]
    text: str
    answer: str | None
    correct: bool
    stopped: bool
    reward: float
    advantage: float
    step: int
    logged: dict[str, list[float]] = field(default_factory=dict)


def sampled_step(run: Path, asked: int | None) -> tuple[int, bool]:
    """Which of the steps that a run recorded is analysed, and whether the weights that wrote it are on disk.

    Without a wish it is the newest one of which both are there: a run's first step always is, since before it the
    student is the base model. Raises ValueError where there is none, or not the one that was asked for.
    """
    steps = sorted({row["step"] for row in read_rows(run / SAMPLES)})
    if not steps:
        raise ValueError(f"{run} has no completions in {SAMPLES}; a run keeps some every train.sample_every steps")
    if asked is not None and asked not in steps:
        raise ValueError(f"{run} recorded no completions at step {asked}; it did at {', '.join(map(str, steps))}")
    whole = {0, *checkpoint_steps(run)}.intersection(steps)
    step = asked if asked is not None else max(whole, default=steps[-1])
    return step, step in whole


def recorded(run: Path, step: int, config: Config, tokenizer: "PreTrainedTokenizerBase") -> list[Written]:
    """The completions of one step of a run, as they were sampled, graded and rewarded.

    Raises ValueError where `data.path` no longer has their problems.
    """
    rows = [row for row in read_rows(run / SAMPLES) if row["step"] == step]
    problems, _ = read_problems(config)
    known = {problem.id for problem in problems}
    if lost := [row["problem"] for row in rows if row["problem"] not in known]:
        raise ValueError(f"data.path {config.data.path} does not have problem {lost[0]}, which {run} was trained on")
    encoded = _encoded(config, tokenizer, problems, {row["problem"] for row in rows})
    place = {problem.id: index for index, problem in enumerate(encoded.problems)}
    fields = ("tokens", "text", "answer", "correct", "stopped", "reward", "advantage", "step")
    return [
        Written(
            **_problem(encoded, place[row["problem"]]),
            **{name: row[name] for name in fields},
            logged={name: row[name] for name in LOGGED if name in row},
        )
        for row in rows
    ]


def sample(config: Config, models: Models, count: int, step: int, progress: EvaluationProgress) -> list[Written]:
    """New completions by the student of the first `count` problems, one each, sampled as in training.

    Those whose prompts are too long are left out. Advantages are those of a run's first step, the reward less a
    constant, since there are no earlier rewards.
    """
    problems = read_problems(config)[0][:count]
    encoded = _encoded(config, models.tokenizer, problems, {problem.id for problem in problems})
    progress.start("sample", done=0, total=len(encoded.problems))
    completions = complete(config, models, models.student, encoded.student_prompts, progress)
    with GradingPool() as pool:
        grades = Grader(models.tokenizer, pool, answer_format=config.prompt.answer_format).grade(
            completions, [problem.answer for problem in encoded.problems]
        )
    reward = shaped_reward(
        np.array([grade.correct for grade in grades]),
        np.array([len(completion.tokens) for completion in completions]),
        max_length=config.rollout.max_new_tokens,
        beta=config.reward.length_bonus,
    )
    advantage = whiten(reward, init_moments(), 0, warmup_steps=1, warmup_baseline=config.reward.warmup_baseline)
    return [
        Written(
            **_problem(encoded, index),
            tokens=list(completion.tokens),
            text=grade.text,
            answer=grade.answer,
            correct=grade.correct,
            stopped=completion.stopped,
            reward=float(reward[index]),
            advantage=float(advantage[index]),
            step=step,
        )
        for index, (completion, grade) in enumerate(zip(completions, grades, strict=True))
    ]


def complete(
    config: Config,
    models: Models,
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    progress: EvaluationProgress,
    *,
    use: Use = Use.ANALYSIS,
    started: Sequence[Sequence[int]] | None = None,
) -> list[Completion]:
    """One completion of each prompt, in order, sampled as in training with keys of `use`.

    `started` are tokens that each completion begins with: they are part of it and count towards its cap, and have no
    log-probability (NaN).
    """
    rules = config.rollout
    started = started or [[]] * len(prompts)
    key = key_for(jax.random.key(config.seed), use)
    keys = sample_keys(key, range(len(prompts)), [0] * len(prompts))
    requests = [
        Request([*prompt, *start], Sampling.of(rules, max_new_tokens=max(rules.max_new_tokens - len(start), 1)), key)
        for prompt, start, key in zip(prompts, started, keys, strict=True)
    ]
    engine = engine_for(
        models.config,
        models.mesh,
        models.stop_ids,
        [request.prompt for request in requests],
        max_rows=min(rules.max_rows, len(requests)),
        max_new_tokens=rules.max_new_tokens,
        policy=policy,
    )
    completions: dict[int, Completion] = {}
    for number, completion in engine.generate(requests):
        unknown = np.full(len(started[number]), np.nan, np.float32)
        completions[number] = replace(
            completion,
            tokens=[*started[number], *completion.tokens],
            logp=np.concatenate([unknown, completion.logp]),
        )
        progress.advance(1, len(completion.tokens))
    engine.close()
    return [completions[number] for number in range(len(prompts))]


def _encoded(
    config: Config, tokenizer: "PreTrainedTokenizerBase", problems: Sequence[Problem], chosen: set[str]
) -> EncodedProblems:
    """The chosen problems with both prompts, as training words them."""
    prompt, shown_to_teacher = config.prompt, privilege(config.method)
    templates = prompt.templates()
    most = config.data.max_prompt_tokens
    if shown_to_teacher == "other":  # whose solution that is depends on which problems training kept
        problems = encode_problems(tokenizer, templates, problems, max_prompt_tokens=most).problems
    pairs = zip(problems, teacher_problems(problems, shown_to_teacher, seed=config.seed), strict=True)
    kept, shown = zip(*(pair for pair in pairs if pair[0].id in chosen), strict=True)
    return encode_problems(
        tokenizer,
        teacher_templates(templates, shown_to_teacher, prompt.concise),
        kept,
        teacher_problems=shown,
        max_prompt_tokens=most,
        needs_solution=needs_solution(config),
    )


def _problem(encoded: EncodedProblems, index: int) -> dict[str, Any]:
    return {
        "problem": encoded.problems[index],
        "student_prompt": encoded.student_prompts[index],
        "teacher_prompt": encoded.teacher_prompts[index],
    }
