"""The shape of the model in a GGUF file, and its rotary scaling, as a ModelConfig."""

import math
from typing import Any

import numpy as np

from egrsd_jax.importing.gguf_file import GgufFile
from egrsd_jax.importing.weights import ROPE_FACTORS
from egrsd_jax.model.config import ARCHITECTURES as FAMILIES
from egrsd_jax.model.config import ModelConfig
from egrsd_jax.model.rope import frequencies
from egrsd_jax.model.rope_scaling import Linear, Llama3, RopeScaling, Yarn

ARCHITECTURES = ("llama", "smollm3", "qwen2", "qwen3")
_NOPE_INTERVAL = 4  # which layers of SmolLM3 have no positions is in no file: llama.cpp has it in its code
# GGUF keeps one factor per frequency, and not what they were computed from. These are Llama 3.1's and 3.2's.
_LLAMA3_FACTORS = (8.0, 32.0)
_LLAMA3_LOW, _LLAMA3_HIGH, _LLAMA3_POSITIONS = 1.0, 4.0, 8192
_OTHER_CONTENTS = {
    "adapter": "an adapter; give the model's file, and to `egrsd train` as --lora.path the adapter in PEFT's form",
    "mmproj": "what a model sees images with; give the file with the language model",
    "imatrix": "statistics for quantising a model; give the model's file",
    "vocab": "a vocabulary; give the model's file",
}
_REFUSED = ("expert_count", "attention.sliding_window", "attention.scale", "logit_scale", "residual_scale")


def model_config(file: GgufFile) -> ModelConfig:
    """The model's shape. Raises ValueError for a file of something else, for another architecture, and for a feature
    that it does not have here."""
    if (contents := _OTHER_CONTENTS.get(file.values.get("general.type", "model"))) is not None:
        raise ValueError(f"{file.name} holds {contents}")
    kind = file.value("general.architecture")
    if kind not in ARCHITECTURES:
        raise ValueError(
            f"{file.name} holds a model of the architecture {kind!r}; imported are {', '.join(ARCHITECTURES)}"
        )
    values = {key.removeprefix(f"{kind}."): value for key, value in file.values.items() if key.startswith(f"{kind}.")}
    for key in _REFUSED:
        if values.get(key):
            raise ValueError(f"{file.name}: {kind}.{key} is {values[key]}, and models with it are not imported")

    def number(key: str, default: int | None = None) -> Any:
        """Of all layers; some files repeat it for each."""
        value = file.value(f"{kind}.{key}") if default is None else values.get(key, default)
        value = value[0] if isinstance(value, list) and value and value == value[:1] * len(value) else value
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise ValueError(f"{file.name}: {kind}.{key} is {value!r:.80}; one number for all layers is imported")
        return value

    heads, hidden = number("attention.head_count"), number("embedding_length")
    head_dim = number("attention.key_length", hidden // heads)
    for key in ("attention.value_length", "rope.dimension_count"):
        if (size := values.get(key, head_dim)) != head_dim:
            raise ValueError(f"{file.name}: {kind}.{key} is {size} and a head's size {head_dim}; they must be equal")
    names = set(file.names())
    if "token_embd.weight" not in names:
        raise ValueError(f"{file.name} lacks token_embd.weight, the embedding; it holds no whole model")
    layers, biases = number("block_count"), FAMILIES[kind].optional_biases
    nope = tuple((layer + 1) % _NOPE_INTERVAL == 0 for layer in range(layers)) if FAMILIES[kind].nope else ()
    theta = _shortest(values.get("rope.freq_base", 10_000.0))  # llama.cpp's own default
    return ModelConfig(
        model_type=kind,
        vocab_size=file.shape("token_embd.weight")[0],
        hidden_size=hidden,
        intermediate_size=number("feed_forward_length"),
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=number("attention.head_count_kv", heads),
        head_dim=head_dim,
        rope_theta=theta,
        rms_norm_eps=_shortest(number("attention.layer_norm_rms_epsilon")),
        tie_embeddings="output.weight" not in names,
        max_positions=number("context_length"),
        rope_scaling=_rope_scaling(file, values, head_dim, theta),
        attention_bias=biases and "blk.0.attn_q.bias" in names,
        mlp_bias=biases and "blk.0.ffn_gate.bias" in names,
        nope_layers=nope if any(nope) else (),
        dtype="float32",
    )


def _shortest(number: float) -> float:
    """A float32 of the file as the decimal number that was written there: 1e-05 and not 9.999999747378752e-06."""
    return float(str(np.float32(number)))


def _rope_scaling(file: GgufFile, values: dict[str, Any], head_dim: int, theta: float) -> RopeScaling | None:
    kind = values.get("rope.scaling.type", "none")
    if ROPE_FACTORS in set(file.names()):
        if kind != "none":
            raise ValueError(f"{file.name} has both {ROPE_FACTORS} and a rope scaling of type {kind!r}; one is read")
        return _llama3(file, head_dim, theta)
    if kind == "none":
        old = _shortest(values.get("rope.scale_linear", 1.0))  # files of 2023
        return None if old == 1.0 else Linear(old)
    factor = _shortest(values.get("rope.scaling.factor", 1.0)) or 1.0  # llama.cpp reads 0 as none
    if not factor >= 1:
        raise ValueError(f"{file.name}: rope.scaling.factor is {factor:g}; it stretches, so it is at least 1")
    if kind == "linear":
        return Linear(factor)
    if kind != "yarn":
        raise ValueError(f"{file.name}: rope.scaling.type {kind!r} is not supported; none, linear and yarn are")
    if "rope.scaling.original_context_length" not in values:
        raise ValueError(f"{file.name} has YaRN and no rope.scaling.original_context_length, which it is computed from")
    return Yarn(
        factor=factor,
        original_positions=values["rope.scaling.original_context_length"],
        attention_factor=_shortest(values.get("rope.scaling.attn_factor", 1.0)) * (1.0 + 0.1 * math.log(factor)),
        beta_fast=_shortest(values.get("rope.scaling.yarn_beta_fast", 32.0)),
        beta_slow=_shortest(values.get("rope.scaling.yarn_beta_slow", 1.0)),
    )


def _llama3(file: GgufFile, head_dim: int, theta: float) -> Llama3:
    """The scaling whose frequencies are the plain ones over the file's factors, to float32's precision."""
    factors = file.tensor(ROPE_FACTORS).ravel()
    plain = frequencies(head_dim, theta, None)
    for factor in _LLAMA3_FACTORS:
        scaling = Llama3(factor, _LLAMA3_LOW, _LLAMA3_HIGH, _LLAMA3_POSITIONS)
        if factors.shape == plain.shape and np.allclose(
            frequencies(head_dim, theta, scaling) * factors, plain, rtol=1e-5
        ):
            return scaling
    raise ValueError(
        f"{file.name}: {ROPE_FACTORS} has factors up to {factors.max():g} that are not those of Llama 3.1 or 3.2 "
        f"({' or '.join(f'{factor:g}' for factor in _LLAMA3_FACTORS)}); config.json cannot state them"
    )
