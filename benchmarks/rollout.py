"""Tokens per second of the engine and of transformers' own generate, with the same weights, prompts and sampling.

    python benchmarks/rollout.py                              # three sizes, batches of 1, 8 and 32: about 20 minutes
    python benchmarks/rollout.py --sizes 0.5M --batches 8     # a quick look
    python benchmarks/rollout.py --vllm PYTHON --llama DRIVER --sizes 20M    # these instead of transformers

Transformers writes each model with random weights. It samples with its dynamic and its static cache, and the better of
the two counts; it is given one batch after another. Lengths are equal, or log-normal with sigma 1; nothing else ends a
completion. Where they differ the engine has many times as many requests as rows, and transformers, whose batches are
independent, the first few batches of the same ones; or both have one batch of them, as a training step has. Each side
runs in a process of its own. The engine does all of the work twice, and the time that the first takes more than the
second, compiling, has a column of its own; transformers, which compiles nothing, is warmed up on eight tokens of one
batch.

The limit is what the same work must take on this machine at full batch occupancy: prefill at the rate of products with
many rows, and the longer of reading (weights in every step, and the cache as it grows) at the rate of memory and
multiplying weights at the rate of one such product, all three measured. "At the limit" is the ratio to transformers
that an engine without any other cost would reach.

With `--vllm`, the Python of an environment that has vLLM, or `--llama`, a driver built from benchmarks/peers, the sides
are vLLM in float32, llama.cpp with float32 and with bfloat16 weights, and the engine with either; docs/rollout.md says
how to install them. They take turns, each in a process of its own that measures several times: medians and the best.
All have as many requests as the engine has. The limit of the engine has lines of its own: the same steps with nothing
but their products with weights, as fast as XLA makes them.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout that this file is in

import numpy as np

SIZES = {
    "0.5M": {"vocab_size": 512, "hidden_size": 128, "layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 32, "new": 128},
    "20M": {"vocab_size": 8192, "hidden_size": 384, "layers": 8, "heads": 6, "kv_heads": 2, "head_dim": 64, "new": 64},
    "150M": {
        **{"vocab_size": 32_768, "hidden_size": 768, "layers": 16, "heads": 12, "kv_heads": 4, "head_dim": 64},
        "new": 64,
    },
}
WAVES = {"0.5M": (64, 8), "20M": (32, 2), "150M": (8, 2)}  # requests a row where lengths differ: the engine's, theirs
KINDS = ("equal", "log-normal", ONE_BATCH := "log-normal, one batch")
PROMPT = 64  # tokens
TEMPERATURE, TOP_K, TOP_P = 1.1, 20, 0.95  # the paper's rollouts
TURNS, REPEATS = 3, 3  # of every engine: processes, and measurements of each
PEERS = Path(__file__).parent / "peers"

HEADER = (
    "| parameters | batch | lengths | engine tokens/s | transformers tokens/s | ratio | at the limit | of the limit "
    "| of it prefill | batch occupancy | compile s |\n" + "|---" * 11 + "|"
)


PEER_HEADER = (
    "| parameters | batch | lengths | side | median tokens/s | best | engine to it, medians | bests |\n"
    + "|---" * 8
    + "|"
)


def lengths_of(size: dict[str, int], batch: int, kind: str, waves: int) -> list[int]:
    """Tokens of each completion, for `waves` requests a row where they differ and are not one batch."""
    if kind == "equal":
        return [size["new"]] * batch
    count = batch if kind == ONE_BATCH else waves * batch
    lengths = np.random.default_rng(0).lognormal(np.log(size["new"] / 2), 1.0, count)
    return [int(length) for length in np.clip(lengths, 1, 8 * size["new"])]


def prompts_of(size: dict[str, int], count: int) -> list[list[int]]:
    """Random prompts of one length."""
    return np.random.default_rng(1).integers(1, size["vocab_size"], (count, PROMPT)).tolist()


def write_model(folder: Path, size: dict[str, int]) -> None:
    """A Qwen3 with random weights, as transformers writes it."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=size["vocab_size"],
        hidden_size=size["hidden_size"],
        intermediate_size=3 * size["hidden_size"],
        num_hidden_layers=size["layers"],
        num_attention_heads=size["heads"],
        num_key_value_heads=size["kv_heads"],
        head_dim=size["head_dim"],
        tie_word_embeddings=True,
        max_position_embeddings=4096,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)


