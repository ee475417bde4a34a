"""Milliseconds of a decode step where one row of 64 is long and the others hold 150 tokens, by the long one's length.

    python benchmarks/long_row.py                       # this checkout
    python benchmarks/long_row.py --checkout FOLDER     # another version's

A Qwen3 of 0.5M parameters with random weights; the best of several chunks.
"""

import argparse
import sys
import time
from pathlib import Path

ROWS, SHORT, STEPS, TIMES = 64, 150, 8, 6
CAPACITIES = (1024, 4096, 16_384, 32_768)


def main() -> None:
    """One line per capacity."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkout", type=Path, default=Path(__file__).resolve().parents[1])
    sys.path.insert(0, str(parser.parse_args().checkout))

    import jax
    import jax.numpy as jnp

    from egrsd_jax.model.config import ModelConfig
    from egrsd_jax.model.decode import lay_out
    from egrsd_jax.model.decoder import init_params
    from egrsd_jax.model.sharding import make_mesh
    from egrsd_jax.rollout.programs import programs
    from egrsd_jax.rollout.sampling import SamplingRules

    config = ModelConfig(
        vocab_size=512,
        hidden_size=128,
        intermediate_size=384,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=32,
        rope_theta=1e6,
        rms_norm_eps=1e-6,
        tie_embeddings=True,
        max_positions=40_000,
        dtype="float32",
    )
    weights = lay_out(init_params(jax.random.key(0), config), config)
    made = programs(config, make_mesh(devices=jax.devices()[:1]))
    print("| tokens of the long row | ms a step |\n|---|---|")
    for capacity in CAPACITIES:
        state = made.empty_state(rows=ROWS, capacity=capacity, cache_dtype="float32")
        seconds = []
        for _ in range(TIMES):
            rules = SamplingRules(*(jnp.full(ROWS, value) for value in (1.1, 20, 0.95, 0.0)))
            long = capacity - 100
            state = state._replace(
                cache=state.cache._replace(length_B=jnp.asarray([long] + [SHORT] * (ROWS - 1), jnp.int32)),
                sampling=state.sampling._replace(rules=rules, max_new_tokens=jnp.full(ROWS, 10**6)),
                running_B=jnp.ones(ROWS, bool),
            )
            start = time.perf_counter()
            arguments = jnp.ones(ROWS, bool), jnp.array([-1]), jnp.float32(1), jnp.int32(ROWS)
            state, sampled = made.decode_chunk(weights, None, state, *arguments, steps=STEPS)
            jax.block_until_ready(sampled)
            seconds.append(time.perf_counter() - start)
        print(f"| {long:,} | {1000 * min(seconds) / STEPS:.2f} |", flush=True)


if __name__ == "__main__":
    main()
