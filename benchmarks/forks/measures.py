"""Results of a grid on the built-in task with forks: diversity, re-checks, entropies, each with paired differences.

Held-out measures are of the samples of launch/evaluate.py, entropies of the completions that training recorded.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.forks.diversity import agreement, distinct
from egrsd_jax.ablate.results import Arm, GridResults
from egrsd_jax.data.problems import Problem
from egrsd_jax.data.tasks.orders import RECHECKS, derivation, token_kinds
from egrsd_jax.data.tokenizer import load_tokenizer
from egrsd_jax.evaluate.intervals import half_width, standard_error
from egrsd_jax.evaluate.metrics import pass_at
from egrsd_jax.evaluate.samples import RESULTS, EvaluationFolder, Sample
from egrsd_jax.model.hf.hub import resolve_folder
from egrsd_jax.report.tables import Table
from egrsd_jax.runs.files import read_rows
from egrsd_jax.runs.layout import SAMPLES, benchmarks_folder
from egrsd_jax.verify.pool import Outcome

TASK = "orders"
KINDS = ("fork", "pivot", "lock")


@dataclass(frozen=True)
class Measure:
    """A statistic of a run's held-out samples: its name, its decimals, and its value for each problem, [N]."""

    name: str
    decimals: int
    of: Callable[["HeldOutSamples"], np.ndarray]


@dataclass(frozen=True)
class HeldOutSamples:
    """K samples of each of N problems, whether each is correct, and the order of each that is a valid derivation."""

    samples_NK: list[list[Sample]]
    correct_NK: np.ndarray
    orders_NK: list[list[str | None]]


@dataclass(frozen=True)
class PairedDifference:
    """An arm less another, by seed and problem: mean, half of the 95% t interval over seeds, error over problems."""

    value: float
    over_seeds: float
    over_problems: float
    seeds: int


@dataclass(frozen=True)
class TokenFigures:
    """Of one kind of token in one step of a run: student's entropy estimate, teacher's entropy (nats), gate, share."""

    student_entropy: float
    teacher_entropy: float
    gate: float
    share: float


ByStep = dict[int, dict[str, TokenFigures]]


def _valid(held_out: HeldOutSamples) -> np.ndarray:
    return np.array([[100.0 * (order is not None) for order in orders] for orders in held_out.orders_NK]).mean(axis=1)


def _length(held_out: HeldOutSamples) -> np.ndarray:
    return np.array([[sample.tokens for sample in row] for row in held_out.samples_NK], float).mean(axis=1)


def _rechecks(held_out: HeldOutSamples) -> np.ndarray:
    words_NK = [[sample.text.split() for sample in row] for row in held_out.samples_NK]
    counts_NK = [[sum(word in RECHECKS for word in words) for words in row] for row in words_NK]
    return np.array(counts_NK, float).mean(axis=1)


MEASURES = (
    Measure("accuracy (%)", 1, lambda held_out: 100 * held_out.correct_NK.mean(axis=1)),
    Measure("pass@K (%)", 1, lambda held_out: 100 * pass_at(held_out.correct_NK, held_out.correct_NK.shape[1])),
    Measure("valid (%)", 1, _valid),
    Measure("length (tokens)", 2, _length),
    Measure("re-checks", 3, _rechecks),
    Measure("same first (%)", 2, lambda held_out: 100 * agreement(held_out.orders_NK, 1)),
    Measure("same order (%)", 2, lambda held_out: 100 * agreement(held_out.orders_NK)),
    Measure("distinct orders", 2, lambda held_out: distinct(held_out.orders_NK).astype(float)),
)


def read_held_out(folder: Path) -> HeldOutSamples:
    """What launch/evaluate.py wrote into a folder. Raises FileNotFoundError where it has nothing of the task."""
    if not (folder / RESULTS).is_file():
        raise FileNotFoundError(f"{folder} has no {RESULTS}; launch/evaluate.py --benchmarks {TASK} writes it")
    kept = EvaluationFolder(folder)
    samples = kept.samples(TASK)
    count = 1 + max(number for _, number in samples)
    asked = [problem for problem in kept.problems(TASK) if (problem.id, 0) in samples]
    texts = [[samples[problem.id, number] for number in range(count)] for problem in asked]
    rows = read_rows(folder / f"grades_{TASK}.jsonl")
    grades = {(row["problem"], row["sample"]): Outcome(row["outcome"]) is Outcome.CORRECT for row in rows}
    correct_NK = np.array([[grades[problem.id, number] for number in range(count)] for problem in asked])
    return HeldOutSamples(texts, correct_NK, [_orders(*pair) for pair in zip(asked, texts, strict=True)])


