"""Probes over training steps: the untrained model's values, and when an alarm begins."""

import json
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from egrsd_jax.probes.catalogue import NOTHING_CORRECT, Verdict, judge
from egrsd_jax.probes.observed import Tallies
from egrsd_jax.probes.settings import ProbeSettings
from egrsd_jax.probes.statistics import Tally, total


@dataclass
class Watch:
    """The steps so far. `fork_entropy` is the settings', or else what step 0 gave.

    A statistic is pooled over the last `window` steps before it is judged. An alarm is raised when it begins; it can
    begin again once its limit has held for a whole window.
    """

    settings: ProbeSettings
    fork_entropy: float | None = None
    untrained: Tallies | None = None
    baseline: list[Tallies] = field(default_factory=list)
    recent: deque[Tallies] = field(default_factory=deque)
    quiet_for: dict[str, int] = field(default_factory=dict)  # steps since a limit was last broken
    wrong_for: int = 0  # steps since the last one with a correct completion

    @classmethod
    def resumed(cls, settings: ProbeSettings, kept: dict[str, Any]) -> "Watch | None":
        """What `to_json` gave; None where that was with other settings, by which the steps before count otherwise."""
        if kept["settings"] != _as_json(settings):
            return None
        watch = cls(settings, kept["fork_entropy"], quiet_for=kept["quiet_for"], wrong_for=kept["wrong_for"])
        watch.baseline = [from_row(row) for row in kept["baseline"]]
        watch.untrained = pooled(watch.baseline) if watch.baseline else None
        watch.recent = deque(from_row(row) for row in kept["recent"])
        return watch

    def to_json(self) -> dict[str, Any]:
        """All that it keeps, for JSON; `resumed` reads it back."""
        return {
            "settings": _as_json(self.settings),
            "fork_entropy": self.fork_entropy,
            "baseline": [as_row(step) for step in self.baseline],
            "recent": [as_row(step) for step in self.recent],
            "quiet_for": self.quiet_for,
            "wrong_for": self.wrong_for,
        }

    def see(self, tallies: Tallies) -> list[Verdict]:
        """The next step's sums -> the alarms that begin with it."""
        return self._nothing_correct(tallies) + self._begun(tallies)

    def _nothing_correct(self, tallies: Tallies) -> list[Verdict]:
        """An alarm with the step that is one too many without a correct completion; the untrained model's count."""
        accuracy = tallies["accuracy"]["all"]
        self.wrong_for = 0 if accuracy.top else self.wrong_for + 1
        is_new = self.wrong_for == self.settings.nothing_correct
        return [Verdict(NOTHING_CORRECT, accuracy, None, "nothing_correct")] if is_new else []

    def _begun(self, tallies: Tallies) -> list[Verdict]:
        if len(self.baseline) < self.settings.baseline_steps:
            self.baseline.append(tallies)
            self.untrained = pooled(self.baseline)
            return []
        self.recent.append(tallies)
        if len(self.recent) > self.settings.window:
            self.recent.popleft()
        if len(self.recent) < self.settings.window:
            return []
        return [verdict for verdict in self.verdicts() if self._begins(verdict)]

    def verdicts(self) -> list[Verdict]:
        """Every probe over the last steps."""
        return judge(pooled(self.recent), self.untrained, self.settings)

    def _begins(self, verdict: Verdict) -> bool:
        name = verdict.probe.name
        if verdict.broken is None:
            if name in self.quiet_for:
                self.quiet_for[name] += 1
            return False
        is_new = self.quiet_for.get(name, self.settings.window) >= self.settings.window
        self.quiet_for[name] = 0
        return is_new


def _as_json(settings: ProbeSettings) -> dict[str, Any]:
    """Settings as JSON gives them back, with lists for tuples."""
    return json.loads(json.dumps(asdict(settings)))


def pooled(steps: Sequence[Tallies]) -> Tallies:
    """The sums of several steps as one, of the probes that all of them have: a run that resumes may have begun before
    there were others."""
    common = [name for name in steps[-1] if all(name in step for step in steps)]
    return {name: {group: total(step[name][group] for step in steps) for group in steps[-1][name]} for name in common}


def as_row(tallies: Tallies) -> dict[str, Any]:
    """The sums of a step, for a line of JSON; `from_row` reads it back."""
    return {name: {group: asdict(tally) for group, tally in groups.items()} for name, groups in tallies.items()}


def from_row(row: dict[str, Any]) -> Tallies:
    """What `as_row` gave."""
    return {name: {group: Tally(**sums) for group, sums in groups.items()} for name, groups in row.items()}


def metrics_of(tallies: Tallies) -> dict[str, float]:
    """A step's statistics by name: `probe_NAME`, and `probe_NAME_right` (over correct completions),
    `probe_NAME_wrong`."""
    return {
        f"probe_{name}" if group == "all" else f"probe_{name}_{group}": tally.value
        for name, groups in tallies.items()
        for group, tally in groups.items()
        if tally.count and not (name == "accuracy" and group != "all")
    }
