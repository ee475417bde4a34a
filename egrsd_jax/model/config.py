"""The shape of a model, read from and written to a Hugging Face `config.json`. Imports no jax."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from egrsd_jax.model.rope_scaling import FULL, SLIDING, RopeScaling, read_rope, write_rope
from egrsd_jax.side_files import read_fields

Turns = Literal["full", "sliding", "none"]  # how a layer's queries and keys are turned by their positions
REMATERIALISE = ("none", "dots", "full")
ATTENTION = ("auto", "xla", "cudnn", "splash")


@dataclass(frozen=True)
class Architecture:
    """What one family of decoders computes in its own way; all else is shared.

    Args:
        class_name: the model's class in transformers.
        qkv_bias: the query, key and value projections always add a bias.
        optional_biases: `attention_bias` and `mlp_bias` of `config.json` say which projections add a bias.
        nope: `no_rope_layers` of `config.json` says which layers have no positions.
        default_theta: the rotary theta that transformers takes where `config.json` has none.
        qk_norm: queries and keys are normalised over each head, over the whole projection, or not at all.
        norms_after: a layer's two norms come after attention and MLP, before the residual is added, not in front.
        attention_norm: the checkpoint's name of the norm that belongs to attention.
        mlp_norm: the checkpoint's name of the norm that belongs to the MLP.
        wide_products: norm weights and rotary angles multiply in float32 and the product is cast, not the factors.
    """

    class_name: str
    qkv_bias: bool = False
    optional_biases: bool = False
    nope: bool = False
    default_theta: float | None = None
    qk_norm: Literal["head", "projection"] | None = None
    norms_after: bool = False
    attention_norm: str = "input_layernorm"
    mlp_norm: str = "post_attention_layernorm"
    wide_products: bool = False


ARCHITECTURES = {
    "llama": Architecture("LlamaForCausalLM", optional_biases=True, default_theta=10_000.0),
    "smollm3": Architecture("SmolLM3ForCausalLM", optional_biases=True, nope=True, default_theta=2_000_000.0),
    "qwen2": Architecture("Qwen2ForCausalLM", qkv_bias=True),
    "qwen3": Architecture("Qwen3ForCausalLM", qk_norm="head"),
    "olmo3": Architecture(
        "Olmo3ForCausalLM",
        qk_norm="projection",
        norms_after=True,
        attention_norm="post_attention_layernorm",
        mlp_norm="post_feedforward_layernorm",
        wide_products=True,
    ),
}


@dataclass(frozen=True)
class ModelConfig:
    """A dense decoder: Llama, SmolLM3, Qwen2, Qwen3 or Olmo-3, by `model_type`.

    Args:
        dtype: what matrices are multiplied in; norms, softmax and scores are float32 whatever it is.
        rope_scaling: stretches the rotary frequencies of the layers with full attention.
        attention_bias: all four projections of attention add a bias; only Llama's and SmolLM3's may.
        mlp_bias: all three projections of the MLP add a bias; only Llama's and SmolLM3's may.
        sliding_window: positions that a sliding layer looks back on, its own included.
        sliding_layers: which layers slide, one entry a layer; empty where none does.
        nope_layers: which layers turn no queries and keys, so that they see no positions (NoPE, arXiv 2305.19466), one
            entry a layer; empty where none is. Only SmolLM3's may.
        rematerialise: what the backward pass computes again: `none`; with `dots` all but products with weights; `full`
            everything but each layer's input.
        attention: whose kernel is used: the platform's best (`auto`), or the one named. Only `auto` ever falls back.
        vocabulary_padding: rows of zeros after the vocabulary's own, in the embedding and in the head, where the number
            of these does not divide over a mesh. They have no logits, and no checkpoint of a model has them.
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
    model_type: str = "qwen3"
    rope_scaling: RopeScaling | None = None
    attention_bias: bool = False
    mlp_bias: bool = False
    sliding_window: int | None = None
    sliding_layers: tuple[bool, ...] = ()
    nope_layers: tuple[bool, ...] = ()
    rematerialise: str = "full"
    attention: str = "auto"
    vocabulary_padding: int = 0

    def __post_init__(self):
        for name, choices in (
            ("model_type", ARCHITECTURES),
            ("rematerialise", REMATERIALISE),
            ("attention", ATTENTION),
        ):
            if (value := getattr(self, name)) not in choices:
                raise ValueError(f"{name} {value!r} is not supported; supported: {', '.join(choices)}")
        if (self.attention_bias or self.mlp_bias) and not self.architecture.optional_biases:
            having = " and ".join(name for name, family in ARCHITECTURES.items() if family.optional_biases)
            raise ValueError(
                f"attention_bias and mlp_bias are not supported for {self.model_type}; for {having} they are"
            )
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"{self.num_heads} query heads cannot share {self.num_kv_heads} key-value heads evenly")
        if self.head_dim % 2:
            raise ValueError(f"head_dim is {self.head_dim}; a rotary embedding turns halves, so it must be even")
        if self.sliding_layers and not (len(self.sliding_layers) == self.num_layers and self.sliding_window):
            raise ValueError(
                f"sliding_layers is {self.sliding_layers} and sliding_window {self.sliding_window}; they need "
                f"{self.num_layers} entries and a number of positions"
            )
        if self.nope_layers and not (self.architecture.nope and len(self.nope_layers) == self.num_layers):
            raise ValueError(
                f"nope_layers is {self.nope_layers}; only smollm3 has such layers, with {self.num_layers} entries here"
            )

    @property
    def architecture(self) -> Architecture:
        """How this model's family differs from the others."""
        return ARCHITECTURES[self.model_type]

    @property
    def turns(self) -> tuple[Turns, ...]:
        """How every layer turns its queries and keys: with the model's scaling (`full`), without it, or not at all."""
        none = self.nope_layers or (False,) * self.num_layers
        sliding = self.sliding_layers or (False,) * self.num_layers
        return tuple("none" if a else "sliding" if b else "full" for a, b in zip(none, sliding, strict=True))

    def replace(self, **changes: Any) -> "ModelConfig":
        """A copy with some fields changed."""
        return replace(self, **changes)

    def divided_over(self, devices: int) -> "ModelConfig":
        """With the padding of the vocabulary that so many devices need which share its rows."""
        return self.replace(vocabulary_padding=-self.vocab_size % devices)

    @classmethod
    def from_hf(cls, fields: dict[str, Any], *, dtype: str = "bfloat16") -> "ModelConfig":
        """Reads the fields of a `config.json` as transformers 4 or 5 writes it.

        Raises ValueError for an architecture, an activation, a bias or a rope scaling that this port does not have,
        and for a field that is missing: nothing is assumed where transformers itself writes a value.
        """
        model_type = fields.get("model_type")
        if model_type not in ARCHITECTURES:
            raise ValueError(
                f"config.json: model_type {model_type!r} is not supported; supported: {', '.join(ARCHITECTURES)}"
            )
        # Null is no value; of the window it is one, which layers without a window have.
        fields = {name: value for name, value in fields.items() if value is not None or name == "sliding_window"}
        _check_fixed(fields, model_type)
        try:
            theta, rope_scaling = read_rope(fields, ARCHITECTURES[model_type].default_theta)
            window, layers = _read_sliding(fields, model_type)
            return cls(
                vocab_size=fields["vocab_size"],
                hidden_size=fields["hidden_size"],
                intermediate_size=fields["intermediate_size"],
                num_layers=fields["num_hidden_layers"],
                num_heads=fields["num_attention_heads"],
                num_kv_heads=_read_kv_heads(fields, model_type),
                head_dim=_read_head_dim(fields, model_type),
                rope_theta=theta,
                rms_norm_eps=fields["rms_norm_eps"],
                tie_embeddings=fields["tie_word_embeddings"],
                max_positions=fields["max_position_embeddings"],
                dtype=dtype,
                model_type=model_type,
                rope_scaling=rope_scaling,
                attention_bias=_read_bias(fields, model_type, "attention_bias"),
                mlp_bias=_read_bias(fields, model_type, "mlp_bias"),
                sliding_window=window,
                sliding_layers=layers,
                nope_layers=_read_nope(fields, model_type),
            )
        except KeyError as missing:
            raise ValueError(
                f"config.json: the field {missing} is missing; a {model_type} config.json has it"
            ) from None

    def to_hf(self, *, param_dtype: str, **extra: Any) -> dict[str, Any]:
        """This model's `config.json` as transformers 4 and 5 read it; `extra` adds fields such as token ids."""
        fields = {
            "architectures": [self.architecture.class_name],
            "model_type": self.model_type,
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_kv_heads,
            "head_dim": self.head_dim,
            "max_position_embeddings": self.max_positions,
            "rms_norm_eps": self.rms_norm_eps,
            "tie_word_embeddings": self.tie_embeddings,
            "dtype": param_dtype,
        }
        if self.architecture.optional_biases:
            fields |= {"attention_bias": self.attention_bias, "mlp_bias": self.mlp_bias}
        rope = write_rope(self.rope_theta, self.rope_scaling, by_layer_type=self.model_type == "olmo3")
        return fields | _fixed_fields(self.model_type) | rope | _write_sliding(self) | _write_nope(self) | extra


