"""How rotary frequencies are changed for longer texts: read from and written to `config.json`. Imports no jax."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

SLIDING, FULL = "sliding_attention", "full_attention"
_SHARED = {"rope_type", "type", "rope_theta"}
# Fields of other programs, and of transformers', that change nothing at these values.
_NEUTRAL = {"partial_rotary_factor": 1.0, "attn_factor": 1.0, "extrapolation_factor": 1.0, "truncate": True}
_NEUTRAL_BY_DEFAULT = {"factor": 1.0, "attention_factor": 1.0}  # where the type is `default`
_IGNORED = {"finetuned"}
_DEFAULT_THETA = 10_000.0  # of transformers 5, where a family has no other


@dataclass(frozen=True)
class Yarn:
    """Frequencies stretched by YaRN (arXiv 2309.00071).

    Args:
        factor: how many times longer the texts are.
        original_positions: the length that the model was trained on.
        attention_factor: multiplies cosine and sine, so that attention logits grow by its square.
        beta_fast: frequencies that turn at least this often over the original length stay as they are,
        beta_slow: those that turn at most this often are divided by the factor, and in between is a ramp.
    """

    factor: float
    original_positions: int
    attention_factor: float
    beta_fast: float = 32.0
    beta_slow: float = 1.0


@dataclass(frozen=True)
class Llama3:
    """Frequencies stretched as in Llama 3.1 (arXiv 2407.21783): the slow ones are divided by the factor.

    Args:
        factor: how many times longer the texts are.
        low_freq_factor: frequencies that turn fewer times than this over the original length are divided,
        high_freq_factor: those that turn more often than this stay as they are, and in between they are mixed.
        original_positions: the length that the model was trained on.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_positions: int


@dataclass(frozen=True)
class Linear:
    """Every frequency divided by `factor` (arXiv 2306.15595)."""

    factor: float


RopeScaling = Yarn | Llama3 | Linear


def read_rope(fields: dict[str, Any], default_theta: float | None) -> tuple[float, RopeScaling | None]:
    """theta of all layers, and the scaling of those with full attention, from the fields of a `config.json`.

    transformers 5 keeps both in `rope_parameters`, Olmo-3's by layer type; transformers 4 keeps `rope_theta` at the
    top level and the scaling in `rope_scaling`. Sliding layers never leave the length they were trained on: none scales
    them. `default_theta` is what transformers takes where the file has none. Raises ValueError or KeyError.
    """
    parameters = fields.get("rope_parameters") or {}
    own = parameters.get(FULL) or parameters
    rope = fields.get("rope_scaling") or own
    rope = {name: value for name, value in rope.items() if value is not None and name not in (FULL, SLIDING)}
    theta = rope.get("rope_theta", own.get("rope_theta", fields.get("rope_theta", default_theta)))
    _refuse_lost_theta(fields, own, default_theta or _DEFAULT_THETA)
    if theta is None:
        raise ValueError("config.json: rope_theta is neither in rope_parameters nor at the top level")
    if sliding := parameters.get(SLIDING):
        plain = {"rope_type": "default", "rope_theta": theta}
        if {**plain, **sliding} != plain:
            raise ValueError(f"config.json: rope_parameters.{SLIDING} {sliding} is not supported; {plain} is")
    kind = rope.get("rope_type", rope.get("type", "default"))
    neutral = _NEUTRAL | (_NEUTRAL_BY_DEFAULT if kind == "default" else {})
    rope = {name: value for name, value in rope.items() if not (name in neutral and value == neutral[name])}
    rope = {name: value for name, value in rope.items() if name not in _IGNORED}
    if kind == "default":
        _check_fields(rope, kind, _SHARED)
        return float(theta), None
    if kind not in _KINDS:
        raise ValueError(f"config.json: rope type {kind!r} is not supported; {', '.join(['default', *_KINDS])} are")
    names, read = _KINDS[kind]
    if kind == "yarn":
        if "factor" not in rope and "original_max_position_embeddings" in rope:  # as transformers does
            rope["factor"] = fields["max_position_embeddings"] / rope["original_max_position_embeddings"]
        _refuse_attn_factor(rope)
    _check_fields(rope, kind, _SHARED | names)
    if (factor := float(rope["factor"])) < 1:
        raise ValueError(f"config.json: {kind}'s factor is {factor}; it stretches, so it is at least 1")
    return float(theta), read(rope)


