"""The probes of an analysis: those of training over its completions, placebo teachers, and branches."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from egrsd_jax.analysis.completions import Written, recorded
from egrsd_jax.analysis.dynamics import Dynamics
from egrsd_jax.analysis.mechanism import Mechanism
from egrsd_jax.analysis.viability import Viability
from egrsd_jax.config import Config
from egrsd_jax.evaluate.diversity import diversity
from egrsd_jax.probes.catalogue import Verdict
from egrsd_jax.probes.observed import Observed, Tallies, fork_entropy, fork_masks, tallies
from egrsd_jax.probes.settings import ProbeSettings
from egrsd_jax.probes.statistics import Placebo
from egrsd_jax.probes.text_signals import StyleTokens
from egrsd_jax.runs.files import read_rows
from egrsd_jax.runs.layout import SAMPLES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PLACEBOS = ("wrong", "other")  # those whose surviving signal is compared with the limit


@dataclass(frozen=True)
class Probing:
    """All results of the probes. `untrained` is None without a run's completions of step 0."""

    now: Tallies
    untrained: Tallies | None
    verdicts: list[Verdict]
    placebos: list[Placebo]
    viability: Viability | None


def probe_completions(
    config: Config,
    tokenizer: "PreTrainedTokenizerBase",
    completions: Sequence[Written],
    mechanism: Mechanism,
    run: Path | None,
) -> tuple[Tallies, Tallies | None]:
    """The probes' sums over the completions, and over those of the run's untrained model."""
    style = StyleTokens(config.probes.style, tokenizer.decode)
    lengths = [len(completion.tokens) for completion in completions]
    entropies, delta, update = (
        [array_BT[row, :length].astype(float) for row, length in enumerate(lengths)]
        for array_BT in (mechanism.entropy_BT, mechanism.delta_BT, mechanism.update_BT)
    )
    first = [] if run is None else [row for row in read_rows(run / SAMPLES) if row["step"] == 0]
    known = [np.array(row["teacher_entropy"]) for row in first if "teacher_entropy" in row]
    least = config.probes.fork_entropy
    if least is None:
        least = fork_entropy(known or entropies)
    observed = [
        _observed(written, style, abs(written.advantage) * np.abs(weight), apart, fork)
        for written, weight, apart, fork in zip(completions, update, delta, fork_masks(entropies, least), strict=True)
    ]
    if run is None or not first:
        return tallies(observed, config.probes), None
    before = []
    for row, written in zip(first, recorded(run, 0, config, tokenizer), strict=True):
        has_weight, has_teacher = "weight" in row and "gate" in row, "teacher_entropy" in row
        before.append(
            _observed(
                written,
                style,
                np.abs(row["advantage"] * np.array(row["weight"]) * np.array(row["gate"])) if has_weight else None,
                np.array(row["delta"]) if has_teacher else None,
                fork_masks([np.array(row["teacher_entropy"])], least)[0] if has_teacher else None,
            )
        )
    return tallies(observed, config.probes), tallies(before, config.probes)


def probe_rows(probing: Probing, settings: ProbeSettings, dynamics: Dynamics | None) -> list[dict[str, Any]]:
    """Every probe: its value, over correct and wrong completions too, the untrained model's, its limits, verdict and
    meaning."""
    return [
        *(_verdict_row(verdict, probing, settings) for verdict in probing.verdicts),
        *_pass_row(settings, dynamics),
        *(_placebo_row(placebo, settings) for placebo in probing.placebos),
        *([] if probing.viability is None else _viability_rows(probing.viability, settings)),
    ]


def branch_rows(viability: Viability | None) -> list[dict[str, Any]]:
    """One row per branch."""
    if viability is None:
        return []
    pairs = zip(viability.branches, viability.reached, strict=True)
    return [asdict(branch) | {"reached": int(reached)} for branch, reached in pairs]