def read_config(folder: Path, *, dtype: str = "bfloat16") -> ModelConfig:
    """The ModelConfig of a checkpoint folder; where it says that the head is the embedding, and the weights hold a head
    that is not, the two are untied, as transformers does. Raises FileNotFoundError or ValueError that names the folder.
    """
    file = folder / "config.json"
    if not file.is_file():
        raise FileNotFoundError(f"{folder} is not a checkpoint folder: it has no config.json")
    fields = read_fields(file)
    try:
        config = ModelConfig.from_hf(fields, dtype=dtype)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None
    if config.tie_embeddings:
        from egrsd_jax.model.hf.tied_head import head_differs  # imported late: config.json alone needs no safetensors

        return config.replace(tie_embeddings=not head_differs(folder))
    return config


# Fields that few files have, and that transformers computes by; an encoder made of a decoder is not causal.
_FIXED_IF_THERE = {"partial_rotary_factor": 1.0, "is_causal": True}


def _fixed_fields(model_type: str) -> dict[str, Any]:
    """Fields that may have only one value here."""
    fixed: dict[str, Any] = {"hidden_act": "silu", "attention_dropout": 0.0}
    if model_type in ("qwen2", "qwen3", "smollm3"):
        fixed["use_sliding_window"] = False
    if model_type in ("qwen3", "olmo3"):  # Qwen2 has its biases always, and no field that says so
        fixed["attention_bias"] = False
    return fixed


