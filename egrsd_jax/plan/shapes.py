"""The shape of the model to plan for, without a network: from a folder's config.json, or as it was published."""

from functools import partial
from pathlib import Path

from egrsd_jax.model.config import ModelConfig, read_config
from egrsd_jax.model.hf.hub import BUILT_IN

_QWEN3 = partial(
    ModelConfig,
    vocab_size=151_936,
    head_dim=128,
    num_kv_heads=8,
    rope_theta=1e6,
    rms_norm_eps=1e-6,
    max_positions=40_960,
)

_LLAMA3 = partial(
    ModelConfig,
    model_type="llama",
    vocab_size=128_256,
    num_heads=32,
    num_kv_heads=8,
    rope_theta=5e5,
    rms_norm_eps=1e-5,
    max_positions=131_072,
)
_LLAMA3_8B = _LLAMA3(hidden_size=4096, intermediate_size=14_336, num_layers=32, head_dim=128, tie_embeddings=False)

# From the config.json of each repository. Rotary settings do not change a program's shape, and scaling is left out.
PUBLISHED = {
    "Qwen/Qwen3-0.6B": _QWEN3(
        hidden_size=1024, intermediate_size=3072, num_layers=28, num_heads=16, tie_embeddings=True
    ),
    "Qwen/Qwen3-1.7B": _QWEN3(
        hidden_size=2048, intermediate_size=6144, num_layers=28, num_heads=16, tie_embeddings=True
    ),
    "Qwen/Qwen3-4B": _QWEN3(hidden_size=2560, intermediate_size=9728, num_layers=36, num_heads=32, tie_embeddings=True),
    "Qwen/Qwen3-8B": _QWEN3(
        hidden_size=4096, intermediate_size=12_288, num_layers=36, num_heads=32, tie_embeddings=False
    ),
    "Qwen/Qwen3-14B": _QWEN3(
        hidden_size=5120, intermediate_size=17_408, num_layers=40, num_heads=40, tie_embeddings=False
    ),
    "Qwen/Qwen3-32B": _QWEN3(
        hidden_size=5120, intermediate_size=25_600, num_layers=64, num_heads=64, tie_embeddings=False
    ),
    "meta-llama/Llama-3.1-8B-Instruct": _LLAMA3_8B,
    "meta-llama/Llama-3.2-1B-Instruct": _LLAMA3(
        hidden_size=2048, intermediate_size=8192, num_layers=16, head_dim=64, tie_embeddings=True
    ),
    "deepseek-ai/DeepSeek-R1-Distill-Llama-8B": _LLAMA3_8B,
    "HuggingFaceTB/SmolLM2-135M-Instruct": ModelConfig(
        model_type="llama",
        vocab_size=49_152,
        hidden_size=576,
        intermediate_size=1536,
        num_layers=30,
        num_heads=9,
        num_kv_heads=3,
        head_dim=64,
        rope_theta=1e5,
        rms_norm_eps=1e-5,
        tie_embeddings=True,
        max_positions=8192,
    ),
    "HuggingFaceTB/SmolLM3-3B": ModelConfig(
        model_type="smollm3",
        vocab_size=128_256,
        hidden_size=2048,
        intermediate_size=11_008,
        num_layers=36,
        num_heads=16,
        num_kv_heads=4,
        head_dim=128,
        rope_theta=5e6,
        rms_norm_eps=1e-6,
        tie_embeddings=True,
        max_positions=65_536,
        nope_layers=(False, False, False, True) * 9,
    ),
    "nvidia/AceReason-Nemotron-7B": ModelConfig(
        model_type="qwen2",
        vocab_size=152_064,
        hidden_size=3584,
        intermediate_size=18_944,
        num_layers=28,
        num_heads=28,
        num_kv_heads=4,
        head_dim=128,
        rope_theta=1e4,
        rms_norm_eps=1e-6,
        tie_embeddings=False,
        max_positions=131_072,
    ),
    "allenai/Olmo-3-1025-7B": ModelConfig(
        model_type="olmo3",
        vocab_size=100_278,
        hidden_size=4096,
        intermediate_size=11_008,
        num_layers=32,
        num_heads=32,
        num_kv_heads=32,
        head_dim=128,
        rope_theta=5e5,
        rms_norm_eps=1e-6,
        tie_embeddings=False,
        max_positions=65_536,
        sliding_window=4096,
        sliding_layers=(True, True, True, False) * 8,
    ),
}


def model_shape(path: str) -> ModelConfig:
    """The model of a folder, or of a repository in the table above.

    Raises ValueError for a name that is neither, and ValueError or FileNotFoundError for a folder whose config.json is
    missing or not supported.
    """
    if path in BUILT_IN:
        return read_config(BUILT_IN[path])
    if Path(path).is_dir():
        return read_config(Path(path))
    if path not in PUBLISHED:
        raise ValueError(
            f"the shape of {path!r} is not known here; give model.path a folder with its config.json, or one of "
            f"{', '.join(PUBLISHED)}"
        )
    return PUBLISHED[path]
