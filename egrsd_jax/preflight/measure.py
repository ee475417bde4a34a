"""A preflight from its settings to its numbers: completions with the privilege and without, and scores of the
student's."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from egrsd_jax.analysis.completions import Written
from egrsd_jax.analysis.mechanism import Mechanism, Study, measure
from egrsd_jax.analysis.models import Models, load_models
from egrsd_jax.analysis.scoring import View, views
from egrsd_jax.config import Config
from egrsd_jax.data.order import problem_indices
from egrsd_jax.data.prompts import EncodedProblems
from egrsd_jax.data.tokenizer import check_token_ids
from egrsd_jax.evaluate.comparison import Difference, compare
from egrsd_jax.evaluate.held_out import HeldOut, ProblemSet
from egrsd_jax.evaluate.scores import Scores
from egrsd_jax.model.hf.hub import resolve_folder
from egrsd_jax.model.sharding import make_mesh
from egrsd_jax.objective.losses import direction_ratio
from egrsd_jax.objective.methods import METHODS
from egrsd_jax.objective.metrics import ratio_metrics
from egrsd_jax.objective.profiles import floor_share
from egrsd_jax.objective.reward import group_advantage, init_moments, shaped_reward, whiten
from egrsd_jax.objective.settings import GateSettings, WeightSettings, privilege, shows_completion
from egrsd_jax.ops.keys import Use, key_for
from egrsd_jax.policy import Policy
from egrsd_jax.preflight.entry_clip import EntryClip, entry_clip
from egrsd_jax.preflight.settings import Settings
from egrsd_jax.preflight.templates import Turns, read_turns
from egrsd_jax.rollout.engine import Engine, engine_for
from egrsd_jax.rollout.grading import Grade, Grader
from egrsd_jax.rollout.requests import Completion, Sampling
from egrsd_jax.runs.progress import EvaluationProgress
from egrsd_jax.train.problems import check_positions, encode_fitting, read_problems
from egrsd_jax.train.setup import with_adapter
from egrsd_jax.verify.pool import GradingPool


class Signal(NamedTuple):
    """What the teacher says about the student's completions, nats per token, means over tokens.

    `signal` is |delta|; `twice` the same difference between two scorings of one prompt by one policy, in batches of
    other rows; `unprivileged` between the teacher's weights on the student's prompt and the student. `first` is the
    mean delta at the first token of a completion, and `first_size` that of |delta|.
    """

    delta: float
    signal: float
    twice: float
    unprivileged: float
    first: float
    first_size: float
    student_entropy: float
    teacher_entropy: float


class Weights(NamedTuple):
    """How the method would weight those tokens: shares of them, and means; None for what the method does not have."""

    clipped_low: float | None
    clipped_high: float | None
    gate_mean: float | None
    gate_at_floor: float | None
    restored: float | None  # mean weight that the lookahead restores
    regimes: dict[str, float]
    entry_clip: EntryClip | None = None


@dataclass(frozen=True)
class Measured:
    """What was measured of a configuration. What needs a teacher is None for a method without one.

    `sampler_gap` is the mean difference of log p between sampler and trainer, nats per token.
    """

    label: str
    config: Config
    plain: Scores
    privileged: Scores | None
    gap: Difference | None
    signal: Signal | None
    weights: Weights | None
    sampler_gap: float
    turns: Turns
    notes: list[str]


def measured(settings: Settings, config: Config) -> Measured:
    """Samples, grades and scores. Raises ValueError or OSError of one line for whatever prevents it."""
    config = with_adapter(config)
    if shows_completion(config.method):
        raise ValueError(
            f"method.privilege {privilege(config.method)} shows the teacher a completion of the step, and before a run "
            "there is none; compare with --method.privilege reference"
        )
    mesh = make_mesh(config.model.data, config.model.fsdp, config.model.tensor)
    problems, notes = read_problems(config)  # before the model: a mistake in a file is reported at once
    models = load_models(config, mesh, run=None, step=0)
    encoded = _first(config, encode_fitting(config, models.tokenizer, problems, notes), settings.problems)
    check_token_ids(
        models.tokenizer, (*encoded.student_prompts, *encoded.teacher_prompts), models.config.vocab_size, "a prompt"
    )
    check_positions(config, models.config, None)
    teaches = METHODS[config.method.name].teacher
    with EvaluationProgress() as progress, GradingPool() as pool:
        grader = Grader(models.tokenizer, pool, answer_format=config.prompt.answer_format)
        engine = _engine(config, models, encoded, settings)
        sampled = partial(_sampled, config, settings, encoded, engine, grader, progress)
        plain, completions, grades = sampled("without the privilege", encoded.student_prompts, models.student, None)
        privileged = None
        if teaches:
            privileged = sampled(
                "with the privilege", encoded.teacher_prompts, models.teacher, settings.privileged_cap
            )[0]
        engine.close()
        written = _written(config, encoded, completions, grades, settings.samples)
        once, again = _scored(config, models, written, progress)
    weights = None
    if teaches:
        bound = entry_clip(config.method, models, written, rows=_rows(config, written))
        weights = _weights(config, models.config.vocab_size, written, once)._replace(entry_clip=bound)
    shown = privilege(config.method)
    return Measured(
        label=models.label,
        config=config,
        plain=plain,
        privileged=privileged,
        gap=None if privileged is None else compare(plain, privileged).accuracy,
        signal=_signal(once, again) if teaches else None,
        weights=weights,
        sampler_gap=_sampler_gap(completions[:: settings.samples], once),
        turns=read_turns(
            models.tokenizer,
            resolve_folder(config.model.path),
            models.stop_ids,
            config.prompt,
            encoded.student_prompts[0],
            encoded.teacher_prompts[0],
            config.prompt.student_thinking if shown in ("none", "concise") else config.prompt.teacher_thinking,
        ),
        notes=notes,
    )


def _first(config: Config, encoded: EncodedProblems, count: int) -> EncodedProblems:
    """The problems of the run's first steps, in its order; all of them where there are fewer."""
    size = len(encoded.problems)
    order = problem_indices(config.seed, 0, min(count, size), size)
    columns = (encoded.problems, encoded.student_prompts, encoded.teacher_prompts)
    return EncodedProblems(*([column[row] for row in order] for column in columns), too_long=encoded.too_long)


