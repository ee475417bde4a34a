#!/usr/bin/env bash
# transformers, from_pretrained(gguf_file=...): the rope scaling that a GGUF file states is dropped.
#
# Versions: transformers 5.24.0, gguf 0.19.0, accelerate 1.15.0, torch 2.13.0 (CPU).
# Guess:    a GGUF file of Llama 3.1 (factors in the tensor rope_freqs.weight), or with llama.rope.scaling.type linear or
#           yarn, loads with the frequencies that it was written for, or is refused.
# Behaviour: it loads, without a warning, with rope_type "default": plain frequencies. llama.cpp reads all three.
#           Only gpt-oss files have their scaling read.
# Why it matters: logits differ from the first positions on wherever the scaling changes a frequency, so a model that was
#           converted through this loader (save_pretrained after it) is another model, and nothing says so.
# Output seen:
#   rope_freqs.weight: rope_type default, frequencies over the plain ones 1.0 1.0 1.0 1.0 1.0 1.0 1.0 1.0
#   (the file's are 1 1 1 1 1/8 1/8 1/8 1/8), and the same for linear and yarn
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet transformers==5.24.0 gguf==0.19.0 torch==2.13.0 accelerate==1.15.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON' >"$folder/seen" 2>"$folder/log" || { cat "$folder/log"; exit 1; }
import gguf
import numpy as np
from transformers import AutoModelForCausalLM

for kind in ("rope_freqs.weight", "linear", "yarn"):
    file = gguf.GGUFWriter("model.gguf", "llama")
    for add, number in (("block_count", 1), ("context_length", 256), ("embedding_length", 32), ("vocab_size", 48),
                        ("feed_forward_length", 32), ("head_count", 2), ("head_count_kv", 2),
                        ("rope_dimension_count", 16), ("rope_freq_base", 1e4), ("layer_norm_rms_eps", 1e-5)):
        getattr(file, f"add_{add}")(number)
    file.add_tokenizer_model("gpt2")
    file.add_token_list([chr(48 + i) for i in range(48)])
    file.add_token_merges(["0 1"])
    factors = np.where(np.arange(8) < 4, 1.0, 8.0).astype(np.float32)
    if kind == "rope_freqs.weight":
        file.add_tensor("rope_freqs.weight", factors)
    else:
        file.add_string("llama.rope.scaling.type", kind)
        file.add_float32("llama.rope.scaling.factor", 8.0)
        file.add_uint32("llama.rope.scaling.original_context_length", 32)
    rng, names = np.random.default_rng(0), ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    shapes = {f"blk.0.{name}.weight": (32, 32) for name in names} | {"token_embd.weight": (48, 32), "output.weight": (48, 32)}
    shapes |= dict.fromkeys(("output_norm.weight", "blk.0.attn_norm.weight", "blk.0.ffn_norm.weight"), (32,))
    for name, shape in shapes.items():
        file.add_tensor(name, rng.standard_normal(shape).astype(np.float32))
    file.write_header_to_file(), file.write_kv_data_to_file(), file.write_tensors_to_file(), file.close()
    model = AutoModelForCausalLM.from_pretrained(".", gguf_file="model.gguf")
    plain = 1e4 ** -(np.arange(0, 16, 2) / 16)
    share = (model.model.rotary_emb.inv_freq.numpy() / plain).round(6)
    print(f"{kind}: rope_type {model.config.rope_parameters['rope_type']}, frequencies over the plain ones", *share)
PYTHON
if grep -i "rope\|scaling\|unexpected" "$folder/log"; then exit 1; fi # a warning
cat "$folder/seen"
diff - "$folder/seen" <<'SEEN'
rope_freqs.weight: rope_type default, frequencies over the plain ones 1.0 1.0 1.0 1.0 1.0 1.0 1.0 1.0
linear: rope_type default, frequencies over the plain ones 1.0 1.0 1.0 1.0 1.0 1.0 1.0 1.0
yarn: rope_type default, frequencies over the plain ones 1.0 1.0 1.0 1.0 1.0 1.0 1.0 1.0
SEEN
