"""A folder's Qwen3 as a GGUF file for llama.cpp, in float32 or with matrices in bfloat16; needs the package `gguf`.

    python benchmarks/peers/write_gguf.py FOLDER FILE float32|bfloat16

It has no tokenizer: the benchmark's prompts are token ids.
"""

import json
import sys
from pathlib import Path

import gguf
from safetensors.numpy import load_file

NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def main() -> None:
    """One file."""
    folder, file, dtype = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    config = json.loads((folder / "config.json").read_text())
    writer = gguf.GGUFWriter(file, "qwen3")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    parameters = config.get("rope_parameters") or config
    writer.add_rope_freq_base(parameters["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("no_vocab")
    for name, array in load_file(folder / "model.safetensors").items():
        if name == "lm_head.weight":  # tied
            continue
        short = name.removeprefix("model.").removesuffix(".weight")
        if short.startswith("layers."):
            _, number, inner = short.split(".", 2)
            short = f"blk.{number}.{NAMES[inner]}"
        else:
            short = {"embed_tokens": "token_embd", "norm": "output_norm"}[short]
        array = array.astype("float32")
        if dtype == "bfloat16" and array.ndim == 2:
            kind = gguf.GGMLQuantizationType.BF16
            writer.add_tensor(f"{short}.weight", gguf.quantize(array, kind), raw_dtype=kind)
        else:
            writer.add_tensor(f"{short}.weight", array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