def _engine(config: Config, models: Models, encoded: EncodedProblems, settings: Settings) -> Engine:
    most = max(config.rollout.max_new_tokens, settings.privileged_cap or 0)
    return engine_for(
        models.config,
        models.mesh,
        models.stop_ids,
        [*encoded.student_prompts, *encoded.teacher_prompts],
        max_rows=min(config.rollout.max_rows, len(encoded.problems) * settings.samples),
        max_new_tokens=most,
        weights_dtype=config.rollout.weights_dtype,
        score_temperature=config.method.score_temperature,
    )


def _sampled(
    config: Config,
    settings: Settings,
    encoded: EncodedProblems,
    engine: Engine,
    grader: Grader,
    progress: EvaluationProgress,
    what: str,
    prompts: Sequence[Sequence[int]],
    policy: Policy,
    cap: int | None,
) -> tuple[Scores, list[Completion], list[Grade]]:
    """Completions of every problem, sampled as in training, under one of the two prompts; both with the same keys."""
    path = config.data.path
    held_out = HeldOut(
        of=ProblemSet(what, f"{path}, the first problems of seed {config.seed}", [p.id for p in encoded.problems]),
        prompts=prompts,
        answers=[problem.answer for problem in encoded.problems],
        samples=settings.samples,
        sampling=Sampling.of(config.rollout, max_new_tokens=cap or config.rollout.max_new_tokens),
        key=key_for(jax.random.key(config.seed), Use.ANALYSIS),
    )
    progress.start(what, done=0, total=len(prompts) * settings.samples)
    completions, grades = held_out.sample(
        policy, engine, grader, on_completion=lambda completion: progress.advance(1, len(completion.tokens))
    )
    return held_out.scores(completions, grades), completions, grades


def _written(
    config: Config,
    encoded: EncodedProblems,
    completions: Sequence[Completion],
    grades: Sequence[Grade],
    samples: int,
) -> list[Written]:
    """The first completion of each problem, with the reward and the advantage that it would have in the first step."""
    reward = shaped_reward(
        np.array([grade.correct for grade in grades]),
        np.array([len(completion.tokens) for completion in completions], np.float32),
        max_length=config.rollout.max_new_tokens,
        beta=config.reward.length_bonus,
    )
    if config.reward.advantage.startswith("group"):
        advantage = group_advantage(reward, samples, normalise_std=config.reward.advantage == "group")
    else:
        advantage = whiten(reward, init_moments(), 0, warmup_steps=1, warmup_baseline=config.reward.warmup_baseline)
    reward, advantage = np.asarray(reward), np.asarray(advantage)
    return [
        Written(
            problem=problem,
            student_prompt=encoded.student_prompts[number],
            teacher_prompt=encoded.teacher_prompts[number],
            tokens=list(completions[number * samples].tokens),
            text=grades[number * samples].text,
            answer=grades[number * samples].answer,
            correct=grades[number * samples].correct,
            stopped=completions[number * samples].stopped,
            reward=float(reward[number * samples]),
            advantage=float(advantage[number * samples]),
            step=0,
        )
        for number, problem in enumerate(encoded.problems)
    ]


