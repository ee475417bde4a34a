"""An analysis from its settings to its numbers: completions, scores, weights, regimes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from egrsd_jax.analysis.completions import LOGGED, Written, recorded, sample, sampled_step
from egrsd_jax.analysis.dynamics import Dynamics, read_dynamics
from egrsd_jax.analysis.mechanism import Mechanism, Study, measure
from egrsd_jax.analysis.models import Models, checkpoint_steps, load_models
from egrsd_jax.analysis.placebos import placebos
from egrsd_jax.analysis.probing import Probing, probe_completions
from egrsd_jax.analysis.scoring import View, views
from egrsd_jax.analysis.settings import Settings
from egrsd_jax.analysis.viability import viability
from egrsd_jax.config import Config
from egrsd_jax.data.detokenizer import token_texts
from egrsd_jax.data.tokenizer import load_tokenizer
from egrsd_jax.model.config import read_config
from egrsd_jax.model.sharding import make_mesh
from egrsd_jax.objective.methods import METHODS
from egrsd_jax.objective.regimes import REGIME_NAMES
from egrsd_jax.objective.settings import GateSettings
from egrsd_jax.probes.catalogue import judge
from egrsd_jax.runs.progress import EvaluationProgress
from egrsd_jax.runs.restore import base_folder
from egrsd_jax.viewer.scored import DECIMALS, Alternatives, ScoredCompletion

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DIFFERS = 0.05  # nats, mean: logged and fresh scores further apart are of different weights


@dataclass(frozen=True)
class Analysis:
    """What was analysed, with which gate, and all results. `dynamics` is None where no run was given.

    `logged_gap` is how far the scores that the run logged and those of its own weights are apart, nats, where both are
    there.
    """

    label: str
    config: Config
    study: Study
    step: int
    fresh: bool
    scored: list[ScoredCompletion]
    mechanism: Mechanism
    dynamics: Dynamics | None
    logged_gap: dict[str, float] | None
    probing: Probing
    notes: list[str]


@dataclass(frozen=True)
class _Source:
    """Completions, and the models that scored them where there are any."""

    label: str
    step: int
    completions: list[Written]
    tokenizer: "PreTrainedTokenizerBase"
    vocab_size: int
    models: Models | None
    notes: list[str]


def analyse(settings: Settings, config: Config) -> Analysis:
    """Raises ValueError or OSError of one line for whatever prevents it."""
    study = Study.of(config.method, gamma=settings.gamma, window=settings.window)
    dynamics = None if settings.run is None else read_dynamics(settings.run, config)
    with EvaluationProgress() as progress:
        source = _new(settings, config, progress) if settings.draws else _recorded(settings, config)
        pairs: list[tuple[View, View]] | None = None
        placebo, viable = [], None
        if source.models is not None:
            pairs = views(
                source.models,
                source.completions,
                rows=config.train.micro_batch_size or config.train.batch_size,
                temperature=config.method.score_temperature,
                top=settings.top,
                progress=progress,
            )
            placebo = placebos(config, source.models, source.completions, pairs, progress)
            viable = viability(config, source.models, source.completions, pairs, progress)
    scores = _scores(source, pairs)
    advantage = [completion.advantage for completion in source.completions]
    mechanism = measure(**scores, advantage=advantage, study=study, vocab_size=source.vocab_size)
    gap = None if pairs is None else _gap(source.completions, pairs)
    notes = [*source.notes, *_notes(config, gap)]
    scored = _scored(source, pairs, scores, mechanism)
    now, untrained = probe_completions(config, source.tokenizer, source.completions, mechanism, settings.run)
    probing = Probing(now, untrained, judge(now, untrained, config.probes), placebo, viable)
    return Analysis(
        source.label, config, study, source.step, settings.draws, scored, mechanism, dynamics, gap, probing, notes
    )


def _new(settings: Settings, config: Config, progress: EvaluationProgress) -> _Source:
    """Completions sampled now."""
    mesh = make_mesh(config.model.data, config.model.fsdp, config.model.tensor)
    step = settings.step
    if settings.run is not None and step is None:
        step = max(checkpoint_steps(settings.run), default=0)
    models = load_models(config, mesh, run=settings.run, step=step or 0, adapter=settings.adapter)
    completions = sample(config, models, settings.completions, step or 0, progress)
    notes = [f"{len(completions)} new completions by {models.label}; scores by the same weights and their teacher"]
    return _Source(models.label, step or 0, completions, models.tokenizer, models.config.vocab_size, models, notes)


def _recorded(settings: Settings, config: Config) -> _Source:
    """Completions that the run recorded, and its weights of that step where they are on disk and wanted."""
    run = settings.run
    assert run is not None, "Settings draws without a run"
    step, whole = sampled_step(run, settings.step)
    label = f"{run.resolve().name} step {step}"
    if whole and not settings.logged_only:
        models = load_models(config, make_mesh(1, -1, 1), run=run, step=step)  # not always where it was trained
        tokenizer, vocab_size = models.tokenizer, models.config.vocab_size
    else:
        folder = base_folder(run, config)
        models, tokenizer, vocab_size = None, load_tokenizer(folder)[0], read_config(folder).vocab_size
    completions = recorded(run, step, config, tokenizer)
    notes = [f"completions and scores as training logged them at step {step}, to {DECIMALS} decimals"]
    if METHODS[config.method.name].teacher:
        scored = [written for written in completions if set(LOGGED) <= written.logged.keys()]
        if not scored:
            raise ValueError(f"{label}: no completion was in the loss, so none was scored; take another --step")
        if left_out := len(completions) - len(scored):
            notes.append(
                f"{left_out} completions are left out: they were not in the loss, so training did not score them"
            )
        completions = scored
    elif models is not None:
        notes.append(f"{config.method.name} has no teacher: here it is the base model with the reference in its prompt")
    if models is not None:
        notes.append("student's entropy and likeliest tokens by the very weights that wrote them")
    elif not settings.logged_only:
        notes.append(f"no student entropy and no likeliest tokens: {run} has no checkpoint of step {step}")
    return _Source(label, step, completions, tokenizer, vocab_size, models, notes)


def _scores(source: _Source, pairs: Sequence[tuple[View, View]] | None) -> dict[str, list[list[float]]]:
    """What the weights follow from: as training logged it, since that is what the update used, else as scored now."""
    scores: dict[str, list[list[float]]] = {name: [] for name in LOGGED}
    for index, written in enumerate(source.completions):
        fresh = {} if pairs is None else _fresh(*pairs[index])
        for name in LOGGED:
            values = written.logged.get(name, fresh.get(name))
            if values is None:
                raise ValueError(
                    f"{source.label}: no {name} was logged, since the method has no teacher, and no model was run; "
                    "leave out --logged_only, or take a --step that has a checkpoint"
                )
            scores[name].append(values)
    return scores


def _fresh(student: View, teacher: View) -> dict[str, list[float]]:
    return {
        "student_logp": student.logp.tolist(),
        "teacher_logp": teacher.logp.tolist(),
        "teacher_entropy": teacher.entropy.tolist(),
    }


def _gap(completions: Sequence[Written], pairs: Sequence[tuple[View, View]]) -> dict[str, float] | None:
    """Mean |logged - fresh| of each score, nats; None where nothing was logged."""
    apart: dict[str, list[np.ndarray]] = {name: [] for name in LOGGED}
    for written, both in zip(completions, pairs, strict=True):
        fresh = _fresh(*both)
        for name in written.logged:
            apart[name].append(np.abs(np.array(written.logged[name]) - np.array(fresh[name])))
    return {name: float(np.concatenate(gaps).mean()) for name, gaps in apart.items() if gaps} or None


def _notes(config: Config, gap: dict[str, float] | None) -> list[str]:
    notes = []
    if gap is not None:
        apart = ", ".join(f"{nats:.0e} ({name})" for name, nats in gap.items())
        notes.append(f"logged scores and those of the weights on disk differ by {apart} nats, mean")
        if max(gap.values()) > DIFFERS:
            notes.append("that is more than rounding: the weights on disk are not those that the run logged with")
    if isinstance(config.method, GateSettings) and config.method.gate != "entropy":
        notes.append(f"method.gate is {config.method.gate}: omega here is the entropy's, before it was rearranged")
    if isinstance(config.method, GateSettings) and not config.method.is_papers_gate:
        kind = config.method.kind
        notes.append(
            f"the run's gate reads {kind.signal}, {kind.direction}, with agreement {kind.agreement:g}: omega here is "
            "that of the teacher's entropy"
        )
    return notes


def _scored(
    source: _Source,
    pairs: Sequence[tuple[View, View]] | None,
    scores: dict[str, list[list[float]]],
    mechanism: Mechanism,
) -> list[ScoredCompletion]:
    vocabulary = _Vocabulary(source.tokenizer)
    completions = []
    for row, written in enumerate(source.completions):
        student, teacher = (None, None) if pairs is None else pairs[row]
        length = len(written.tokens)

        def of(array_BT: np.ndarray, row: int = row, length: int = length) -> list[float]:
            return _rounded(array_BT[row, :length])

        completions.append(
            ScoredCompletion(
                problem=written.problem.id,
                text=written.text,
                answer=written.answer,
                reference_answer=written.problem.answer,
                correct=written.correct,
                stopped=written.stopped,
                reward=written.reward,
                advantage=written.advantage,
                step=written.step,
                tokens=written.tokens,
                token_texts=token_texts(source.tokenizer, written.tokens),
                **{name: _rounded(scores[name][row]) for name in LOGGED},
                student_entropy=None if student is None else _rounded(student.entropy),
                delta=of(mechanism.delta_BT),
                weight=of(mechanism.weight_BT),
                gate=of(mechanism.gate_BT),
                gate_lookahead=of(mechanism.gate_lookahead_BT),
                entropy_lookahead=of(mechanism.entropy_lookahead_BT),
                regime=[REGIME_NAMES[code] for code in mechanism.regime_BT[row, :length]],
                teacher_top=None if teacher is None else vocabulary.alternatives(teacher),
                student_top=None if student is None else vocabulary.alternatives(student),
            )
        )
    return completions


class _Vocabulary:
    """Texts of single tokens, each decoded once."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase"):
        self._tokenizer, self._texts = tokenizer, dict[int, str]()

    def alternatives(self, view: View) -> Alternatives:
        """The likeliest tokens of every position, as texts with their log-probabilities."""
        return [
            [(self._text(token), round(logp, DECIMALS)) for token, logp in zip(ids, logps, strict=True)]
            for ids, logps in zip(view.top_ids.tolist(), view.top_logp.tolist(), strict=True)
        ]

    def _text(self, token: int) -> str:
        if token not in self._texts:
            self._texts[token] = str(self._tokenizer.decode([token]))
        return self._texts[token]


def _rounded(values: Any) -> list[float]:
    return np.round(np.asarray(values, float), DECIMALS).tolist()
