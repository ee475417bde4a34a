#!/usr/bin/env bash
# XLA on CPU: a bfloat16 product of one row takes several times as long as one of two rows.
#
# Versions: jax 0.10.2 and jaxlib 0.10.2, on a processor with AVX512-BF16 (elsewhere nothing is checked).
# Guess:    bfloat16 x bfloat16 -> float32 with two rows goes to XLA's library of products; one row is half of the work,
#           so it goes there too.
# Behaviour: one row becomes a product with a vector, which XLA makes itself, in float32 alone: it converts the whole
#           matrix to float32 first, in memory, at every call. Two equal rows, one of them thrown away, are faster.
# Why it matters: decoding one sequence is such products and little else. Wherever rows can be one, make them two.
# Output seen (the factor of the last line varies: 1.9 on a busy machine, 3.9 on an idle one):
#   1 row: converts the matrix to float32, not in the library
#   2 rows: takes the matrix as it is, in the library
#   one row over two rows, time: 3.9
set -euo pipefail
if ! grep -q avx512_bf16 /proc/cpuinfo; then
    echo "not checked: this processor does not list avx512_bf16"
    exit 0
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet jax==0.10.2 jaxlib==0.10.2
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - >"$folder/seen" <<'PYTHON'
import time

import jax
import jax.numpy as jnp

matrix = jnp.ones((2048, 2048), jnp.bfloat16)
seconds = []
for count in (1, 2):
    rows = jnp.ones((count, 2048), jnp.bfloat16)
    product = jax.jit(lambda x, w: jnp.dot(x, w, preferred_element_type=jnp.float32)).lower(rows, matrix).compile()
    text = product.as_text()
    converts = "converts the matrix to float32" if "f32[2048,2048]" in text else "takes the matrix as it is"
    library = "in the library" if "__ynn_fusion" in text else "not in the library"
    print(f"{count} row{'s' * (count > 1)}: {converts}, {library}")
    times = []
    for _ in range(15):
        start = time.perf_counter()
        product(rows, matrix).block_until_ready()
        times.append(time.perf_counter() - start)
    seconds.append(min(times))
print(f"one row over two rows, time: {seconds[0] / seconds[1]:.1f}")
PYTHON
cat "$folder/seen"
head -2 "$folder/seen" | diff - <(printf '%s\n' "1 row: converts the matrix to float32, not in the library" \
    "2 rows: takes the matrix as it is, in the library")
