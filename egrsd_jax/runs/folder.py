"""The folder that a run leaves: its configuration, versions, metrics, samples and evaluations, each in one place."""

import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from egrsd_jax import __version__
from egrsd_jax.config import Config
from egrsd_jax.runs import fingerprint, layout
from egrsd_jax.runs.binding import RESTART, check_bound
from egrsd_jax.runs.files import read_rows, write_json, write_whole
from egrsd_jax.runs.lock import check_free, check_held, hold, hold_anew, holder, release
from egrsd_jax.runs.rows import (
    DAMAGED,
    append_rows,
    gone,
    heal,
    read_checked,
    remove_checked,
    replace_rows,
    write_checked,
)
from egrsd_jax.runs.trackers import Tracker, open_trackers

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "chex", "transformers", "numpy", "sympy")


class RunFolder:
    """`runs/<name>/`. Making one writes nothing; `open` makes the folder and what describes the run.

    Of several hosts one `writes`; all of them read, so the folder must be on storage that every host reaches.
    """

    def __init__(self, config: Config, *, writes: bool = True):
        self._writes = writes
        self.path = Path(config.run.dir) / run_name(config)
        self.checkpoints = self.path / layout.CHECKPOINTS
        self.metrics = self.path / layout.METRICS
        self.samples = self.path / layout.SAMPLES
        self.profiles = self.path / layout.PROFILES
        self.probes = self.path / layout.PROBES
        self.alarms = self.path / layout.ALARMS
        self.frontier = self.path / layout.FRONTIER
        self._config = config
        self.notes: list[str] = []  # what `begin` did that is worth a line
        self._is_open = False
        self._trackers: list[Tracker] = []

    def check(self) -> None:
        """Raises Locked or BegunOtherwise, one line, where this run may not write here. Writes nothing."""
        if not self._writes:
            return
        check_free(self.path)
        if not self._config.run.restart:
            check_bound(self.path, self._config)
        elif (grid := holder(self.path, "claim")) is not None:
            raise ValueError(f"{self.path} is a cell of a grid that {grid} runs; --run.restart cannot move it aside")

    def begin(
        self,
        fingerprints: Mapping[str, str],
        places: Mapping[str, str],
        is_of: Mapping[str, fingerprint.IsOf] | None = None,
    ) -> None:
        """Makes the folder this run's, until the command ends: locked, and bound to settings and fingerprints.

        `places` says in words what each fingerprint is of, and `is_of` is as for `fingerprint.check`. With
        `run.restart` what was there is moved aside first. Raises Locked, BegunOtherwise or InputsChanged, one line;
        `notes` has a line on what was done.
        """
        if not self._writes:
            return
        self.check()
        if self._config.run.restart and self.path.exists() and any(self.path.iterdir()):
            places_aside = (self.path.with_name(f"{self.path.name}.old{number}") for number in range(1, 10**6))
            aside = next(place for place in places_aside if not place.exists())
            hold_anew(self.path, aside)
            self.notes.append(f"what was in {self.path} is in {aside} now")
        hold(self.path)
        if not self._config.run.restart:
            check_bound(self.path, self._config)
        begun = (self.path / layout.CONFIG).exists()
        file = self.path / layout.FINGERPRINTS
        how_to_fix = f"put back what was there, give another --run.name, or {RESTART}"
        lacking = fingerprint.check(file, fingerprints, places, how_to_fix, is_of or {})
        if begun and lacking:
            self.notes.append(
                f"{self.path} had no fingerprint of {', '.join(places[name] for name in lacking)}; it has from now on"
            )
        write_whole(self.path / layout.CONFIG, yaml.safe_dump(asdict(self._config), sort_keys=False))
        fingerprint.record(file, fingerprints)

    def open(self, step: int, devices: list[str]) -> list[str]:
        """Makes the folder and writes config.yaml and environment.json; what an earlier, killed run wrote from `step`
        on is dropped, since it will be written again. What is damaged before it is set aside, and stays missing.

        Returns a line on each thing that is damaged, and on each condition of the same numbers that is another than at
        the last start of a run that resumes.
        """
        if not self._writes:
            return []
        self.path.mkdir(parents=True, exist_ok=True)
        write_whole(self.path / layout.CONFIG, yaml.safe_dump(asdict(self._config), sort_keys=False))
        notes = [*self.notes]
        now = {"seed": self._config.seed, "step": step, "devices": devices, **_environment()}
        file = self.path / layout.ENVIRONMENT
        last = self._read_or_set_aside(file, notes)
        earlier = [] if last is None else [*last.pop("earlier_starts", []), last]
        write_json(file, now | {"earlier_starts": earlier if step > 0 else []}, indent=2)
        for file in (self.metrics, self.profiles, self.probes, self.samples, self.alarms):
            one_of = ("step",) if file in (self.metrics, self.profiles, self.probes) else ()
            notes += _keep_rows_before(file, step, one_of)
        if lacking := {*range(step)} - {row["step"] for row in read_rows(self.metrics)}:
            notes.append(f"{self.metrics} has no rows of {steps_in_words(lacking)}; they stay missing")
        for file in gone(self.path, layout.EVALUATIONS):
            remove_checked(file)
        for evaluated, file in layout.evaluation_files(self.path).items():
            if evaluated > step:
                remove_checked(file)
            else:
                self._read_or_set_aside(file, notes)
        self._trackers = open_trackers(self.path, run_name(self._config), self._config, step)
        self._is_open = True
        return notes + ([] if last is None or step == 0 else _other_conditions(last, now))

    def _read_or_set_aside(self, file: Path, notes: list[str]) -> dict[str, Any] | None:
        """A JSON file that a run wrote; None where there is none, or where it is damaged and was moved aside."""
        if not file.is_file():
            return None
        try:
            return read_checked(file)
        except ValueError as error:
            aside = file.with_name(file.name + DAMAGED)
            file.rename(aside)
            remove_checked(file)
            notes.append(f"{error}; it is kept as {aside}")
            return None

    def log(self, step: int, values: dict[str, float]) -> None:
        """One line of metrics.jsonl, and the same values to the trackers of `run.track`."""
        if not self._is_open:
            return
        append_rows(self.metrics, [{"step": step, **values}])
        for tracker in self._trackers:
            tracker.log(step, values)

    def log_profiles(self, step: int, profiles: dict[str, dict[str, Any]]) -> None:
        """One line of profiles.jsonl: statistics by decile of entropy and by position, lists all of them."""
        if self._writes and profiles:
            lists = {
                name: {column: np.asarray(values).astype(float).round(6).tolist() for column, values in columns.items()}
                for name, columns in profiles.items()
            }
            append_rows(self.profiles, [{"step": step, **lists}])

    def log_probes(self, step: int, row: dict[str, Any]) -> None:
        """One line of probes.jsonl: what the step adds to every probe."""
        if self._writes:
            append_rows(self.probes, [{"step": step, **row}])

    def log_alarm(self, step: int, probe: str, text: str) -> None:
        """One line of alarms.jsonl; an alarm that is there already, from before the run was resumed, is not
        written again."""
        row = {"step": step, "probe": probe, "text": text}
        if self._writes and row not in read_rows(self.alarms):
            append_rows(self.alarms, [row])

    def log_samples(self, rows: Iterable[dict[str, Any]]) -> None:
        """Lines of samples.jsonl, each with its `step`."""
        if self._writes:
            append_rows(self.samples, rows)

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """A whole JSON file, or none: a reader never sees half of one."""
        if self._writes:
            write_checked(self.path / name, content)

    def read_json(self, name: str) -> dict[str, Any] | None:
        """What `write_json` wrote, or None."""
        file = self.path / name
        return read_checked(file) if file.is_file() else None

    def close(self) -> None:
        """Closes the trackers, and lets others write to the folder. Errors are those of `check_held`."""
        for tracker in self._trackers:
            tracker.close()
        check_held()
        release(self.path)