def _observed(
    written: Written, style: StyleTokens, weight: np.ndarray | None, delta: np.ndarray | None, fork: np.ndarray | None
) -> Observed:
    return Observed(
        text=written.text,
        problem=written.problem.problem,
        reference=written.problem.solution,
        answer=written.answer,
        correct=written.correct,
        stopped=written.stopped,
        length=len(written.tokens),
        tokens=written.tokens,
        style=style.mask(written.tokens),
        weight=weight,
        delta=delta,
        fork=fork,
    )


def _row(probe: str, value: float, unit: str, limit: str, verdict: str, meaning: str, **more: Any) -> dict[str, Any]:
    return {
        "probe": probe,
        "value": value,
        "unit": unit,
        **more,
        "limit": limit,
        "verdict": verdict,
        "meaning": meaning,
    }


def _verdict_row(verdict: Verdict, probing: Probing, settings: ProbeSettings) -> dict[str, Any]:
    probe, before = verdict.probe, verdict.untrained
    limits = {name: getattr(settings, name) for name in probe.limits.values()}
    in_force = [f"{name} {limit:g}" for name, limit in limits.items() if limit is not None]
    absolute = "most" in probe.limits
    if verdict.broken:
        outcome = "alarm"
    elif not in_force:
        outcome = "no limit"
    else:
        outcome = "ok" if absolute or before is not None else "nothing to compare with"
    apart = {group: probing.now[probe.name][group] for group in ("right", "wrong")}
    return _row(
        probe.title,
        probe.scale * verdict.now.value,
        probe.unit,
        ", ".join(in_force),
        outcome,
        probe.meaning,
        of=probe.of,
        error=probe.scale * verdict.now.error,
        **{group: probe.scale * tally.value if tally.count else None for group, tally in apart.items()},
        untrained=None if before is None else probe.scale * before.value,
        untrained_error=None if before is None else probe.scale * before.error,
    )


def _pass_row(settings: ProbeSettings, dynamics: Dynamics | None) -> list[dict[str, Any]]:
    if dynamics is None or len(dynamics.evaluations) < 2:
        return []
    (_, first), (_, last) = dynamics.evaluations[0], dynamics.evaluations[-1]
    if (comparison := diversity(first, last)) is None:
        return []
    change, limit = comparison.passed_change, settings.pass_fall
    lost = limit is not None and comparison.lost(limit, settings.clearly)
    return [
        _row(
            f"held-out pass@{comparison.samples}, change",
            100 * change.value,
            "points",
            "" if limit is None else f"pass_fall {limit:g}",
            "no limit" if limit is None else "alarm" if lost else "ok",
            f"avg@{comparison.samples} {100 * comparison.average_change.value:+.1f}: fewer solved, more reliably?",
            error=100 * change.error,
            low=100 * change.low,
            high=100 * change.high,
        )
    ]


def _placebo_row(placebo: Placebo, settings: ProbeSettings) -> dict[str, Any]:
    limit = settings.placebo_most if placebo.name in PLACEBOS else None
    return _row(
        f"placebo {placebo.name}: survives beyond chance",
        100 * placebo.beyond,
        "% of |delta|",
        "" if limit is None else f"placebo_most {limit:g}",
        "no limit" if limit is None else "alarm" if placebo.low > limit else "ok",
        "what is left of the teacher's signal was not about this problem's reference",
        low=100 * placebo.low,
        high=100 * placebo.high,
    )


def _viability_rows(viability: Viability, settings: ProbeSettings) -> list[dict[str, Any]]:
    limit = settings.viability_least
    rows = []
    for name, area in (("entropy", viability.entropy), ("position", viability.position)):
        bound = limit if name == "entropy" else None
        rows.append(
            _row(
                f"branches viable, AUROC of {name}",
                area.value,
                "",
                "" if bound is None else f"viability_least {bound:g}",
                "no limit" if bound is None else "alarm" if area.high < bound else "ok",
                f"does {name} predict where a branch still reaches the answer (continued by {viability.by})",
                low=area.low,
                high=area.high,
            )
        )
    return rows
