"""Tokens per second of a rollout whose prompts begin alike, with the beginning kept once and with every prompt whole.

    python benchmarks/prefix.py                      # this checkout, with the common prefix and without
    python benchmarks/prefix.py --before FOLDER      # this checkout with it, and another version's checkout

A decoder of SmolLM2-135M's size with random weights, in float32: 64 prompts of 390 tokens, 350 of them in common, and
for each a completion of 16 tokens, as the answers of six examples of one-step sums are, or of 48. The sides take turns,
each in a process of its own; compiling is not counted.
"""

import argparse
import importlib
import inspect
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PROMPTS, SHARED, OWN, LENGTHS = 64, 350, 40, (16, 48)
HERE = Path(__file__).resolve().parents[1]
HEADER = "| side | tokens of a completion | tokens/s, each turn | seconds |\n|---|---|---|---|"


def main() -> None:
    """A line per side and length, and how many times as many tokens per second the first side has."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="checkout of another version")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--prompts", type=int, default=PROMPTS)
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS, help="tokens of the completions")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.side:
        sys.path.insert(0, asked.side.split("=")[-1])
        print(json.dumps(measured(asked.prompts, asked.lengths, shared=asked.side.startswith("shared"))))
        return
    sides = {"prefix kept once": f"shared={HERE}"}
    if asked.before:
        sides[f"{asked.before.name}, every prompt whole"] = f"before={asked.before.resolve()}"
    else:
        sides["every prompt whole"] = f"whole={HERE}"
    seconds: dict[str, list[list[float]]] = {name: [] for name in sides}
    for _ in range(asked.turns):
        for name, side in sides.items():
            command = [sys.executable, __file__, "--side", side, "--prompts", str(asked.prompts)]
            command += ["--lengths", *map(str, asked.lengths)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            seconds[name].append(json.loads(done.stdout.splitlines()[-1]))
            print(f"{name}: {seconds[name][-1]}", file=sys.stderr, flush=True)
    print(HEADER)
    for name, turns in seconds.items():
        for length, taken in zip(asked.lengths, zip(*turns, strict=True), strict=True):
            rates = ", ".join(f"{asked.prompts * length / one:.0f}" for one in taken)
            print(f"| {name} | {length} | {rates} | {', '.join(f'{one:.1f}' for one in taken)} |")
    for number, length in enumerate(asked.lengths):
        ours, others = (statistics.median(turn[number] for turn in turns) for turns in seconds.values())
        print(f"{length} tokens: {others / ours:.1f} times as many tokens per second, by the medians")


def measured(prompts: int, lengths: list[int], *, shared: bool) -> list[float]:
    """Seconds of the rollout, for each length of its completions, by the version that is imported."""
    import jax
    import numpy as np

    from egrsd_jax.model.config import ModelConfig
    from egrsd_jax.model.sharding import make_mesh
    from egrsd_jax.rollout.engine import Engine
    from egrsd_jax.rollout.requests import Request, Sampling, complete

    try:
        from egrsd_jax.model.decoder import init_params
    except ImportError:  # 0.1 has it under another name
        init_params = importlib.import_module("egrsd_jax.model.qwen3").init_params

    config = ModelConfig(
        vocab_size=49_152,
        hidden_size=576,
        intermediate_size=1536,
        num_layers=30,
        num_heads=9,
        num_kv_heads=3,
        head_dim=64,
        rope_theta=1e5,
        rms_norm_eps=1e-5,
        tie_embeddings=True,
        max_positions=8192,
        dtype="float32",
    )
    draw = np.random.default_rng(0)
    prefix = draw.integers(0, config.vocab_size, SHARED).tolist()
    texts = [prefix + draw.integers(0, config.vocab_size, OWN).tolist() for _ in range(prompts)]
    rows = "max_rows" if "max_rows" in inspect.signature(Engine).parameters else "slots"  # as 0.1 calls them
    options: dict[str, Any] = {rows: prompts, "max_prompt_tokens": SHARED + OWN, "max_new_tokens": max(lengths)}
    if shared:
        options["prefix"] = prefix
    engine = Engine(config, make_mesh(devices=jax.devices()[:1]), (), **options)
    engine.update_params(init_params(jax.random.key(0), config))
    few = max(prompts // 8, 1)  # as many as are prefilled together: the same programs, and an eighth of the reading
    complete(engine, [Request(texts[number % few], Sampling(max_new_tokens=2)) for number in range(prompts)])
    seconds = []
    for number, length in enumerate(lengths):
        engine.update_params(init_params(jax.random.key(1 + number), config))  # so that the prefix is read again
        jax.block_until_ready(jax.tree.leaves(vars(engine)["_loaded"]))  # nothing of them is left to be computed
        start = time.perf_counter()
        complete(engine, [Request(text, Sampling(max_new_tokens=length)) for text in texts])
        seconds.append(time.perf_counter() - start)
    return seconds


if __name__ == "__main__":
    main()