def write_rope(theta: float, scaling: RopeScaling | None, *, by_layer_type: bool) -> dict[str, Any]:
    """Both layouts at once: transformers 4 ignores `rope_parameters`, and 5 reads the same numbers in either."""
    own = {"rope_theta": theta}
    written = None if scaling is None else _write(scaling)
    parameters: dict[str, Any] = (written or {"rope_type": "default"}) | own
    if by_layer_type:
        parameters = {FULL: parameters, SLIDING: {"rope_type": "default"} | own}
    return own | {"rope_scaling": written, "rope_parameters": parameters}


def _check_fields(rope: dict[str, Any], kind: str, supported: set[str]) -> None:
    if surplus := set(rope) - supported:
        raise ValueError(
            f"config.json: rope field {min(surplus)!r} is not supported; for type {kind!r} there are "
            f"{', '.join(sorted(supported))}"
        )


def _refuse_lost_theta(fields: dict[str, Any], own: dict[str, Any], default_theta: float) -> None:
    """A file of transformers 5 has theta in `rope_parameters`; where someone adds `rope_scaling`, as Qwen's model cards
    say to, transformers reads that in its place and computes with the theta of nobody."""
    scaling, kept = fields.get("rope_scaling"), own.get("rope_theta")
    if not scaling or kept is None or own is not fields.get("rope_parameters") or "rope_theta" in scaling:
        return
    if (read := fields.get("rope_theta", default_theta)) != kept:
        raise ValueError(
            f"config.json: rope_scaling has no rope_theta; transformers then computes with {read:g} and not with the "
            f'{kept:g} of rope_parameters, which it leaves out; write "rope_theta": {kept:g} into rope_scaling'
        )


def _refuse_attn_factor(rope: dict[str, Any]) -> None:
    """DeepSeek-R1-0528-Qwen3-8B has it, and what it was trained with is not what transformers makes of the file."""
    if "attn_factor" not in rope:
        return
    value = rope["attn_factor"]
    alone = _read_yarn({name: entry for name, entry in rope.items() if name != "attn_factor"}).attention_factor
    raise ValueError(
        f"config.json: rope field 'attn_factor' {value} is read differently: transformers leaves it out and computes "
        f"with attention_factor {alone:.6g}, vLLM multiplies it in and computes with {alone * float(value):.6g}; write "
        "the one that is meant as 'attention_factor' in its place"
    )


def _read_yarn(rope: dict[str, Any]) -> Yarn:
    """The attention factor follows from `factor`, or from the two mscale fields, where the file does not state it."""
    factor, scales = float(rope["factor"]), (rope.get("mscale"), rope.get("mscale_all_dim"))

    def growth(scale: float) -> float:
        return 0.1 * scale * math.log(factor) + 1.0

    implied = growth(scales[0]) / growth(scales[1]) if scales[0] and scales[1] else growth(1.0)
    return Yarn(
        factor=factor,
        original_positions=rope["original_max_position_embeddings"],
        attention_factor=float(rope.get("attention_factor", implied)),
        beta_fast=float(rope.get("beta_fast", 32.0)),
        beta_slow=float(rope.get("beta_slow", 1.0)),
    )


def _read_llama3(rope: dict[str, Any]) -> Llama3:
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    if not 0 < low < high:
        raise ValueError(f"config.json: low_freq_factor is {low} and high_freq_factor {high}; 0 < low < high is read")
    return Llama3(float(rope["factor"]), low, high, rope["original_max_position_embeddings"])


def _write(scaling: RopeScaling) -> dict[str, Any]:
    if isinstance(scaling, Linear):
        return {"rope_type": "linear", "factor": scaling.factor}
    if isinstance(scaling, Llama3):
        return {
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_positions,
        }
    return {
        "rope_type": "yarn",
        "factor": scaling.factor,
        "original_max_position_embeddings": scaling.original_positions,
        "attention_factor": scaling.attention_factor,
        "beta_fast": scaling.beta_fast,
        "beta_slow": scaling.beta_slow,
    }


# Every type besides `default`: the fields it may have, and how they are read.
_KINDS: dict[str, tuple[set[str], Callable[[dict[str, Any]], RopeScaling]]] = {
    "yarn": (
        {
            "factor",
            "original_max_position_embeddings",
            "attention_factor",
            "beta_fast",
            "beta_slow",
            "mscale",
            "mscale_all_dim",
        },
        _read_yarn,
    ),
    "llama3": (
        {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"},
        _read_llama3,
    ),
    "linear": ({"factor"}, lambda rope: Linear(float(rope["factor"]))),
}
