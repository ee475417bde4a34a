#!/usr/bin/env bash
# jax.random: splitting a key and folding a number into it give the same keys.
#
# Versions: jax 0.10.2, jaxlib 0.10.2 (CPU), default generator (threefry, partitionable).
# Guess:    split(key, n) and fold_in(key, i) are two different functions of the key, so a program may hand split(key)
#           to two uses and fold_in(key, i) to others, and all of them are independent.
# Behaviour: split(key, n)[i] is fold_in(key, i), for the default generator and for rbg; split(key, 2) are the first two
#           of split(key, 5). A uint64 sampled from the key is the same 64 bits again: its first elements are the
#           children's key data. "unsafe_rbg" alone keeps split and fold_in apart.
# Why it matters: a train step that splits fold_in(run_key, step) into gate and dropout keys, while the sampler folds
#           problem numbers into that same key, uses the keys of problems 0 and 1 twice. Nothing warns; fold a constant
#           of its own into each use first.
# Output seen:
#   threefry2x32: split[i] == fold_in(i): True; split(2) == split(5)[:2]: True; bits(uint64) == split: True
#   rbg: split[i] == fold_in(i): True; split(2) == split(5)[:2]: True
#   unsafe_rbg: split[i] == fold_in(i): False; split(2) == split(5)[:2]: True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet jax==0.10.2 jaxlib==0.10.2
JAX_PLATFORMS=cpu JAX_ENABLE_X64=1 "$folder/venv/bin/python" - >"$folder/seen" <<'PYTHON'
import jax
import numpy as np

for generator in ("threefry2x32", "rbg", "unsafe_rbg"):
    key = jax.random.key(7, impl=generator)
    split = np.asarray(jax.random.key_data(jax.random.split(key, 5)))
    folded = np.stack([jax.random.key_data(jax.random.fold_in(key, number)) for number in range(5)])
    shorter = np.asarray(jax.random.key_data(jax.random.split(key, 2)))
    line = f"{generator}: split[i] == fold_in(i): {bool((split == folded).all())}; "
    line += f"split(2) == split(5)[:2]: {bool((shorter == split[:2]).all())}"
    if generator == "threefry2x32":
        words = split.astype(np.uint64)
        bits = np.asarray(jax.random.bits(key, (5,), "uint64"))
        line += f"; bits(uint64) == split: {bool((bits == words[:, 0] << np.uint64(32) | words[:, 1]).all())}"
    print(line)
PYTHON
cat "$folder/seen"
diff - "$folder/seen" <<'SEEN'
threefry2x32: split[i] == fold_in(i): True; split(2) == split(5)[:2]: True; bits(uint64) == split: True
rbg: split[i] == fold_in(i): True; split(2) == split(5)[:2]: True
unsafe_rbg: split[i] == fold_in(i): False; split(2) == split(5)[:2]: True
SEEN
