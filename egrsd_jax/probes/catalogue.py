"""Every probe of completions: its unit, what it means, and its limits."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from egrsd_jax.probes.observed import GROUP_WORDS, Group, Tallies
from egrsd_jax.probes.settings import ProbeSettings
from egrsd_jax.probes.statistics import Tally

Sense = Literal["fall", "rise", "excess", "most"]  # below or above a share of the untrained, beyond it by, above at all


@dataclass(frozen=True)
class Probe:
    """A statistic, and when it alarms.

    `of` are the completions that are compared with the limits: the correct ones where a statistic differs between
    correct and wrong ones, so that a rise in accuracy alone does not move it. `limits` names a field of the settings
    for each sense. An `excusable` alarm is none where accuracy has held. Values are shown times `scale`, in `unit`.
    """

    name: str
    title: str
    meaning: str
    unit: str = "%"
    scale: float = 100
    of: Group = "all"
    limits: Mapping[Sense, str] = field(default_factory=dict)
    excusable: bool = False


PROBES = (
    Probe("accuracy", "correct answers", "the context of every other probe"),
    Probe(
        "length",
        "length",
        "drift of the length, which the reward pays for: shorter must not cost answers",
        "tokens",
        1,
        limits={"fall": "length_fall", "rise": "length_rise"},
        excusable=True,
    ),
    Probe("cut_off", "cut off", "completions without an end earn nothing", limits={"excess": "cut_off_excess"}),
    Probe(
        "hesitation",
        "hesitations",
        "doubt in words; a teacher that knows the answer trains it away, and hard problems need it",
        "per 1,000 tokens",
        1000,
        of="right",
        limits={"fall": "hesitation_fall", "rise": "hesitation_rise"},
    ),
    Probe(
        "mention",
        "mention the reference",
        "the student speaks of a reference that it cannot see",
        limits={"excess": "mention_excess"},
    ),
    Probe(
        "overlap",
        "words of the reference",
        "references learnt by heart and not the way to an answer",
        of="right",
        limits={"excess": "overlap_excess"},
    ),
    Probe(
        "early",
        "early answers",
        "the answer comes before its derivation, as for one who has read it",
        limits={"excess": "early_excess"},
    ),
    Probe(
        "fork",
        "forks",
        "tokens at which the teacher itself is unsure for a while: places left to explore",
        limits={"fall": "fork_fall"},
    ),
    Probe("style_tokens", "style tokens", "the context of the next two probes"),
    Probe(
        "style_weight",
        "update's weight on style",
        "the update teaches manner and not mathematics",
        limits={"most": "style_most"},
    ),
    Probe("style_delta", "teacher's signal on style", "|delta| that is about manner and not mathematics"),
    Probe(
        "delta_positive",
        "tokens that the teacher finds likelier",
        "delta over 0: in wrong completions the share of tokens on which it agrees with a failure",
    ),
    Probe(
        "no_answer",
        "without an answer",
        "rewards are about the form of an answer and not about the mathematics",
        limits={"most": "no_answer_most"},
    ),
    Probe(
        "loop",
        "end in a loop",
        "the end is the same stretch again and again: the policy degenerates, or the temperature is too low",
        limits={"most": "loop_most"},
    ),
    Probe("repeat", "repeated stretches", "stretches that the completion has written before, loops or re-checks"),
)
NOTHING_CORRECT = Probe(
    "nothing_correct",
    "correct answers for many steps",
    "no completion earns a reward: the problems are too hard, or the answers are not read",
)


@dataclass(frozen=True)
class Verdict:
    """A probe's statistic, the untrained model's, and the limit that it breaks, or None."""

    probe: Probe
    now: Tally
    untrained: Tally | None
    broken: str | None

    @property
    def text(self) -> str:
        """One line that says what is wrong; for a verdict that breaks a limit."""
        whose = "" if self.probe.of == "all" else f", {GROUP_WORDS[self.probe.of]} completions"
        than = "" if self.untrained is None else f", and the untrained model's {_shown(self.probe, self.untrained)}"
        return (
            f"{self.probe.title}{whose}: {_shown(self.probe, self.now)} {self.probe.unit}{than}; "
            f"limit probes.{self.broken}: {self.probe.meaning}"
        )


def judge(now: Tallies, untrained: Tallies | None, settings: ProbeSettings) -> list[Verdict]:
    """Every probe that has a statistic. Without the untrained model's, limits that compare with it are not broken."""
    held = untrained is not None and _has_held(now["accuracy"]["all"], untrained["accuracy"]["all"], settings)
    verdicts = []
    for probe in PROBES:
        if probe.name not in now:  # of a run that began before there was such a probe
            continue
        statistic = now[probe.name][probe.of]
        before = None if untrained is None or probe.name not in untrained else untrained[probe.name][probe.of]
        if statistic.count:
            broken = None if probe.excusable and held else _broken(probe, statistic, before, settings)
            verdicts.append(Verdict(probe, statistic, before if before and before.count else None, broken))
    return verdicts


def clearly_above(one: Tally, other: Tally, errors: float) -> bool:
    """Whether a statistic exceeds another by more than so many standard errors of independent ones."""
    return one.value - other.value > errors * math.hypot(one.error, other.error)


def _has_held(accuracy: Tally, untrained: Tally, settings: ProbeSettings) -> bool:
    """Whether the statistics rule out that accuracy fell by more than the settings allow."""
    doubt = settings.clearly * math.hypot(accuracy.error, untrained.error)
    return accuracy.value - untrained.value - doubt > -settings.accuracy_loss


def _broken(probe: Probe, now: Tally, untrained: Tally | None, settings: ProbeSettings) -> str | None:
    """The field of the limit that a statistic breaks, clearly and not by chance."""
    for sense, name in probe.limits.items():
        limit = getattr(settings, name)
        if limit is None or (sense != "most" and (untrained is None or not untrained.count)):
            continue
        if _breaks(sense, limit, now, untrained or Tally(), settings.clearly):
            return name
    return None


def _breaks(sense: Sense, limit: float, now: Tally, untrained: Tally, errors: float) -> bool:
    if sense == "most":
        return now.value - limit > errors * now.error
    if sense == "fall":
        return now.value < limit * untrained.value and clearly_above(untrained, now, errors)
    if sense == "rise":
        return now.value > limit * untrained.value and clearly_above(now, untrained, errors)
    return now.value - untrained.value > limit and clearly_above(now, untrained, errors)


def _shown(probe: Probe, tally: Tally) -> str:
    return f"{probe.scale * tally.value:.3g} ± {probe.scale * tally.error:.2g}"