def _scored(
    config: Config, models: Models, written: list[Written], progress: EvaluationProgress
) -> tuple[list[tuple[View, View]], list[tuple[View, View]]]:
    """Both views of every completion, and both without the privilege, the latter in the opposite order and with half
    the rows, so that no completion is in the same batch twice."""
    rows = _rows(config, written)
    score = partial(views, models, temperature=config.method.score_temperature, top=1, progress=progress)
    once = score(written, rows=rows)
    bare = [replace(completion, teacher_prompt=completion.student_prompt) for completion in reversed(written)]
    return once, score(bare, rows=max(rows // 2, 1))[::-1]


def _rows(config: Config, written: Sequence[Written]) -> int:
    """Completions that are scored at a time."""
    return min(config.train.micro_batch_size or config.train.batch_size, len(written))


def _signal(once: Sequence[tuple[View, View]], again: Sequence[tuple[View, View]]) -> Signal:
    def differences(pairs: Any) -> np.ndarray:
        return np.concatenate([np.asarray(one.logp, np.float64) - np.asarray(other.logp) for one, other in pairs])

    student, teacher = [pair[0] for pair in once], [pair[1] for pair in once]
    delta = differences(zip(teacher, student, strict=True))
    first = np.array([float(t.logp[0] - s.logp[0]) for s, t in once])
    return Signal(
        delta=float(delta.mean()),
        signal=float(np.abs(delta).mean()),
        twice=float(np.abs(differences(zip([pair[0] for pair in again], student, strict=True))).mean()),
        unprivileged=float(np.abs(differences(zip([pair[1] for pair in again], student, strict=True))).mean()),
        first=float(first.mean()),
        first_size=float(np.abs(first).mean()),
        student_entropy=float(np.concatenate([view.entropy for view in student]).mean()),
        teacher_entropy=float(np.concatenate([view.entropy for view in teacher]).mean()),
    )


def _sampler_gap(completions: Sequence[Completion], once: Sequence[tuple[View, View]]) -> float:
    gaps = [np.abs(pair[0].logp - completion.logp) for completion, pair in zip(completions, once, strict=True)]
    return float(np.concatenate(gaps).mean())


def _weights(config: Config, vocab_size: int, written: list[Written], once: Sequence[tuple[View, View]]) -> Weights:
    """The clip's and the gate's numbers, by the definitions that training logs them with."""
    method, advantage = config.method, [completion.advantage for completion in written]
    student, teacher = [pair[0] for pair in once], [pair[1] for pair in once]
    mechanism: Mechanism = measure(
        [view.logp for view in student],
        [view.logp for view in teacher],
        [view.entropy for view in teacher],
        advantage,
        Study.of(method),
        vocab_size,
    )
    low = high = gate_mean = at_floor = restored = None
    if isinstance(method, WeightSettings):
        ratio_BT = direction_ratio(mechanism.delta_BT, jnp.asarray(advantage, jnp.float32))
        clips = ratio_metrics(mechanism.delta_BT, ratio_BT, mechanism.mask_BT, epsilon=method.epsilon)
        low, high = float(clips["weight_clipped_low"]), float(clips["weight_clipped_high"])
    if isinstance(method, GateSettings) and method.is_papers_gate:
        gate_BT = mechanism.gate_lookahead_BT if method.window else mechanism.gate_BT
        gate_mean = float(gate_BT[mechanism.mask_BT].mean())
        at_floor = float(floor_share(gate_BT, mechanism.mask_BT, method.floor))
        restored = float(mechanism.means.regimes["restored_weight"]) if method.window else None
    shares = {row["regime"]: row["share"] for row in mechanism.regime_rows()}
    return Weights(low, high, gate_mean, at_floor, restored, shares)