def run_name(config: Config) -> str:
    """The run's name, or one made of model, method and seed: the same command resumes the same run."""
    if config.run.name is not None:
        return config.run.name
    return f"{Path(config.model.path).name}-{config.method.name}-seed{config.seed}"


def _keep_rows_before(file: Path, step: int, one_of: Sequence[str]) -> list[str]:
    """Heals a file and drops its rows from `step` on; returns a line on what is damaged among those before it."""
    healed = heal(file, ("step",), one_of=one_of)
    if any(row["step"] >= step for row in healed.rows):
        replace_rows(file, [line for line, row in zip(healed.lines, healed.rows, strict=True) if row["step"] < step])
    return healed.notes


def steps_in_words(steps: Iterable[int]) -> str:
    """Some steps in order, of many the first ten and how many more."""
    known = sorted(steps)
    more = f" and {len(known) - 10} more" if len(known) > 10 else ""
    return f"steps {', '.join(map(str, known[:10]))}{more}"


def _other_conditions(last: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs from the last start, of what the numbers depend on to the bit; runs of 0.1.0 did not record all."""
    before, after = ({"egrsd_jax": start.get("version", "0.1.0"), **start["packages"]} for start in (last, now))
    was, is_now = ({"devices": _counted(start["devices"]), **start.get("conditions", {})} for start in (last, now))
    versions = [
        f"resumed with {name} {after[name]}; the last start had {before[name]}"
        for name in after
        if name in before and before[name] != after[name]
    ]
    return versions + [
        f"resumed with {name} {is_now[name] or 'none'}; the last start had {was[name] or 'none'}: what follows is the "
        "same to rounding, not bit for bit"
        for name in is_now
        if name in was and was[name] != is_now[name]
    ]


def _counted(devices: Sequence[str]) -> str:
    return ", ".join(f"{devices.count(kind)} {kind}" for kind in sorted(set(devices)))


def _environment() -> dict[str, Any]:
    return {
        "version": __version__,
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "conditions": {
            "CPU threads": _processors(),
            "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
            "machine": platform.machine(),
        },
        "packages": {name: _version(name) for name in PACKAGES},
        "git": _git_state(),
    }


def _processors() -> int:
    """How many processors this process may use, which is how many threads XLA divides a product among."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git_state() -> dict[str, Any] | None:
    """The commit of the checkout that this file is tracked in. None for an installed package, which may be in a
    repository of something else, and without git."""
    if _git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    return {"commit": _git("rev-parse", "HEAD"), "uncommitted changes": bool(_git("status", "--porcelain"))}


def _git(*arguments: str) -> str | None:
    """git's answer in this file's folder; None without git and where git refuses."""
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
