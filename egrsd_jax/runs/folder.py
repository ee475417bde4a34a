"""The folder that a run leaves: its configuration, versions, metrics, samples and evaluations, each in one place."""

import platform
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from egrsd_jax import __version__
from egrsd_jax.config import Config
from egrsd_jax.runs import layout
from egrsd_jax.runs.files import append_rows, read_json, read_rows, write_json, write_rows
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
        self._is_open = False
        self._trackers: list[Tracker] = []

    def open(self, step: int, devices: list[str]) -> list[str]:
        """Makes the folder and writes config.yaml and environment.json; what an earlier, killed run wrote from `step`
        on is dropped, since it will be written again.

        Returns the versions that are others than at the last start of a run that resumes, one per line.
        """
        if not self._writes:
            return []
        self.path.mkdir(parents=True, exist_ok=True)
        settings = yaml.safe_dump(asdict(self._config), sort_keys=False)
        (self.path / layout.CONFIG).write_text(settings, encoding="utf-8")
        environment = {"seed": self._config.seed, "step": step, "devices": devices, **_environment()}
        file = self.path / layout.ENVIRONMENT
        last = read_json(file) if step > 0 and file.is_file() else None
        earlier = [] if last is None else [*last.pop("earlier_starts", []), last]
        write_json(file, environment | {"earlier_starts": earlier}, indent=2)
        for file in (self.metrics, self.samples, self.profiles, self.probes, self.alarms):
            _keep_rows_before(file, step)
        for evaluated, file in layout.evaluation_files(self.path).items():
            if step == 0 or evaluated > step:
                file.unlink()
        self._trackers = open_trackers(self.path, run_name(self._config), self._config, step)
        self._is_open = True
        return [] if last is None else _other_versions(last, environment)

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
            write_json(self.path / name, content)

    def read_json(self, name: str) -> dict[str, Any] | None:
        """What `write_json` wrote, or None."""
        file = self.path / name
        return read_json(file) if file.is_file() else None

    def close(self) -> None:
        """Closes the trackers."""
        for tracker in self._trackers:
            tracker.close()


def run_name(config: Config) -> str:
    """The run's name, or one made of model, method and seed: the same command resumes the same run."""
    if config.run.name is not None:
        return config.run.name
    return f"{Path(config.model.path).name}-{config.method.name}-seed{config.seed}"


def _keep_rows_before(file: Path, step: int) -> None:
    if file.is_file():
        write_rows(file, [row for row in read_rows(file) if row["step"] < step])


def _other_versions(last: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What another version runs than at the last start; runs of 0.1.0 did not record the version of egrsd_jax."""
    before, after = ({"egrsd_jax": start.get("version", "0.1.0"), **start["packages"]} for start in (last, now))
    return [
        f"resumed with {name} {after[name]}; the last start had {before[name]}"
        for name in after
        if name in before and before[name] != after[name]
    ]


def _environment() -> dict[str, Any]:
    return {
        "version": __version__,
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "git": _git_state(),
    }


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
