"""vLLM's side of benchmarks/rollout.py, run by the Python that has vLLM; it imports nothing of this package.

    PYTHON benchmarks/peers/vllm_side.py FOLDER DTYPE ROWS REPEATS < requests.json

Prints the tokens per second of each repeat, after one that is not counted.
"""

import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")


def main() -> None:
    """One line per repeat."""
    from vllm import LLM, SamplingParams  # pyright: ignore[reportMissingImports]  (it has an environment of its own)

    folder, dtype, rows, repeats = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    asked = json.load(sys.stdin)
    engine = LLM(
        model=folder,
        dtype=dtype,
        max_num_seqs=rows,
        max_model_len=1024,
        skip_tokenizer_init=True,
        enable_prefix_caching=False,
    )
    prompts = [{"prompt_token_ids": prompt} for prompt in asked["prompts"]]
    sampling = [
        SamplingParams(**asked["sampling"], max_tokens=length, ignore_eos=True, detokenize=False, seed=number)
        for number, length in enumerate(asked["lengths"])
    ]
    for repeat in range(repeats + 1):
        start = time.perf_counter()
        outputs = engine.generate(prompts, sampling, use_tqdm=False)
        seconds = time.perf_counter() - start
        tokens = sum(len(output.outputs[0].token_ids) for output in outputs)
        if tokens != sum(asked["lengths"]):
            raise SystemExit(f"vLLM sampled {tokens} tokens instead of {sum(asked['lengths'])}")
        if repeat:
            print(f"{tokens / seconds:.3f}", flush=True)


def preload() -> None:
    """Starts again with the libraries that vLLM asks for on a CPU, those of them that are here."""
    places = [Path(sys.prefix, "lib", "libiomp5.so"), *Path("/usr/lib").glob("*/libtcmalloc_minimal.so.4")]
    libraries = ":".join(str(place) for place in places if place.exists())
    if libraries and "LD_PRELOAD" not in os.environ:
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "LD_PRELOAD": libraries})


if __name__ == "__main__":
    preload()
    main()
