"""A step's completions: who writes them, how they are graded and rewarded, and which of them count.

What is computed here is NumPy's or one of a few programs: outside `jit` jax compiles every operation for itself.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from egrsd_jax.config import Config, RewardSettings
from egrsd_jax.data.order import problem_indices
from egrsd_jax.data.packing import Rows, Shapes, StepBatch, ordered_rows, packed_rows, padding, step_batch
from egrsd_jax.data.prompts import encode_reference
from egrsd_jax.model.sharding import batch_shards, round_up
from egrsd_jax.objective.methods import METHODS
from egrsd_jax.objective.metrics import rollout_metrics
from egrsd_jax.objective.reward import RunningMoments, batch_moments, group_advantage, shaped_reward, whiten
from egrsd_jax.objective.selection import consensus, mixed_groups, pace_weight, shortest_correct
from egrsd_jax.objective.settings import ConsensusSettings, contrasts, teacher_mix, teacher_schedule, watches
from egrsd_jax.ops.keys import Use, key_for
from egrsd_jax.policy import Policy, student
from egrsd_jax.rollout.engine import sample_keys
from egrsd_jax.rollout.grading import Grade, Grader
from egrsd_jax.rollout.requests import Completion, OnCompletion, Request, Sampling, complete
from egrsd_jax.train.batch_signals import CompletionInputs
from egrsd_jax.train.setup import Prepared
from egrsd_jax.train.state import TrainState, before_training, teacher
from egrsd_jax.train.stored import StoredCompletions
from egrsd_jax.train.teacher_prompts import teacher_prompts


class Rollout(NamedTuple):
    """A step's completions, one per row: problem, tokens, grade, reward, and how it counts in the loss."""

    problem: np.ndarray  # index into the problems, [rows]
    completions: list[Completion]
    grades: list[Grade]
    reward: Any  # float32 [rows], NumPy's as the others are
    advantage: np.ndarray
    weight: np.ndarray  # of each completion in the loss
    by_teacher: np.ndarray  # bool: the teacher wrote it
    counts: np.ndarray  # bool: its tokens are in the loss at all
    teacher_prompts: list[list[int]]  # one per completion; empty without a teacher
    contrast_prompts: list[list[list[int]]]  # the same, each with a wrong completion of the problem; several or none
    metrics: dict[str, Any]
    moments: RunningMoments  # of these rewards alone
    version: int = 0  # gradient steps before the weights that sampled them
    age: int = 0  # gradient steps between these weights and the ones that learn from them


class Asked(NamedTuple):
    """What is asked for of a step: with the weights all that its completions depend on, so that a run which resumes
    asks for the same."""

    step: int
    problem: np.ndarray  # index into the problems, [rows]
    by_teacher: np.ndarray  # bool: the teacher is to write it
    keys: np.ndarray  # raw data of a random key for each

    def requests(self, prompts: list[list[int]], sampling: Sampling, numbers: Sequence[int]) -> list[Request]:
        """The requests of these rows, in order."""
        return [Request(prompts[self.problem[number]], sampling, self.keys[number]) for number in numbers]


def collect(run: Prepared, state: TrainState, grader: Grader, *, on_completion: OnCompletion | None = None) -> Rollout:
    """Completions of the next problems, graded and rewarded; a whitened advantage uses earlier steps' rewards alone.

    With `rollout.ahead` the student that samples is the one of so many steps before.
    """
    asked = ask(run, state)
    completions = _completions(run, state, asked, on_completion)
    return judged(run, state, grader, asked, completions, graded(run, grader, asked, completions))


