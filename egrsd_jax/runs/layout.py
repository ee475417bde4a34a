"""The names of everything that a run leaves in its folder. Imports no jax."""

from pathlib import Path

CONFIG = "config.yaml"
ENVIRONMENT = "environment.json"
FINGERPRINTS = "fingerprints.json"
METRICS = "metrics.jsonl"
SAMPLES = "samples.jsonl"
PROFILES = "profiles.jsonl"
PROBES = "probes.jsonl"
ALARMS = "alarms.jsonl"
FRONTIER = "frontier.png"
CHECKPOINTS = "checkpoints"
EVENTS = "tensorboard"
TRACKER_ID = "tracker_id"  # under which a resumed run continues at Weights & Biases
SCORED = "scored.jsonl"  # in the folder of an analysis

_EVALUATION = "evaluation_step"
EVALUATIONS = f"{_EVALUATION}*.json"


def evaluation_file(step: int) -> str:
    """The held-out evaluation after `step` gradient steps."""
    return f"{_EVALUATION}{step}.json"


def evaluation_files(run: Path) -> dict[int, Path]:
    """Every held-out evaluation that is in a run's folder, by step, in order; a copy under another name is none."""
    steps = {file: file.stem.removeprefix(_EVALUATION) for file in run.glob(EVALUATIONS)}
    return dict(sorted((int(step), file) for file, step in steps.items() if step.isdecimal()))


def benchmarks_folder(run: Path, step: int) -> Path:
    """Where a grid keeps the benchmarks of the checkpoint of `step`."""
    return run / f"benchmarks_step{step}"