def timed(work: Any) -> tuple[Any, float]:
    """What `work` returns, and the seconds that it took."""
    start = time.perf_counter()
    return work(), time.perf_counter() - start


def ours(
    folder: Path, size: dict[str, int], batch: int, kind: str, waves: int, *, weights_dtype: str | None = None
) -> dict[str, Any]:
    """The engine, and the limits of its steps."""
    import jax

    from egrsd_jax.model.hf.hub import load_pretrained
    from egrsd_jax.model.sharding import make_mesh
    from egrsd_jax.rollout.engine import engine_for, sample_keys
    from egrsd_jax.rollout.requests import Request, Sampling, complete

    config, params = load_pretrained(folder, dtype="float32")
    lengths = lengths_of(size, batch, kind, waves)
    mesh = make_mesh(devices=jax.devices()[:1])
    prompts = prompts_of(size, len(lengths))
    engine = engine_for(
        config.replace(dtype="float32"),
        mesh,
        (),
        prompts,
        max_rows=batch,
        max_new_tokens=max(lengths),
        policy=(params, None),
        weights_dtype=weights_dtype,
    )
    keys = sample_keys(jax.random.key(0), range(len(lengths)), [0] * len(lengths))
    requests = [
        Request(prompt, Sampling(TEMPERATURE, TOP_K, TOP_P, max_new_tokens=length), key)
        for prompt, length, key in zip(prompts, lengths, keys, strict=True)
    ]

    def sample() -> int:
        engine.reset_counts()
        return sum(len(completion.tokens) for completion in complete(engine, requests))

    _, first = timed(sample)
    tokens, seconds = timed(sample)
    if weights_dtype is not None:  # against other engines: several times
        rates = [tokens / seconds, *(tokens / timed(sample)[1] for _ in range(REPEATS - 1))]
        return {"rates": rates, "products": tokens / products_alone(config, params, weights_dtype, lengths, batch)}
    prefill, steps = limits(size, params, lengths, batch)
    return {
        "rate": tokens / seconds,
        "limit": tokens / (prefill + steps),
        "prefill": prefill / (prefill + steps),
        "occupancy": engine.occupancy,
        "compiling": first - seconds,
    }


def limits(size: dict[str, int], params: Any, lengths: list[int], batch: int) -> tuple[float, float]:
    """Seconds that prefill and decoding take at least."""
    import jax

    weights = sum(leaf.size for leaf in jax.tree.leaves(params))
    in_layers = sum(leaf.size for leaf in jax.tree.leaves(params["layers"]))
    prefill = 2 * in_layers * PROMPT * len(lengths) / product_rate(size, PROMPT * batch)
    steps = max(sum(lengths) / batch, max(lengths))  # with all rows occupied; a row's tokens come one after another
    position = 2 * size["layers"] * size["kv_heads"] * size["head_dim"]  # numbers of a cached token
    held = sum(length * (PROMPT + length / 2) for length in lengths)  # cached tokens, read in all
    reading = 4 * (steps * weights + held * position) / bandwidth()
    return prefill, max(reading, 2 * weights * sum(lengths) / product_rate(size, batch))


def products_alone(config: Any, params: Any, dtype: str, lengths: list[int], batch: int) -> float:
    """Seconds of the steps' products with weights, as XLA makes them, and of nothing else: no attention, no prompts."""
    import jax
    import jax.numpy as jnp

    from egrsd_jax.model.decode import lay_out
    from egrsd_jax.ops.products import product
    from egrsd_jax.rollout.sizes import Sizes, at_least

    weights = lay_out(params, config, dtype)
    matrices = [leaf for leaf in jax.tree.leaves((weights.layers, weights.head_DV)) if leaf.ndim == 2]

    @jax.jit
    def step(matrices: list[jax.Array], row_B: jax.Array) -> jax.Array:
        for matrix in matrices:  # one after the other, as layers follow each other
            rows = jnp.broadcast_to(row_B[:, None], (len(row_B), len(matrix))).astype(dtype)
            row_B = 1e-3 * product("bi,io->bo", rows, matrix, dtype=jnp.float32)[:, 0]
        return row_B

    sizes = Sizes.of(max_rows=batch, max_prompt_tokens=PROMPT, max_new_tokens=max(lengths), shards=1).rows
    seconds = {rows: best(lambda rows=rows: step(matrices, jnp.ones(rows)).block_until_ready()) for rows in sizes}
    if len(lengths) > batch:  # rows are refilled: nearly all are busy
        return seconds[batch] * max(sum(lengths) / batch, max(lengths))
    active = (sum(length > number for length in lengths) for number in range(max(lengths)))
    return sum(seconds[at_least(sizes, rows)] for rows in active)


