"""A GGUF file's tensors under the names, shapes and orders of rows that a Hugging Face checkpoint has.

Imports jax for the shapes of the model alone.
"""

import re
from collections.abc import Iterator

import numpy as np

from egrsd_jax.importing.gguf_file import GgufFile
from egrsd_jax.model.config import ModelConfig
from egrsd_jax.model.decoder import abstract_params
from egrsd_jax.model.hf.checkpoint_names import named_leaves, parameter_source

_INTERLEAVED = ("llama", "smollm3")  # architectures whose queries and keys llama.cpp turns pair by pair
ROPE_FACTORS = "rope_freqs.weight"  # of the configuration, not of the weights
_TOP = {"embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output"}
_IN_LAYER = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_output",
    "q_norm": "attn_q_norm",
    "k_norm": "attn_k_norm",
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
}
_LAYER = re.compile(r"model\.layers\.(\d+)\.(?:self_attn\.|mlp\.)?(\w+)\.(weight|bias)")


def gguf_name(tensor: str) -> str:
    """GGUF's name of a checkpoint's tensor, such as `model.layers.0.self_attn.q_proj.weight`."""
    if match := _LAYER.fullmatch(tensor):
        return f"blk.{match[1]}.{_IN_LAYER[match[2]]}.{match[3]}"
    return f"{_TOP[tensor.split('.')[-2]]}.weight"


def checkpoint_tensors(file: GgufFile, config: ModelConfig, dtype: np.dtype) -> Iterator[tuple[str, np.ndarray]]:
    """Every tensor of a checkpoint of `config`, cast to `dtype`; they are checked by name and shape before the first.

    Raises ValueError that names a tensor that is missing, surplus or of another shape.
    """
    shapes = _wanted(config)
    _check(file, shapes)
    for name in sorted(shapes):
        numbers = file.tensor(gguf_name(name))
        if config.model_type in _INTERLEAVED and (match := re.search(r"\.([qk])_proj\.", name)):
            numbers = unpermuted(numbers, config.num_heads if match[1] == "q" else config.num_kv_heads)
        with np.errstate(over="ignore"):  # whoever writes them checks
            cast = numbers.astype(dtype)
        yield name, cast


def unpermuted(rows: np.ndarray, heads: int) -> np.ndarray:
    """The rows of a query or key projection of these, weight or bias, in the order of a Hugging Face checkpoint.

    llama.cpp turns neighbouring coordinates of a head against each other where transformers turns its two halves, so
    GGUF has the rows of each head interleaved.
    """
    return rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def _wanted(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    shapes = {}
    for name, leaf in named_leaves(abstract_params(config)):
        source = parameter_source(name, config.num_layers)
        shapes |= dict.fromkeys(source.tensors, leaf.shape[1:] if source.stacked else leaf.shape)
    return shapes


def _check(file: GgufFile, shapes: dict[str, tuple[int, ...]]) -> None:
    names = {gguf_name(name): shape for name, shape in shapes.items()}
    stored = set(file.names())
    if missing := sorted(set(names) - stored):
        raise ValueError(f"{file.name} lacks {len(missing)} tensors of this model, the first is {missing[0]}")
    if surplus := sorted(stored - set(names) - {ROPE_FACTORS}):
        raise ValueError(
            f"{file.name} has {len(surplus)} tensors without a place in this model, the first is {surplus[0]}"
        )
    for name, shape in names.items():
        if (size := file.shape(name)) != shape:
            raise ValueError(f"{file.name}: {name} has shape {list(size)}; its metadata says {list(shape)}")