def _orders(problem: Problem, samples: Sequence[Sample]) -> list[str | None]:
    derivations = [derivation(problem, sample.text) if sample.stopped else None for sample in samples]
    return [None if valid is None else valid.order for valid in derivations]


def held_out_of(arm: Arm) -> dict[int, HeldOutSamples]:
    """An arm's ended runs, by seed."""
    folders = {run.seed: benchmarks_folder(run.folder, run.last) for run in arm.runs}
    return {seed: read_held_out(folder) for seed, folder in folders.items() if (folder / RESULTS).is_file()}


def paired(before: Mapping[int, np.ndarray], after: Mapping[int, np.ndarray]) -> PairedDifference:
    """After less before over the seeds that both have; values [N] of the same problems. Problems that one of them has
    no value for (NaN) are left out of that pair. Raises ValueError without a seed in common."""
    seeds = sorted(before.keys() & after.keys())
    if not seeds:
        raise ValueError(f"no seed is in common (seeds {sorted(before)} and {sorted(after)})")
    differences_SN = np.array([after[seed] - before[seed] for seed in seeds])
    by_seed, by_problem = np.nanmean(differences_SN, axis=1), np.nanmean(differences_SN, axis=0)
    by_problem = by_problem[~np.isnan(by_problem)]
    return PairedDifference(float(by_seed.mean()), half_width(by_seed), standard_error(by_problem), len(seeds))


def fork_tables(results: GridResults, start: HeldOutSamples | None = None) -> list[Table]:
    """Every measure of every arm, the paired differences to the same without a gate, and the tokens by
    their kind.

    `start` are samples of the model before training.
    """
    arms = [arm for arm in results.arms if arm.final]
    held_out = {arm.label: held_out_of(arm) for arm in arms}
    values = {
        label: {measure.name: {seed: measure.of(samples) for seed, samples in runs.items()} for measure in MEASURES}
        for label, runs in held_out.items()
    }
    against = references(results)
    return [_figures(values, start), _differences(values, against), *_by_kind(arms, against)]


def references(results: GridResults) -> dict[str, str]:
    """What each arm that has results is compared with, by labels: the arm without a gate (method `direction`) that
    agrees with it in all that is not the method. An arm without such a one is compared with nothing."""
    arms = [arm for arm in results.arms if arm.final]
    without = {_not_method(arm): arm.label for arm in arms if arm.fields.get("method.name") == "direction"}
    pairs = {arm.label: without.get(_not_method(arm), arm.label) for arm in arms}
    return {label: reference for label, reference in pairs.items() if label != reference}


def _not_method(arm: Arm) -> tuple[tuple[str, Any], ...]:
    kept = {name: value for name, value in arm.fields.items() if name != "cell" and not name.startswith("method.")}
    return tuple(sorted(kept.items()))


def _figures(values: Mapping[str, Any], start: HeldOutSamples | None) -> Table:
    rows = []
    if start is not None:
        rows.append(
            ["before training", "", *(f"{np.nanmean(measure.of(start)):.{measure.decimals}f}" for measure in MEASURES)]
        )
    for label, measured in values.items():
        seeds = [[float(np.nanmean(value_N)) for value_N in measured[measure.name].values()] for measure in MEASURES]
        cells = [_with_error(means, measure.decimals) for means, measure in zip(seeds, MEASURES, strict=True)]
        rows.append([label, str(len(seeds[0])), *cells])
    columns = ["", "seeds", *(measure.name for measure in MEASURES)]
    return Table("At the end", columns, rows, ["Means over seeds ± the standard error over seeds."])


def _differences(values: Mapping[str, Any], against: Mapping[str, str]) -> Table:
    rows = []
    for label, reference in against.items():
        pairs = [paired(values[reference][measure.name], values[label][measure.name]) for measure in MEASURES]
        cells = [
            f"{pair.value:+.{measure.decimals}f} ± {pair.over_seeds:.{measure.decimals}f} / "
            f"{pair.over_problems:.{measure.decimals}f}"
            for pair, measure in zip(pairs, MEASURES, strict=True)
        ]
        rows.append([f"{label} − {reference}", *cells])
    note = (
        "Paired by seed and problem: the mean difference ± half of its 95% t interval over seeds / its standard "
        "error over problems, for the trained weights as they are."
    )
    return Table("Paired differences", ["", *(measure.name for measure in MEASURES)], rows, [note])


