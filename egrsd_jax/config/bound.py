"""What a run and its checkpoints are bound to: the fields that decide what is computed. Imports no jax."""

from typing import Any

# Fields that earlier versions did not have. A checkpoint is bound to them where they are not at these values.
NEWER: dict[str, dict[str, Any]] = {
    "prompt": {"system": "", "examples": (), "answer_format": "boxed"},
    "lora": {"path": None},
    "rollout": {"ahead": 0, "stored": None},
    "method": {
        **{"negative_only": False, "clip_low": 0.2, "clip_high": 0.28},  # rlsd
        **{"signal": "teacher_entropy", "gate_direction": "down", "agreement": 1.0},  # the gate
        **{"teacher_growth": 0.2, "teacher_mix": 1.0, "retire_after": 0},  # the teacher
        **{"over": "top", "rest": "bucket", "ratio_cap": 0.0},  # sdpo
    },
}
# What may change when a run is resumed: where and how fast it runs, not what it computes.
FREE = {
    "run": None,
    "probes": None,
    "model": ("data", "fsdp", "tensor", "rematerialise"),
    "rollout": (
        "max_rows",
        "server",
        "served",
        "shared",
        "shared_on_server",
        "in_flight",
        "server_wait",
        "server_timeout",
        "gap_warns",
        "gap_stops",
    ),
    "train": (
        "steps",
        "micro_batch_size",
        "micro_batch_tokens",
        "checkpoint_every",
        "keep_checkpoints",
        "keep_best",
        "sample_every",
    ),
    "evaluation": ("every",),
}


def binding(settings: dict[str, Any]) -> dict[str, Any]:
    """Of a configuration's `asdict`, what a checkpoint is bound to: all but `FREE`, and what has no effect."""
    kept = dict(settings)
    if not settings["rollout"].get("ahead"):  # what corrects for older students then corrects nothing
        importance = ("importance", "importance_cap")
        kept["method"] = {name: value for name, value in settings["method"].items() if name not in importance}
    for section, fields in FREE.items():
        if fields is None:
            kept.pop(section, None)  # older runs have no probes
        else:
            kept[section] = {name: value for name, value in settings[section].items() if name not in fields}
    for section, defaults in NEWER.items():
        kept[section] = {
            name: _as_lists(value)
            for name, value in kept[section].items()
            if name not in defaults or _as_lists(value) != _as_lists(defaults[name])
        }
    return kept


def _as_lists(value: Any) -> Any:
    """Tuples as the lists that JSON and YAML have in their place."""
    return [_as_lists(entry) for entry in value] if isinstance(value, list | tuple) else value
