"""Makes golden files with transformers' own models (needs torch): `python -m tests.model.make_golden [NAME ...]`."""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tests.model.golden_checkpoint import GOLDEN, write_checkpoint

SHARED = {
    "vocab_size": 48,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_act": "silu",
    "attention_dropout": 0.0,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-6,
}
CONFIGS = {  # each laid out like the files of the models that it stands for
    "llama": {  # SmolLM2: transformers 4's fields
        **SHARED,
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "rms_norm_eps": 1e-5,
        "attention_bias": False,
        "mlp_bias": False,
        "pretraining_tp": 1,
        "rope_interleaved": False,
        "rope_scaling": None,
        "rope_theta": 100000,
        "tie_word_embeddings": True,
    },
    "llama3": {  # Llama 3.2, with the biases that some of its kin have
        **SHARED,
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "rms_norm_eps": 1e-5,
        "head_dim": 16,
        "attention_bias": True,
        "mlp_bias": True,
        "max_position_embeddings": 1024,
        "rope_scaling": {
            "factor": 32.0,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 64,
            "rope_type": "llama3",
        },
        "rope_theta": 500000.0,
        "tie_word_embeddings": False,
    },
    "smollm3": {  # SmolLM3-3B, with the layers that transformers takes where the list is left out
        **SHARED,
        "architectures": ["SmolLM3ForCausalLM"],
        "model_type": "smollm3",
        "num_hidden_layers": 5,
        "attention_bias": False,
        "max_window_layers": 28,
        "mlp_bias": False,
        "no_rope_layer_interval": 4,
        "pretraining_tp": 2,
        "rope_scaling": None,
        "rope_theta": 5000000.0,
        "sliding_window": None,
        "tie_word_embeddings": True,
        "use_sliding_window": False,
        "pad_token_id": 0,
        "bos_token_id": 0,
        "eos_token_id": 0,
    },
    "qwen3": {
        **SHARED,
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "head_dim": 12,
        "attention_bias": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000},
        "tie_word_embeddings": True,
        "use_sliding_window": False,
    },
    "qwen3_yarn": {  # the long-context form: transformers 4's fields and the README's rope_scaling
        **SHARED,
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "head_dim": 16,
        "attention_bias": False,
        "max_position_embeddings": 16384,
        "rope_theta": 10000,
        "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096},
        "tie_word_embeddings": False,
        "use_sliding_window": False,
    },
    "qwen2": {
        **SHARED,
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "num_key_value_heads": 1,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "rope_scaling": None,
        "tie_word_embeddings": False,
        "use_sliding_window": False,
        "sliding_window": 4096,
        "max_window_layers": 2,
    },
    "olmo3": {
        **SHARED,
        "architectures": ["Olmo3ForCausalLM"],
        "model_type": "olmo3",
        "num_hidden_layers": 4,
        "max_position_embeddings": 8192,
        "attention_bias": False,
        "rope_theta": 500000,
        "rope_scaling": {
            "rope_type": "yarn",
            "factor": 8.0,
            "original_max_position_embeddings": 1024,
            "attention_factor": 1.2079441541679836,
            "beta_fast": 32,
            "beta_slow": 1,
        },
        "sliding_window": 3,
        "layer_types": ["sliding_attention"] * 3 + ["full_attention"],
        "tie_word_embeddings": False,
        "pad_token_id": 0,
        "eos_token_id": 0,
    },
}


def make(name: str, config: dict) -> None:
    """Writes one golden pair of files."""
    tokens = np.random.Generator(np.random.Philox(7)).integers(0, config["vocab_size"], (2, 10))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        empty = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
        shapes = {key: list(parameter.shape) for key, parameter in empty.named_parameters()}
        write_checkpoint(folder, config, shapes)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
        with torch.no_grad():
            logits = model(torch.from_numpy(tokens)).logits.numpy()
    GOLDEN.mkdir(exist_ok=True)
    text = json.dumps({"config": config, "shapes": shapes}, indent=1)
    (GOLDEN / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    np.savez(GOLDEN / f"{name}.npz", tokens=tokens.astype(np.int32), logits=logits)


if __name__ == "__main__":
    for name in sys.argv[1:] or CONFIGS:
        make(name, CONFIGS[name])
