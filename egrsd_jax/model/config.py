"""The shape of a model, read from and written to a Hugging Face `config.json`. Imports no jax."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

SUPPORTED = {"qwen3": "Qwen3ForCausalLM"}


@dataclass(frozen=True)
class ModelConfig:
    """A dense Qwen3 decoder.

    `dtype` is what matrices are multiplied in; norms, softmax and scores are float32 whatever it is.
    `rematerialise` makes the backward pass compute each layer's activations again instead of keeping them.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rope_theta: float
    rms_norm_eps: float
    tie_embeddings: bool
    max_positions: int
    dtype: str = "bfloat16"
    rematerialise: bool = True

    def replace(self, **changes: Any) -> "ModelConfig":
        """A copy with some fields changed."""
        return replace(self, **changes)

    @classmethod
    def from_hf(cls, fields: dict[str, Any], *, dtype: str = "bfloat16") -> "ModelConfig":
        """Reads the fields of a `config.json` as transformers 4 or 5 writes it.

        Raises ValueError for an architecture, an activation, a bias or a rope scaling that this port does not have,
        and for a field that is missing: nothing is assumed where transformers itself writes a value.
        """
        model_type = fields.get("model_type")
        if model_type not in SUPPORTED:
            raise ValueError(
                f"config.json: model_type {model_type!r} is not supported; supported: {', '.join(SUPPORTED)}"
            )
        if fields.get("attention_bias") or fields.get("use_sliding_window"):
            raise ValueError("config.json: attention_bias and use_sliding_window must be false for a dense Qwen3")
        if (activation := fields.get("hidden_act", "silu")) != "silu":
            raise ValueError(f"config.json: hidden_act {activation!r} is not supported; Qwen3 uses 'silu'")
        try:
            return cls(
                vocab_size=fields["vocab_size"],
                hidden_size=fields["hidden_size"],
                intermediate_size=fields["intermediate_size"],
                num_layers=fields["num_hidden_layers"],
                num_heads=fields["num_attention_heads"],
                num_kv_heads=fields["num_key_value_heads"],
                head_dim=fields["head_dim"],
                rope_theta=_rope_theta(fields),
                rms_norm_eps=fields["rms_norm_eps"],
                tie_embeddings=fields["tie_word_embeddings"],
                max_positions=fields["max_position_embeddings"],
                dtype=dtype,
            )
        except KeyError as missing:
            raise ValueError(f"config.json: the field {missing} is missing; a Qwen3 config.json has it") from None

    def to_hf(self, *, param_dtype: str, **extra: Any) -> dict[str, Any]:
        """This model's `config.json` as transformers 5 reads it; `extra` adds fields such as token ids."""
        return {
            "architectures": [SUPPORTED["qwen3"]],
            "model_type": "qwen3",
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_kv_heads,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "attention_bias": False,
            "attention_dropout": 0.0,
            "max_position_embeddings": self.max_positions,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope_theta,
            "rope_parameters": {"rope_type": "default", "rope_theta": self.rope_theta},
            "tie_word_embeddings": self.tie_embeddings,
            "use_sliding_window": False,
            "dtype": param_dtype,
            **extra,
        }


def read_config(folder: Path, *, dtype: str = "bfloat16") -> ModelConfig:
    """The ModelConfig of a checkpoint folder. Raises FileNotFoundError or ValueError that names the folder."""
    file = folder / "config.json"
    if not file.is_file():
        raise FileNotFoundError(f"{folder} is not a checkpoint folder: it has no config.json")
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is not valid JSON: {error}") from None
    return ModelConfig.from_hf(fields, dtype=dtype)


def _rope_theta(fields: dict[str, Any]) -> float:
    """transformers 5 keeps rope_theta in `rope_parameters`, transformers 4 at the top level; Qwen3's files have one."""
    rope = fields.get("rope_parameters") or fields.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise ValueError(f"config.json: rope type {kind!r} is not supported; 'default' is")
    theta = rope.get("rope_theta", fields.get("rope_theta"))
    if theta is None:
        raise ValueError("config.json: rope_theta is neither in rope_parameters nor at the top level")
    return float(theta)