def ask(run: Prepared, state: TrainState, after: int = 0) -> Asked:
    """What the step asks for that comes so many steps after the state's next one."""
    config, group = run.config, run.config.rollout.samples_per_problem
    count, step = config.train.batch_size // group, int(state.step) + after
    position = int(state.position) + after * count
    problem = np.repeat(problem_indices(config.seed, position, count, len(run.problems.problems)), group)
    rows = np.arange(len(problem))
    keys = sample_keys(_rollout_key(np.asarray(state.key), np.int32(step)), position + rows // group, rows % group)
    return Asked(step, problem, _rows_of_teacher(config, len(rows)), keys)


def version_of(config: Config, step: int) -> int:
    """The gradient steps before the weights that sample a step's completions."""
    return max(0, step - config.rollout.ahead)


def graded(run: Prepared, grader: Grader, asked: Asked, completions: list[Completion]) -> list[Grade]:
    """One grade per completion."""
    return grader.grade(completions, [run.problems.problems[row].answer for row in asked.problem])


def judged(
    run: Prepared,
    state: TrainState,
    grader: Grader,
    asked: Asked,
    completions: list[Completion],
    grades: list[Grade],
) -> Rollout:
    """Graded completions of the state's next step with their rewards and advantages, and which of them count."""
    config, group, by_teacher = run.config, run.config.rollout.samples_per_problem, asked.by_teacher
    correct = np.array([grade.correct for grade in grades])
    length = np.array([len(completion.tokens) for completion in completions], np.float32)
    cut_off = np.array([not completion.stopped for completion in completions])
    reward = shaped_reward(correct, length, max_length=config.rollout.max_new_tokens, beta=config.reward.length_bonus)
    moments = jax.tree.map(np.asarray, state.moments)
    counts = _counts(config, grader, grades, correct, length)
    shown = teacher_prompts(run, asked.problem, grades, correct, length)
    counts &= shown.count
    judged = _judge(reward, correct, cut_off, length, moments, np.asarray(state.step), config.reward, group)
    advantage, metrics, new_moments = jax.device_get(judged)
    metrics["ungradable"] = sum(grade.ungradable is not None for grade in grades)
    metrics["ungradable_share"] = metrics["ungradable"] / len(grades)
    metrics["no_answer_share"] = np.mean([grade.missing is not None for grade in grades])
    metrics["counted_share"] = counts.mean()
    weight = _weight(config, correct, by_teacher)
    version = version_of(config, asked.step)
    age = asked.step - version
    if config.rollout.ahead:
        metrics |= {"rollout_version": version, "rollout_age": age}
    of_each = completions, grades, reward, advantage, weight, by_teacher, counts, shown.prompts, shown.contrasts
    return Rollout(asked.problem, *of_each, metrics, new_moments, version, age)


def arranged(run: Prepared, rollout: Rollout) -> tuple[StepBatch, CompletionInputs]:
    """The rollout in rows that the update takes; which completion is in which row changes no number of it."""
    config, shards, most = run.config, batch_shards(run.mesh), run.config.rollout.max_new_tokens
    completions = [completion.tokens for completion in rollout.completions]
    counted = [tokens if counts else [] for tokens, counts in zip(completions, rollout.counts, strict=True)]
    students = [run.problems.student_prompts[row] for row in rollout.problem]
    student, teacher = (
        rows_of(
            config,
            shards,
            run.shapes,
            whose,
            [prompt[len(getattr(run.prefixes, whose)) :] for prompt in prompts],
            counted,
        )
        for whose, prompts in (("student", students), ("teacher", rollout.teacher_prompts))
    )
    batch = step_batch(student, teacher, counted, max_new_tokens=most)
    if contrasts(config.method):
        batch = batch._replace(**_contrast_rows(run, rollout, counted))
    sampled_logp_BT = np.zeros(batch.mask_BT.shape, np.float32)
    for row, completion in enumerate(rollout.completions):
        sampled_logp_BT[row, : len(completion.tokens)] = completion.logp
    per_completion = np.asarray(rollout.advantage), rollout.weight, rollout.by_teacher
    reward_B = np.asarray(rollout.reward, np.float32) if watches(config.method) else None
    return batch, CompletionInputs(*per_completion, sampled_logp_BT, reward_B)


def _contrast_rows(run: Prepared, rollout: Rollout, counted: list[list[int]]) -> dict[str, Any]:
    """The rows of the teacher that reads wrong completions, of the shapes of its others, and which of them there are.

    Of the K places of a completion those without a prompt hold an empty completion, which takes no row where several
    share one.
    """
    most, prompts, completions = contrasts(run.config.method), [], []
    for own, shown, tokens in zip(rollout.teacher_prompts, rollout.contrast_prompts, counted, strict=True):
        missing = most - len(shown)
        prompts += [*shown, *[own] * missing]
        completions += [*[tokens] * len(shown), *[[]] * missing]
    rows = rows_of(run.config, batch_shards(run.mesh), run.shapes, "teacher", prompts, completions)
    read_BK = np.array([len(tokens) > 0 for tokens in completions]).reshape(-1, most)
    return {"contrast": rows, "contrast_BK": read_BK}


def rows_of(
    config: Config,
    shards: int,
    shapes: Shapes | None,
    whose: str,
    prompts: list[list[int]],
    completions: list[list[int]],
) -> tuple[Rows, ...]:
    """The rows of the `student` or the `teacher`: of these shapes, or in order where there are none.

    A method without a teacher has no rows of one.
    """
    if whose == "teacher" and not METHODS[config.method.name].teacher:
        return ()
    most = config.rollout.max_new_tokens
    if shapes is not None:
        return packed_rows(prompts, completions, getattr(shapes, whose), max_new_tokens=most)
    size = round_up(config.train.micro_batch_size or 1, shards)
    return ordered_rows(prompts, completions, size, max_new_tokens=most)


def padding_metrics(batch: StepBatch) -> dict[str, float]:
    """Positions that the update computes for each that holds a token, by policy."""
    views = {"padding_student": batch.student, "padding_teacher": batch.teacher}
    return {name: padding(rows) for name, rows in views.items() if rows}


def _completions(
    run: Prepared, state: TrainState, asked: Asked, on_completion: OnCompletion | None
) -> list[Completion]:
    if run.stored is not None:
        return _stored_completions(run, run.stored, state, asked.problem, on_completion)
    config, writer = run.config, METHODS[run.config.method.name].writer
    if writer == "reference":
        return [_reference(run, row) for row in asked.problem]
    of_student = state.older[0] if state.older else state.trainable
    writers: dict[bool, tuple[Policy, list[list[int]]]] = {
        False: (student(of_student, run.base, config.lora), run.problems.student_prompts),
        True: (
            teacher(
                state.learned,
                run.base,
                config.lora,
                teacher_schedule(config.method),
                mix=teacher_mix(config.method),
            ),
            run.problems.teacher_prompts,
        ),
    }
    if writer == "initial":
        policy = before_training(state.learned, run.base, config.lora)
        writers[False] = policy, run.problems.student_prompts
    sampling = Sampling.of(config.rollout)
    completions: dict[int, Completion] = {}
    for is_teacher in np.unique(asked.by_teacher):
        policy, prompts = writers[bool(is_teacher)]
        numbers = np.flatnonzero(asked.by_teacher == is_teacher).tolist()
        run.engine.update_params(*policy)
        requests = asked.requests(prompts, sampling, numbers)
        completions |= zip(numbers, complete(run.engine, requests, on_completion=on_completion), strict=True)
    return [completions[number] for number in range(len(completions))]


def _stored_completions(
    run: Prepared, stored: StoredCompletions, state: TrainState, rows: np.ndarray, on_completion: OnCompletion | None
) -> list[Completion]:
    """Completions of the policy before training: those that the file has, and new ones, which it keeps.

    Their keys follow from problem and sample alone, so that runs of every seed take the same; a later pass over the
    problems takes further samples.
    """
    group = run.config.rollout.samples_per_problem
    numbers = np.arange(len(rows))
    passes = (int(state.position) + numbers // group) // len(run.problems.problems)
    samples = passes * group + numbers % group
    sampling = Sampling.of(run.config.rollout)

    def sample(missing: list[int]) -> list[Completion]:
        keys = sample_keys(key_for(jax.random.key(0), Use.STORED), rows[missing], samples[missing])
        run.engine.update_params(*before_training(state.learned, run.base, run.config.lora))
        prompts = [run.problems.student_prompts[row] for row in rows[missing]]
        requests = [Request(prompt, sampling, key) for prompt, key in zip(prompts, keys, strict=True)]
        return complete(run.engine, requests, on_completion=on_completion)

    return stored.completions(list(zip(rows.tolist(), samples.tolist(), strict=True)), sample)


def _reference(run: Prepared, row: int) -> Completion:
    """The reference solution as a completion with its end of turn; no policy sampled it."""
    tokens = encode_reference(run.tokenizer, run.problems.problems[row])
    return Completion(tokens, np.zeros(len(tokens), np.float32), "stop")


def _rows_of_teacher(config: Config, count: int) -> np.ndarray:
    """The first half of every problem's completions for a method whose teacher writes too."""
    group = config.rollout.samples_per_problem
    if METHODS[config.method.name].writer != "both":
        return np.zeros(count, bool)
    return np.arange(count) % group < group // 2


def _counts(config: Config, grader: Grader, grades: list[Grade], correct: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Which completions are in the loss, bool [rows]."""
    group, method = config.rollout.samples_per_problem, METHODS[config.method.name]
    if method.shortest_correct_only:
        return shortest_correct(correct, length, group)
    if method.mixed_groups_only:
        return mixed_groups(correct, group)
    if not isinstance(config.method, ConsensusSettings):
        return np.ones(len(grades), bool)
    counts, by_teacher = [], group // 2  # of each problem's completions the teacher's come first
    answers = [[grade.answer for grade in grades[at : at + by_teacher]] for at in range(0, len(grades), group)]
    for given in grader.in_first_words(answers):
        agreeing = consensus(given, config.method.consensus)
        counts += [*agreeing, *[any(agreeing)] * (group - by_teacher)]
    return np.array(counts)


def _weight(config: Config, correct: np.ndarray, by_teacher: np.ndarray) -> np.ndarray:
    """How much each completion counts, by the student's pass rate on its problem, float32 [rows]."""
    right, wrong = config.method.pace_right, config.method.pace_wrong
    group = config.rollout.samples_per_problem
    students = group - int(by_teacher[:group].sum())
    weight_of_students = pace_weight(correct[~by_teacher], students, right=right, wrong=wrong)
    return np.repeat(weight_of_students[::students], group)


@jax.jit
def _rollout_key(key_data: jax.Array, step: jax.Array) -> jax.Array:
    return key_for(jax.random.wrap_key_data(key_data), Use.ROLLOUT, step)


@partial(jax.jit, static_argnums=(6, 7))
def _judge(
    reward_B: jax.Array,
    correct_B: jax.Array,
    cut_off_B: jax.Array,
    length_B: jax.Array,
    moments: RunningMoments,
    step: jax.Array,
    settings: RewardSettings,
    group: int,
) -> tuple[jax.Array, dict[str, jax.Array], RunningMoments]:
    """A step's advantages, its rollouts' metrics, and the moments of its rewards; `moments` are of the earlier ones."""
    metrics = rollout_metrics(reward_B, correct_B, cut_off_B, length_B, moments, ddof=settings.ddof)
    if settings.advantage in ("group", "group_centred"):
        advantage_B = group_advantage(reward_B, group, normalise_std=settings.advantage == "group")
    else:
        advantage_B = whiten(
            reward_B,
            moments,
            step,
            warmup_steps=settings.warmup_steps,
            warmup_baseline=settings.warmup_baseline,
            min_std=settings.min_std,
            ddof=settings.ddof,
        )
    return advantage_B, metrics, batch_moments(reward_B)
