"""An adapter_config.json of PEFT's: which modules the adapter is on, with what rank and scale. Imports no jax."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from egrsd_jax.side_files import read_fields

CONFIG = "adapter_config.json"
READ = {
    "peft_type",
    "r",
    "lora_alpha",
    "lora_dropout",
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    "rank_pattern",
    "alpha_pattern",
    "use_rslora",
    "init_lora_weights",
}
HARMLESS = {  # where an adapter came from and how it was trained, not what it computes
    "auto_mapping",
    "base_model_name_or_path",
    "bias",  # biases that were trained are tensors of the file, and refused as such
    "eva_config",
    "fan_in_fan_out",  # PEFT itself sets it back over linear layers
    "inference_mode",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "task_type",
}
INITIALISATIONS = (True, False, None, "gaussian", "orthogonal", "eva")  # those that leave the base weights alone
_ALL_LINEAR = "all-linear"  # of PEFT: every linear layer but the head


@dataclass(frozen=True)
class AdapterConfig:
    """The fields that say what an adapter computes; `targets` and `excluded` are names or one regular expression.
    `base` is the model that it was trained over, as its trainer called it."""

    rank: int
    alpha: float
    dropout: float
    targets: Sequence[str] | str
    excluded: Sequence[str] | str = ()
    layers: tuple[int, ...] | None = None
    layers_pattern: tuple[str, ...] = ()
    ranks: dict[str, int] = field(default_factory=dict)
    alphas: dict[str, float] = field(default_factory=dict)
    rank_stabilised: bool = False
    base: str | None = None

    @property
    def scale(self) -> float:
        """Of the modules that no pattern names: alpha / r, or rank-stabilised alpha / sqrt(r) (arXiv 2312.03732)."""
        return self._scale(self.rank, self.alpha)

    @property
    def largest_rank(self) -> int:
        """The rank that holds every module's."""
        return max([self.rank, *self.ranks.values()])

    def is_on(self, module: str) -> bool:
        """Whether the adapter is on a module such as `model.layers.3.self_attn.q_proj`, by PEFT's rules."""
        if self.excluded and _is_named(module, self.excluded):
            return False
        if self.targets == _ALL_LINEAR:
            return True
        if not _is_named(module, self.targets):
            return False
        if self.layers is None or isinstance(self.targets, str) or module in self.targets:
            return True
        patterns = self.layers_pattern or (r"[^.]*",)
        matches = (re.match(rf"(?:^|.*?\.)(?:{pattern})\.(?P<layer>\d+)\.", module) for pattern in patterns)
        numbered = next((match for match in matches if match), None)
        return numbered is not None and int(numbered["layer"]) in self.layers

    def rank_and_scale(self, module: str) -> tuple[int, float]:
        """Of one module: by the first pattern that its name ends in, or the common ones."""
        rank = self.ranks.get(_pattern_of(module, self.ranks), self.rank)
        return rank, self._scale(rank, self.alphas.get(_pattern_of(module, self.alphas), self.alpha))

    def _scale(self, rank: int, alpha: float) -> float:
        return alpha / (math.sqrt(rank) if self.rank_stabilised else rank)