def bandwidth() -> float:
    """Bytes of memory a second that a sum over an array far larger than the caches reads."""
    import jax
    import jax.numpy as jnp

    array = jnp.ones((2**28,), jnp.float32)
    total = jax.jit(jnp.sum)
    return array.nbytes / best(lambda: total(array).block_until_ready())


def product_rate(size: dict[str, int], batch: int) -> float:
    """FLOP a second of `batch` rows times matrices of the model's own shape, one after another as layers follow."""
    import jax
    import jax.numpy as jnp

    width = size["hidden_size"]
    count = max(1, 2**22 // (3 * width * width))
    matrices = [jnp.ones((width, 3 * width)) for _ in range(count)]
    rows = jnp.ones((batch, width))
    products = jax.jit(lambda rows, matrices: [rows @ matrix for matrix in matrices])
    seconds = best(lambda: jax.block_until_ready(products(rows, matrices)))
    return 2 * batch * count * 3 * width * width / seconds


def best(run: Any, times: int = 7) -> float:
    """The shortest of several times, in seconds: a limit is what the machine can do."""
    run()
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def theirs(folder: Path, size: dict[str, int], batch: int, kind: str, waves: int) -> dict[str, float]:
    """transformers' generate with the better of its two caches."""
    import torch
    from transformers import AutoModelForCausalLM, StoppingCriteria, StoppingCriteriaList

    class Ends(StoppingCriteria):
        """Each row ends at a length of its own."""

        def __init__(self, lengths: list[int]):
            self._lengths = torch.tensor(lengths) + PROMPT

        def __call__(self, input_ids, scores, **kwargs):  # noqa: ARG002  (transformers' own names)
            return input_ids.shape[1] >= self._lengths

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    lengths = lengths_of(size, batch, kind, waves)
    prompts = torch.tensor(prompts_of(size, len(lengths)))

    def sample(cache: dict[str, str], lengths: list[int]) -> int:
        for start in range(0, len(lengths), batch):
            part, ends = prompts[start : start + batch], lengths[start : start + batch]
            with torch.no_grad():
                model.generate(
                    part,
                    attention_mask=torch.ones_like(part),
                    max_new_tokens=max(ends),
                    stopping_criteria=StoppingCriteriaList([Ends(ends)]),
                    do_sample=True,
                    temperature=TEMPERATURE,
                    top_k=TOP_K,
                    top_p=TOP_P,
                    **cache,
                )
        return sum(lengths)

    rates = {}
    for name, cache in (("dynamic", {}), ("static", {"cache_implementation": "static"})):
        sample(cache, [8] * batch)
        tokens, seconds = timed(lambda cache=cache: sample(cache, lengths))
        rates[name] = tokens / seconds
    return {"rate": max(rates.values()), **rates}


def run_side(side: str, folder: Path, size: str, batch: int, kind: str) -> dict[str, float]:
    """One side in a process of its own."""
    command = [sys.executable, __file__, "--side", side, "--folder", str(folder), "--sizes", size]
    done = subprocess.run([*command, "--batches", str(batch), "--kinds", kind], check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout.splitlines()[-1])


def others(asked: argparse.Namespace, size: str, batch: int, kind: str, folder: Path) -> dict[str, Any]:
    """Commands of the engines that are compared, by name, and what each reads."""
    lengths = lengths_of(SIZES[size], batch, kind, WAVES[size][0])
    prompts = prompts_of(SIZES[size], len(lengths))
    ours = [sys.executable, __file__, "--folder", str(folder), "--sizes", size, "--batches", str(batch)]
    ours += ["--kinds", kind, "--side"]
    sides = {f"engine, {dtype}": ([*ours, dtype], "") for dtype in ("float32", "bfloat16")}
    if asked.vllm:
        sampling = {"temperature": TEMPERATURE, "top_k": TOP_K, "top_p": TOP_P}
        text = json.dumps({"prompts": prompts, "lengths": lengths, "sampling": sampling})
        command = [asked.vllm, str(PEERS / "vllm_side.py"), str(folder), "float32", str(batch), str(REPEATS)]
        sides["vLLM, float32"] = command, text
    if asked.llama:
        text = "".join(f"{length} {' '.join(map(str, one))}\n" for length, one in zip(lengths, prompts, strict=True))
        for dtype in ("float32", "bfloat16"):
            file = folder / f"{dtype}.gguf"
            if not file.exists():
                writer = [asked.gguf or sys.executable, str(PEERS / "write_gguf.py"), str(folder), str(file), dtype]
                subprocess.run(writer, check=True)
            sides[f"llama.cpp, {dtype}"] = [asked.llama, str(file), str(batch), str(REPEATS)], text
    return sides


def compare(asked: argparse.Namespace, size: str, batch: int, kind: str, folder: Path) -> None:
    """Every engine's rates, taken in turns, one line of the table each."""
    sides = others(asked, size, batch, kind, folder)
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(TURNS):
        for name, (command, text) in sides.items():
            done = subprocess.run(command, input=text, check=True, stdout=subprocess.PIPE, text=True)
            lines = done.stdout.split("\n")
            if name.startswith("engine"):
                measured = json.loads(lines[-2])
                rates[name] += measured["rates"]
                rates.setdefault(f"only the products of the {name}", []).append(measured["products"])
            else:
                rates[name] += [float(line) for line in lines if line.strip()]
    for name, measured in rates.items():
        own = rates["engine, bfloat16" if name.endswith("bfloat16") else "engine, float32"]
        ratio, best_ratio = statistics.median(own) / statistics.median(measured), max(own) / max(measured)
        tokens = f"{statistics.median(measured):,.0f} | {max(measured):,.0f}"
        print(f"| {size} | {batch} | {kind} | {name} | {tokens} | {ratio:.2f} | {best_ratio:.2f} |", flush=True)


def row(size: str, batch: int, kind: str, engine: dict[str, float], other: dict[str, float]) -> str:
    """One line of the table."""
    rate, limit, reference = engine["rate"], engine["limit"], other["rate"]
    cells = (
        *(
            size,
            f"{batch}",
            kind,
            f"{rate:,.0f}",
            f"{reference:,.0f}",
            f"{rate / reference:.1f}",
            f"{limit / reference:.1f}",
        ),
        *(f"{100 * rate / limit:.0f}%", f"{100 * engine['prefill']:.0f}%", f"{100 * engine['occupancy']:.0f}%"),
        f"{engine['compiling']:.1f}",
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """The table, a row as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--vllm", metavar="PYTHON", help="of an environment that has vLLM")
    parser.add_argument("--llama", metavar="DRIVER", help="built from benchmarks/peers/llama_driver.cpp")
    parser.add_argument("--gguf", metavar="PYTHON", help="one that has the package gguf; by default this one")
    parser.add_argument("--side", choices=("ours", "theirs", "float32", "bfloat16"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.side:
        size = asked.sizes[0]
        side, waves = {"ours": (ours, 0), "theirs": (theirs, 1)}.get(
            asked.side, (partial(ours, weights_dtype=asked.side), 0)
        )
        print(json.dumps(side(asked.folder, SIZES[size], asked.batches[0], asked.kinds[0], WAVES[size][waves])))
        return
    print(PEER_HEADER if asked.vllm or asked.llama else HEADER, flush=True)
    with tempfile.TemporaryDirectory() as root:
        for size in asked.sizes:
            folder = Path(root) / size
            write_model(folder, SIZES[size])
            for batch in asked.batches:
                for kind in asked.kinds:
                    if asked.vllm or asked.llama:
                        compare(asked, size, batch, kind, folder)
                        continue
                    sides = [run_side(side, folder, size, batch, kind) for side in ("ours", "theirs")]
                    print(row(size, batch, kind, *sides), flush=True)


if __name__ == "__main__":
    main()
