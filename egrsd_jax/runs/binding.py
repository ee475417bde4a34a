"""What binds a run's folder from its first second: the settings in its config.yaml. Imports no jax."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from egrsd_jax.command_line import check_sections, read_yaml, with_new_names
from egrsd_jax.config import Config, binding
from egrsd_jax.runs.checksums import recorded_steps
from egrsd_jax.runs.files import differences, read_json
from egrsd_jax.runs.layout import (
    CHECKPOINTS,
    CONFIG,
    FINGERPRINTS,
    METRICS,
    PROBES,
    PROFILES,
    SAMPLES,
    evaluation_files,
)
from egrsd_jax.runs.rows import whole_rows

PATHS = {"model": "weights", "data": "data", "evaluation": "evaluation", "lora": "adapter"}  # and their fingerprints
RESTART = "--run.restart true, which moves the folder aside and starts over"


class BegunOtherwise(ValueError):
    """A folder holds a run with other settings than the one that would write to it."""


class CheckpointsLost(ValueError):
    """A run's newest checkpoints are gone."""


def settings_that_differ(folder: Path, config: Config, *, by_content: bool = False) -> list[str]:
    """A line for each setting in which a folder's config.yaml is not `config`, of those that bind a run.

    With `by_content` a path may be another one where the folder has the fingerprint of what was there.
    """
    try:
        was = read_yaml(folder / CONFIG)
        check_sections(was)
        bound = binding(with_new_names(was)), binding(asdict(config))
        return differences(*(by_their_content(folder, *bound) if by_content else bound))
    except FileNotFoundError:
        return ["it has no config.yaml"]
    except ValueError as error:
        return [f"its config.yaml is no run's: {error}"]
    except (KeyError, AttributeError, TypeError) as error:
        return [f"its config.yaml is no run's: {error!r}"]


def by_their_content(folder: Path, was: dict[str, Any], now: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both settings without the paths of what a run's folder has fingerprints of, where both have one: what a path
    leads to is compared by its content, and may be moved."""
    file = folder / FINGERPRINTS
    recorded = read_json(file) if file.is_file() else {}
    was, now = dict(was), dict(now)
    for section, name in PATHS.items():
        if name in recorded and None not in (_path(was, section), _path(now, section)):
            was[section], now[section] = {**was[section], "path": None}, {**now[section], "path": None}
    return was, now


def _path(settings: dict[str, Any], section: str) -> Any:
    fields = settings.get(section)
    return fields.get("path") if isinstance(fields, dict) else None


def check_bound(folder: Path, config: Config) -> None:
    """Raises BegunOtherwise, one line that names every setting that differs, where `folder` is another run's."""
    if not (left := _left_by_a_run(folder)):
        return
    checkpoints = recorded_steps(folder / CHECKPOINTS)
    _check_none_is_lost(folder, checkpoints, config)
    if not (folder / CONFIG).exists():
        if not checkpoints:  # which have the settings as well
            raise BegunOtherwise(
                f"{folder} has {left[0]} and no {CONFIG}, so it is unknown with which settings that was made; give "
                f"another --run.name, or {RESTART}"
            )
        return
    if different := settings_that_differ(folder, config, by_content=True):
        also = f" (or move a damaged {CONFIG} away: the checkpoints have the settings too)" if checkpoints else ""
        raise BegunOtherwise(
            f"{folder} was begun with other settings: {'; '.join(different)}; give those, another --run.name, or "
            f"{RESTART}{also}"
        )


def _check_none_is_lost(folder: Path, checkpoints: list[int], config: Config) -> None:
    """Raises CheckpointsLost where a run came further than its newest checkpoint lets it: rows are written before the
    checkpoint that is due after them, so that rows of the step after it show that it was there."""
    newest = checkpoints[-1] if checkpoints else 0
    reached = max([newest, *evaluation_files(folder), *(row.get("step", 0) for row in whole_rows(folder / METRICS))])
    every = _every(folder, config)
    if config.run.older_checkpoint or reached < (newest // every + 1) * every:
        return
    raise CheckpointsLost(
        f"{folder} came to step {reached} with a checkpoint every {every} steps, and its newest is "
        f"{f'of step {newest}' if newest else 'gone: there is none'}; put the checkpoints back, resume from there with "
        f"--run.older_checkpoint true, or give {RESTART}"
    )


def _every(folder: Path, config: Config) -> int:
    """How often the run wrote checkpoints, by its config.yaml."""
    try:
        return int(read_yaml(folder / CONFIG)["train"]["checkpoint_every"])
    except (OSError, ValueError, KeyError, TypeError):
        return config.train.checkpoint_every


def _left_by_a_run(folder: Path) -> list[str]:
    """Names of what a run left in a folder."""
    names = [name for name in (CONFIG, METRICS, SAMPLES, PROFILES, PROBES) if (folder / name).exists()]
    names += [file.name for file in evaluation_files(folder).values()]
    return names + [f"checkpoints/{step}" for step in recorded_steps(folder / CHECKPOINTS)]
