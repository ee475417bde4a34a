"""GGUF files of small models, written with the gguf package as llama.cpp's own converter writes them."""

from pathlib import Path

import numpy as np
import pytest

from egrsd_jax.model.config import ModelConfig
from egrsd_jax.model.hf.checkpoint_names import named_leaves, parameter_source
from egrsd_jax.model.rope import frequencies
from egrsd_jax.model.rope_scaling import Linear, Llama3, Yarn
from tests.model.examples import random_params

gguf = pytest.importorskip("gguf", reason="needs gguf>=0.17, which writes and reads the files")

# What llama.cpp's converter calls the tensors of a layer, written down apart from the importer's own table.
IN_LAYER = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
SYSTEM = "<|im_start|>system\nBe kind.<|im_end|>\n"
TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '"
    + SYSTEM
    + "' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def byte_symbols() -> list[str]:
    """GPT-2's printable character of every byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return [chr(byte) for byte in plain] + [chr(256 + number) for number in range(len(others))]


SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TOKENS = [*SPECIAL, *byte_symbols(), "ĠĠ", "at", "Ġc", "Ġcat", "12"]
MERGES = ["Ġ Ġ", "a t", "Ġ c", "Ġc at", "1 2"]


def tensors_of(config: ModelConfig, params) -> dict[str, np.ndarray]:
    """The tensors of a checkpoint by their Hugging Face names."""
    tensors = {}
    for name, leaf in named_leaves(params):
        source = parameter_source(name, config.num_layers)
        parts = np.asarray(leaf) if source.stacked else [np.asarray(leaf)]
        tensors |= dict(zip(source.tensors, parts, strict=True))
    return tensors


def permuted(rows: np.ndarray, heads: int) -> np.ndarray:
    """As llama.cpp's converter writes Llama's queries and keys."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def gguf_tensors(config: ModelConfig, params) -> dict[str, np.ndarray]:
    """The tensors of a model by their GGUF names."""
    tensors = {}
    for name, numbers in tensors_of(config, params).items():
        if config.model_type in ("llama", "smollm3") and ".q_proj." in name:
            numbers = permuted(numbers, config.num_heads)
        if config.model_type in ("llama", "smollm3") and ".k_proj." in name:
            numbers = permuted(numbers, config.num_kv_heads)
        if name.startswith("model.layers."):
            number, module = name.removeprefix("model.layers.").split(".", 1)
            module, kind = module.rsplit(".", 1)
            tensors[f"blk.{number}.{IN_LAYER[module]}.{kind}"] = numbers
        else:
            top = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
            tensors[f"{top[name.removesuffix('.weight')]}.weight"] = numbers
    if isinstance(config.rope_scaling, Llama3):
        plain = frequencies(config.head_dim, config.rope_theta, None)
        tensors["rope_freqs.weight"] = plain / frequencies(config.head_dim, config.rope_theta, config.rope_scaling)
    return tensors


def write_gguf(file: Path, config: ModelConfig, *, kind: str = "F32", seed: int = 0, tokens=None, **values):
    """Writes a model of random parameters, matrices in the type `kind`, and returns its tensors as they were given.

    `values` are further metadata, or None to leave a key out.
    """
    tokens = tokens or [*TOKENS, *(f"[PAD{i}]" for i in range(len(TOKENS), config.vocab_size))]
    params = random_params(config, seed)
    arch = config.model_type
    writer = gguf.GGUFWriter(file, values.pop("general.architecture", arch))
    metadata = {
        "general.name": "A small model",
        "general.license": "apache-2.0",
        f"{arch}.block_count": config.num_layers,
        f"{arch}.context_length": config.max_positions,
        f"{arch}.embedding_length": config.hidden_size,
        f"{arch}.feed_forward_length": config.intermediate_size,
        f"{arch}.attention.head_count": config.num_heads,
        f"{arch}.attention.head_count_kv": config.num_kv_heads,
        f"{arch}.attention.key_length": config.head_dim,
        f"{arch}.attention.value_length": config.head_dim,
        f"{arch}.attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        f"{arch}.rope.freq_base": config.rope_theta,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": {"llama": "smollm"}.get(arch, "qwen2"),
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if t in SPECIAL else 5 if t.startswith("[PAD") else 1 for t in tokens],
        "tokenizer.ggml.merges": MERGES,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": TEMPLATE,
    }
    if isinstance(config.rope_scaling, Linear):
        metadata |= {f"{arch}.rope.scaling.type": "linear", f"{arch}.rope.scaling.factor": config.rope_scaling.factor}
    if isinstance(config.rope_scaling, Yarn):
        metadata |= {
            f"{arch}.rope.scaling.type": "yarn",
            f"{arch}.rope.scaling.factor": config.rope_scaling.factor,
            f"{arch}.rope.scaling.original_context_length": config.rope_scaling.original_positions,
        }
    for key, value in (metadata | values).items():
        if value is not None:
            add_value(writer, key, value)
    for name, numbers in gguf_tensors(config, params).items():
        quantised = kind if numbers.ndim == 2 else "F32"
        number = gguf.GGMLQuantizationType[quantised]
        writer.add_tensor(name, gguf.quants.quantize(numbers, number), raw_dtype=number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return params


def add_value(writer, key: str, value) -> None:
    kinds = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
    kinds.get(type(value), writer.add_array)(key, value)