def _check_fixed(fields: dict[str, Any], model_type: str) -> None:
    if fields.get("hidden_act") == "swish":  # transformers has two names for it
        fields = fields | {"hidden_act": "silu"}
    if fields.get("use_sliding_window") and not _any_slides(fields, model_type):
        fields = fields | {"use_sliding_window": False}
    for name, value in (_fixed_fields(model_type) | _FIXED_IF_THERE).items():
        if (field := fields.get(name, value)) != value:
            raise ValueError(f"config.json: {name} {field!r} is not supported; for {model_type} {value!r} is")


def _any_slides(fields: dict[str, Any], model_type: str) -> bool:
    """Whether some layer looks through the window: of Qwen's the first `max_window_layers` never do."""
    from_layer = None if model_type == "smollm3" else fields.get("max_window_layers")
    return fields.get("sliding_window") is not None and not (
        isinstance(from_layer, int) and from_layer >= fields.get("num_hidden_layers", 0)
    )


def _read_head_dim(fields: dict[str, Any], model_type: str) -> int:
    """Only Qwen3 always states it; the others leave it out where it is the hidden size over the heads."""
    if model_type == "qwen3" or fields.get("head_dim") is not None:
        return fields["head_dim"]
    return fields["hidden_size"] // fields["num_attention_heads"]


def _read_kv_heads(fields: dict[str, Any], model_type: str) -> int:
    """The first Llama files leave it out: they have as many as query heads."""
    if model_type == "llama" and fields.get("num_key_value_heads") is None:
        return fields["num_attention_heads"]
    return fields["num_key_value_heads"]


def _read_bias(fields: dict[str, Any], model_type: str, name: str) -> bool:
    """Files that are older than the field have no bias."""
    return ARCHITECTURES[model_type].optional_biases and bool(fields.get(name, False))


def _read_sliding(fields: dict[str, Any], model_type: str) -> tuple[int | None, tuple[bool, ...]]:
    """The window and which layers look through it; only Olmo-3 may have such layers."""
    count = fields["num_hidden_layers"]
    kinds = fields["layer_types"] if model_type == "olmo3" else fields.get("layer_types") or [FULL] * count
    supported = {SLIDING, FULL} if model_type == "olmo3" else {FULL}
    if len(kinds) != count or not set(kinds) <= supported:
        raise ValueError(
            f"config.json: layer_types {kinds} is not supported; for {model_type} it has num_hidden_layers {count} "
            f"entries of {' or '.join(sorted(supported))}"
        )
    layers = tuple(kind == SLIDING for kind in kinds) if SLIDING in kinds else ()
    return fields["sliding_window"] if model_type == "olmo3" else None, layers


def _write_sliding(config: ModelConfig) -> dict[str, Any]:
    if config.model_type != "olmo3":
        return {}
    layers = config.sliding_layers or (False,) * config.num_layers
    return {
        "sliding_window": config.sliding_window,
        "layer_types": [SLIDING if slides else FULL for slides in layers],
    }


def _read_nope(fields: dict[str, Any], model_type: str) -> tuple[bool, ...]:
    """Which layers have no positions: those with 0 in `no_rope_layers`, which may be longer than the model is deep, or
    every fourth, or `no_rope_layer_interval`-th, where the file has no such list."""
    if not ARCHITECTURES[model_type].nope:
        return ()
    count, interval = fields["num_hidden_layers"], fields.get("no_rope_layer_interval", 4)
    turned = fields.get("no_rope_layers")
    if turned is None:
        if type(interval) is not int or interval < 1:
            raise ValueError(f"config.json: no_rope_layer_interval is {interval!r}; it is a number of layers")
        turned = [(layer + 1) % interval for layer in range(count)]
    if not isinstance(turned, list) or len(turned) < count:
        raise ValueError(f"config.json: no_rope_layers is {turned!r:.80}; it has num_hidden_layers {count} entries")
    layers = tuple(not turn for turn in turned[:count])
    return layers if any(layers) else ()


def _write_nope(config: ModelConfig) -> dict[str, Any]:
    if not config.architecture.nope:
        return {}
    return {"no_rope_layers": [int(turn != "none") for turn in config.turns]}