def _by_kind(arms: Sequence[Arm], against: Mapping[str, str]) -> list[Table]:
    """The tokens of the completions that training recorded by their kind, at its first and last recorded step."""
    runs = {arm.label: _recorded(arm) for arm in arms}
    if not all(runs.values()):
        return []
    first, last = (pick(set.intersection(*map(set, _all_runs(runs)))) for pick in (min, max))
    rows = []
    for label, seeds in runs.items():
        for step, kind in itertools.product((first, last), KINDS):
            tokens = [run[step][kind] for run in seeds.values()]
            share = f"{100 * np.mean([of_seed.share for of_seed in tokens]):.0f}"
            numbers = [
                [getattr(of_seed, name) for of_seed in tokens]
                for name in ("student_entropy", "teacher_entropy", "gate")
            ]
            cells = ["" if np.isnan(values).any() else _with_error(values, 3) for values in numbers]
            rows.append([label, str(step), kind, share, *cells])
    columns = ["", "step", "token", "share (%)", "student's entropy", "teacher's entropy", "gate"]
    note = (
        "Means over seeds ± the standard error over seeds, in nats. The student's entropy is estimated by -log q "
        "of the sampled tokens."
    )
    return [Table("Tokens by kind", columns, rows, [note]), _entropy_differences(runs, against, last)]


def _entropy_differences(runs: Mapping[str, dict[int, ByStep]], against: Mapping[str, str], step: int) -> Table:
    rows = []
    for label, reference in against.items():
        seeds = runs[label]
        common = sorted(seeds.keys() & runs[reference].keys())
        cells = []
        for kind in KINDS:
            pairs = [(seeds[seed][step][kind], runs[reference][seed][step][kind]) for seed in common]
            changes = [arm.student_entropy - other.student_entropy for arm, other in pairs]
            cells.append(f"{np.mean(changes):+.3f} ± {half_width(changes):.3f}")
        rows.append([f"{label} − {reference}", str(len(common)), *cells])
    title = f"Paired differences of the student's entropy at step {step} (nats)"
    note = "Paired by seed: the mean difference ± half of its 95% t interval over seeds."
    return Table(title, ["", "seeds", *KINDS], rows, [note])


def _recorded(arm: Arm) -> dict[int, ByStep]:
    """What the ended runs of an arm recorded, by seed."""
    by_seed = {run.seed: token_figures(run.folder) for run in arm.runs if run.final is not None}
    return {seed: steps for seed, steps in by_seed.items() if steps}


def _all_runs(runs: Mapping[str, dict[int, ByStep]]) -> list[ByStep]:
    return [run for seeds in runs.values() for run in seeds.values()]


def _with_error(values: Sequence[float], decimals: int) -> str:
    if len(values) < 2:
        return f"{values[0]:.{decimals}f}"
    return f"{np.mean(values):.{decimals}f} ± {standard_error(values):.{decimals}f}"


def token_figures(folder: Path) -> ByStep:
    """Of every recorded step of a run, by kind of token. The student's entropy is estimated by -log q of the sampled
    tokens, whose mean it is at temperature 1 without truncation. What the method does not
    have, a teacher or a gate, is NaN."""
    tokenizer, _ = load_tokenizer(resolve_folder(TASK))
    pooled: dict[int, list[tuple[str, float, float, float]]] = {}
    for row in read_rows(folder / SAMPLES):
        if "student_logp" not in row:
            continue  # it was not in the loss, so nothing scored it
        kinds = token_kinds(tokenizer.convert_ids_to_tokens(row["tokens"]))
        numbers = (row.get(name, [math.nan] * len(kinds)) for name in ("student_logp", "teacher_entropy", "gate"))
        pooled.setdefault(row["step"], []).extend(zip(kinds, *numbers, strict=True))
    return {step: _of_kinds(tokens) for step, tokens in pooled.items()}


def _of_kinds(tokens: Sequence[tuple[str, float, float, float]]) -> dict[str, TokenFigures]:
    by_kind = {}
    for kind in KINDS:
        of_kind = np.array([numbers for name, *numbers in tokens if name == kind], float)
        if len(of_kind):
            logp, entropy, gate = of_kind.mean(axis=0)
            by_kind[kind] = TokenFigures(-float(logp), float(entropy), float(gate), len(of_kind) / len(tokens))
    return by_kind