def read_adapter_config(folder: Path) -> AdapterConfig:
    """The configuration of a LoRA adapter. Any field that is not known to be harmless must be empty: one that a later
    PEFT adds is refused by name, not overlooked.

    Raises FileNotFoundError or ValueError of one line.
    """
    file = folder / CONFIG
    if not file.is_file():
        run = (folder / "config.yaml").is_file()
        hint = f"; it is a run's: `egrsd export {folder} --what adapter --to DIR` makes one of it" if run else ""
        raise FileNotFoundError(f"{folder} is not an adapter's folder: it has no {CONFIG}{hint}")
    try:
        fields = read_fields(file)
        kind, rank, alpha, targets = (fields[name] for name in ("peft_type", "r", "lora_alpha", "target_modules"))
    except (ValueError, KeyError) as error:
        raise ValueError(f"{file} is not the configuration of a LoRA adapter: {error}") from None
    if kind != "LORA":
        raise ValueError(f"{file}: peft_type is {kind!r}; 'LORA' is read")
    if not targets or not _is_names(targets):
        raise ValueError(f"{file}: target_modules is {targets!r}; names of modules are read")
    if not _is_rank(rank) or not _is_number(alpha):
        raise ValueError(f"{file}: r is {rank!r} and lora_alpha {alpha!r}; a whole number over 0 and a number are read")
    dropout = fields.get("lora_dropout") or 0.0
    if not _is_number(dropout) or not 0 <= dropout < 1:
        raise ValueError(f"{file}: lora_dropout is {dropout!r}; a number of at least 0 and under 1 is read")
    start = fields.get("init_lora_weights", True)
    if (start.lower() if isinstance(start, str) else start) not in INITIALISATIONS:
        raise ValueError(
            f"{file}: init_lora_weights is {start!r}, which changes the base model too, and is not read; peft's "
            "save_pretrained with path_initial_model_for_weight_conversion writes an adapter over the model as it was, "
            "and its merge_and_unload a whole model"
        )
    for name in sorted(set(fields) - READ - HARMLESS):
        if not _is_empty(fields[name]):
            raise ValueError(
                f"{file}: {name} is {fields[name]!r}, and adapters with it are not read; merge it with peft's "
                "merge_and_unload, save that, and give the folder as the model"
            )
    return AdapterConfig(rank, float(alpha), float(dropout), targets, **_choices(file, fields))


def _choices(file: Path, fields: dict[str, Any]) -> dict[str, Any]:
    """The fields that choose modules, ranks and scales."""
    ranks, alphas = fields.get("rank_pattern") or {}, fields.get("alpha_pattern") or {}
    if not (isinstance(ranks, dict) and all(map(_is_rank, ranks.values()))):
        raise ValueError(f"{file}: rank_pattern is {ranks!r}; ranks over 0 by a module's name are read")
    if not (isinstance(alphas, dict) and all(map(_is_number, alphas.values()))):
        raise ValueError(f"{file}: alpha_pattern is {alphas!r}; numbers by a module's name are read")
    excluded, patterns = fields.get("exclude_modules") or (), fields.get("layers_pattern") or ()
    for name, value in (("exclude_modules", excluded), ("layers_pattern", patterns)):
        if value and not _is_names(value):
            raise ValueError(f"{file}: {name} is {value!r}; names are read")
    layers = fields.get("layers_to_transform")
    layers = [layers] if isinstance(layers, int) else layers
    if layers and not all(isinstance(layer, int) for layer in layers):
        raise ValueError(f"{file}: layers_to_transform is {layers!r}; numbers of layers are read")
    return {
        "excluded": excluded,
        "layers": tuple(layers) if layers else None,
        "layers_pattern": (patterns,) if isinstance(patterns, str) else tuple(patterns),
        "ranks": ranks,
        "alphas": {name: float(value) for name, value in alphas.items()},
        "rank_stabilised": bool(fields.get("use_rslora")),
        "base": fields.get("base_model_name_or_path"),
    }


def _is_named(module: str, names: Sequence[str] | str) -> bool:
    """One regular expression matches the whole name; of a list a name is the module's, or its end."""
    if isinstance(names, str):
        return re.fullmatch(names, module) is not None
    return any(module == name or module.endswith(f".{name}") for name in names)


def _pattern_of(module: str, patterns: dict[str, Any]) -> str:
    return next((pattern for pattern in patterns if re.match(rf"(.*\.)?({pattern})$", module)), module)


def _is_names(value: Any) -> bool:
    if isinstance(value, str):
        try:
            re.compile(value)
        except re.error:
            return False
        return True
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _is_rank(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_empty(value: Any) -> bool:
    """Null, false, zero, or a collection of nothing but those."""
    if isinstance(value, dict):
        return all(map(_is_empty, value.values()))
    return all(map(_is_empty, value)) if isinstance(value, list) else not value
