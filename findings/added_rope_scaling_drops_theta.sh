#!/usr/bin/env bash
# transformers 5: YaRN added to a config.json that transformers 5 wrote changes rope_theta from 1,000,000 to 10,000.
#
# Versions: transformers 5.24.0 (configurations alone; torch is not needed).
# Guess:    a saved Qwen3 or Llama configuration has "rope_parameters": {"rope_theta": 1e6, ...}. With the lines that
#           Qwen's model cards say to add for long texts, "rope_scaling": {"rope_type": "yarn", "factor": 4.0, ...},
#           it loads as YaRN over theta 1e6, or is refused, since the two fields contradict.
# Behaviour: rope_scaling takes the place of rope_parameters as a whole. The theta in there is forgotten, the class's
#           default is taken, 10,000, and nothing is logged. In a file of transformers 4, whose rope_theta is at the top
#           level, the same lines keep it. Written under the new name, rope_parameters, they lose it too.
# Why it matters: every frequency of the rotary embedding is another, so the model reads positions that it was never
#           trained on, in training, evaluation and serving alike, and is saved with the wrong theta. The recipe worked
#           for years; whoever fine-tunes with transformers 5 and follows it afterwards gets a broken model. Put
#           "rope_theta" into rope_scaling.
# Output seen:
#   Qwen3, as transformers 5 saves it: theta 1000000
#   Qwen3, with rope_scaling: theta 10000, warnings 0
#   Qwen3, with rope_scaling, theta at the top level: theta 1000000, warnings 0
#   Qwen3, with rope_parameters replaced: theta 10000, warnings 0
#   (and the same for Qwen2 and Llama)
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet transformers==5.24.0
cat >"$folder/compare.py" <<'PYTHON'
import json, logging
from pathlib import Path
from transformers import AutoConfig, LlamaConfig, Qwen2Config, Qwen3Config

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
records = []
handler = logging.Handler()
handler.emit = records.append
logging.getLogger("transformers").addHandler(handler)


def theta(fields):
    Path("model/config.json").write_text(json.dumps(fields))
    records.clear()
    return f"theta {AutoConfig.from_pretrained('model').rope_parameters['rope_theta']:.0f}"


for kind, family in (("Qwen3", Qwen3Config), ("Qwen2", Qwen2Config), ("Llama", LlamaConfig)):
    rope = {"rope_type": "default", "rope_theta": 1e6}
    family(rope_parameters=rope, max_position_embeddings=131072).save_pretrained("model")
    saved = json.loads(Path("model/config.json").read_text())
    old = {name: value for name, value in saved.items() if name != "rope_parameters"} | {"rope_theta": 1e6}
    print(f"{kind}, as transformers 5 saves it: {theta(saved)}")
    print(f"{kind}, with rope_scaling: {theta(saved | {'rope_scaling': YARN})}, warnings {len(records)}")
    print(f"{kind}, with rope_scaling, theta at the top level: {theta(old | {'rope_scaling': YARN})}, warnings {len(records)}")
    print(f"{kind}, with rope_parameters replaced: {theta(saved | {'rope_parameters': YARN})}, warnings {len(records)}")
PYTHON
cd "$folder" && venv/bin/python compare.py 2>log | tee seen
for kind in Qwen3 Qwen2 Llama; do
    printf '%s, as transformers 5 saves it: theta 1000000\n%s, with rope_scaling: theta 10000, warnings 0\n' $kind $kind
    printf '%s, with rope_scaling, theta at the top level: theta 1000000, warnings 0\n' $kind
    printf '%s, with rope_parameters replaced: theta 10000, warnings 0\n' $kind
done | diff - seen
