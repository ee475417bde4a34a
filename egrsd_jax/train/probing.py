"""A step's completions as the probes see them, and the probes of earlier steps of a run that resumes."""

from typing import NamedTuple

import numpy as np

from egrsd_jax.objective.methods import METHODS
from egrsd_jax.probes.observed import Observed, Tallies, fork_entropy, fork_masks, tallies
from egrsd_jax.probes.text_signals import StyleTokens
from egrsd_jax.probes.watch import Watch, from_row
from egrsd_jax.runs.files import read_rows
from egrsd_jax.runs.folder import steps_in_words
from egrsd_jax.train.collect import Rollout
from egrsd_jax.train.log import TokenRecord
from egrsd_jax.train.setup import Prepared


class Probes(NamedTuple):
    """What a run's probes keep between its steps."""

    watch: Watch
    style: StyleTokens


def kept_probes(run: Prepared) -> tuple[Probes, list[str]]:
    """The probes as they were at the run's step, and a line on the steps that they lack.

    They are in the checkpoint, so that a damaged row of probes.jsonl changes none after it. Where the checkpoint is of
    an earlier version, and where settings of the probes have changed since, they are counted again from the rows.
    """
    settings, kept, notes = run.config.probes, run.checkpoints.history.get("probes"), []
    watch = None if kept is None else Watch.resumed(settings, kept)
    if watch is None:
        known = None if kept is None else kept["fork_entropy"]
        watch, notes = _counted_again(run, settings.fork_entropy if known is None else known)
    return Probes(watch, StyleTokens(settings.style, run.tokenizer.decode)), notes


def _counted_again(run: Prepared, fork_entropy: float | None) -> tuple[Watch, list[str]]:
    watch, step = Watch(run.config.probes, fork_entropy=fork_entropy), int(run.state.step)
    rows = [row for row in read_rows(run.folder.probes) if row["step"] < step]
    lacking = {*range(step)} - {row.pop("step") for row in rows}
    for row in rows:
        watch.fork_entropy = row.pop("fork_entropy")
        watch.see(from_row(row))
    if not lacking or _has_no_probes(run):
        return watch, []
    return watch, [
        f"{run.folder.probes} has no rows of {steps_in_words(lacking)}; the averages and limits that later rows and "
        "alarms take from them are without"
    ]


def _has_no_probes(run: Prepared) -> bool:
    """Whether nobody writes completions without the reference."""
    return METHODS[run.config.method.name].writer == "reference"


def probe(run: Prepared, rollout: Rollout, tokens: TokenRecord, probes: Probes) -> Tallies:
    """What the probes count in the completions that a model wrote without the reference; nothing where there is none.

    The first step says which entropy makes a fork, where the settings do not.
    """
    if _has_no_probes(run):
        return {}
    written = np.flatnonzero(~rollout.by_teacher).tolist()
    numbers = {row: _numbers(rollout, tokens, row) for row in written if rollout.counts[row]}
    entropies = {row: known["teacher_entropy"] for row, known in numbers.items() if "teacher_entropy" in known}
    forks: dict[int, np.ndarray] = {}
    if entropies:
        if probes.watch.fork_entropy is None:
            probes.watch.fork_entropy = fork_entropy(entropies.values())
        forks = dict(zip(entropies, fork_masks([*entropies.values()], probes.watch.fork_entropy), strict=True))
    observed = [_observed(run, rollout, row, probes.style, numbers.get(row, {}), forks.get(row)) for row in written]
    return tallies(observed, run.config.probes)


def _numbers(rollout: Rollout, tokens: TokenRecord, row: int) -> dict[str, np.ndarray]:
    """The numbers of a completion's tokens that the method knows."""
    length = len(rollout.completions[row].tokens)
    cut = {name: array_BT[row, :length].astype(np.float64) for name, array_BT in tokens.known().items()}
    return {name: values for name, values in cut.items() if not np.isnan(values).any()}


def _observed(
    run: Prepared, rollout: Rollout, row: int, style: StyleTokens, known: dict[str, np.ndarray], fork: np.ndarray | None
) -> Observed:
    problem, completion = run.problems.problems[rollout.problem[row]], rollout.completions[row]
    grade, advantage = rollout.grades[row], float(rollout.advantage[row])
    has_weight, has_teacher = {"weight", "gate"} <= known.keys(), "teacher_logp" in known
    return Observed(
        text=grade.text,
        problem=problem.problem,
        reference=problem.solution,
        answer=grade.answer,
        correct=grade.correct,
        stopped=completion.stopped,
        length=len(completion.tokens),
        style=style.mask(completion.tokens),
        weight=np.abs(advantage * known["weight"] * known["gate"]) if has_weight else None,
        delta=known["teacher_logp"] - known["student_logp"] if has_teacher else None,
        fork=fork,
        tokens=completion.tokens,
    )
