"""Runs whose completions come from a vLLM server next to them, on this machine's CPU.

    EGRSD_VLLM=/path/to/python python benchmarks/served.py                 # steps, kills, pushes: a quarter of an hour
    EGRSD_VLLM=/path/to/python python benchmarks/served.py --only steps
    EGRSD_VLLM=/path/to/python python benchmarks/served.py --throughput    # server and trainer on one core each

EGRSD_VLLM is the Python of an environment that has vLLM (docs/served.md says how one is made); nothing is installed.

`steps` trains a small random Qwen3 with an adapter, in float32 and in bfloat16, from a server and in this process, and
prints by how much sampler and trainer differ. `update` gives a server two adapters and compares greedy completions of
the same prompts with those of the engine here. `kill` ends the server with SIGKILL at a moment that the seed decides,
and starts it again. `push` times an adapter of rank 64 in the shape of Qwen3-8B: writing all 36 layers, and loading the
part of a model of 4 such layers. With `--throughput`, steps an hour of ahead 1, ahead 0 and of this process, in turns.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.peers.vllm_server import VllmServer  # noqa: E402

STEPS = 10
RUN = (
    *(f"--train.steps={STEPS}", "--train.batch_size=16", "--rollout.samples_per_problem=4", "--train.sample_every=1"),
    *("--lora.rank=8", "--lora.alpha=16", "--train.learning_rate=2e-3", "--train.checkpoint_every=1"),
    *("--rollout.max_new_tokens=64", "--evaluation.path=null", "--run.track=none", "--data.max_prompt_tokens=400"),
)
LIMITS = {"float32": 1e-4, "bfloat16": 0.02}  # nats per token, mean
MARKS, END = ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), "<|im_end|>"
SMALL = {
    **{"hidden_size": 256, "intermediate_size": 768, "num_layers": 4},
    **{"num_heads": 8, "num_kv_heads": 4, "head_dim": 32},
}
# Qwen3-8B's layers. The vocabulary, which no adapter is on, is small.
SHAPE = {"hidden_size": 4096, "intermediate_size": 12288, "num_heads": 32, "num_kv_heads": 8, "head_dim": 128}
LAYERS, LOADED_LAYERS, RANK = 36, 4, 64
SKIPPED = 4  # steps of a run that compile


def main() -> None:
    """Prints each part's results; exit code 1 where one is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS, help="one part")
    parser.add_argument("--throughput", action="store_true", help="steps an hour, server and trainer on one core each")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of kills")
    parser.add_argument("--kills", type=int, default=2, help="servers that are killed")
    parser.add_argument("--turns", type=int, default=2, help="how often each side of --throughput is measured")
    parser.add_argument("--cores", type=int, nargs=2, default=(0, 1), help="of the server and of the trainer")
    asked = parser.parse_args()
    if not (python := os.environ.get("EGRSD_VLLM")):
        parser.error("EGRSD_VLLM is not set: the Python of an environment that has vLLM (docs/served.md)")
    with tempfile.TemporaryDirectory() as folder:
        parts = [throughput] if asked.throughput else [PARTS[asked.only]] if asked.only else PARTS.values()
        held = [part(python, Path(folder), asked) for part in parts]
    if not all(held):
        raise SystemExit(1)


def steps(python: str, folder: Path, _: argparse.Namespace) -> bool:
    """Ten steps from a server and ten here, by dtype: gaps, rewards, and how many adapters the server was given."""
    held = True
    print("| dtype | completions from | steps | gap, mean | gap, largest | reward, last 5 | push, s | step, s |")
    print("|---|---|---|---|---|---|---|---|")
    for dtype, limit in LIMITS.items():
        with VllmServer(python, small_model(folder / "model"), folder / f"vllm_{dtype}.log", dtype=dtype) as server:
            served = train(folder, f"served-{dtype}", *of_dtype(dtype), f"--rollout.server={server.url}")
        here = train(folder, f"here-{dtype}", *of_dtype(dtype))
        for where, rows in (("vLLM", served), ("this process", here)):
            gap = mean(row["sampler_logp_gap_mean"] for row in rows)
            largest = max(row["sampler_logp_gap_max"] for row in rows)
            reward = mean(row["reward_mean"] for row in rows[-5:])
            pushed = mean(row.get("seconds_push", 0) for row in rows)
            step = mean(row["seconds_rollout"] + row["seconds_update"] for row in rows[1:])
            held &= len(rows) == STEPS and gap < limit
            print(
                f"| {dtype} | {where} | {len(rows)} | {gap:.1e} | {largest:.1e} | {reward:.3f} | {pushed:.2f} "
                f"| {step:.2f} |",
                flush=True,
            )
    return held


def update(python: str, folder: Path, _: argparse.Namespace) -> bool:
    """The same prompts before and after an update: whether completions change, and are those of the engine here."""
    with VllmServer(python, small_model(folder / "model"), folder / "vllm_update.log") as server:
        counts = compare_versions(server.url, small_model(folder / "model"), folder / "update")
    print(
        f"of {counts['prompts']} greedy completions {counts['same_first']} and {counts['same_second']} are those of "
        f"the engine here, before and after an update; the update changed {counts['changed']}; log-probabilities "
        f"differ by {counts['gap']:.1e} at most",
        flush=True,
    )
    same = counts["same_first"] == counts["same_second"] == counts["prompts"]
    return same and counts["changed"] > 0 and counts["gap"] < LIMITS["float32"]


def kill(python: str, folder: Path, asked: argparse.Namespace) -> bool:
    """The server is killed at a random moment and started again; the run must end as if nothing had been."""
    moments, held = random.Random(asked.seed), True
    for trial in range(asked.kills):
        name = f"killed-{trial}"
        with VllmServer(python, small_model(folder / "model"), folder / f"vllm_{name}.log") as server:
            process = start(folder, name, *of_dtype("float32"), f"--rollout.server={server.url}")
            after, more = moments.randrange(1, STEPS - 1), moments.uniform(0, 2.0)
            while len(metrics(folder / name)) < after and process.poll() is None:
                time.sleep(0.02)
            time.sleep(more)
            server.kill()
            begin = time.monotonic()
            time.sleep(3.0)  # as long as a supervisor takes
            server.start()
            down = time.monotonic() - begin
            process.wait()
        rows, output = metrics(folder / name), printed(folder, name)
        samples = [json.loads(line) for line in (folder / name / "samples.jsonl").read_text().splitlines()]
        per_step = {step: sum(sample["step"] == step for sample in samples) for step in range(STEPS)}
        right = [row["step"] for row in rows] == list(range(STEPS)) and set(per_step.values()) == {16}
        held &= right and process.returncode == 0
        waits = [line for line in output.splitlines() if "the step waits for" in line]
        gap = mean(row["sampler_logp_gap_mean"] for row in rows)
        print(
            f"killed {more:.2f} s after step {after}, back after {down:.0f} s: exit code {process.returncode}, steps "
            f"{[row['step'] for row in rows]}, completions of a step {sorted(set(per_step.values()))}, gap {gap:.1e}, "
            f"{len(waits)} lines about waits, the first: {' '.join(waits[0].split()) if waits else 'none'}",
            flush=True,
        )
        if not held:
            print(output)
    return held


def push(python: str, folder: Path, _: argparse.Namespace) -> bool:
    """An adapter of rank 64 in the shape of Qwen3-8B: seconds until it is written, and until the server has it."""
    import jax

    from egrsd_jax.model.lora import init_lora
    from egrsd_jax.rollout.served.engine import ServedEngine
    from egrsd_jax.rollout.served.weights import SharedFolder

    model = qwen3(**SHAPE, num_layers=LAYERS)

    def adapter(layers: int, seed: int) -> Any:
        made = init_lora(jax.random.key(seed), model.replace(num_layers=layers), rank=RANK, alpha=128)
        return jax.block_until_ready(jax.tree.map(lambda leaf: leaf + 0.001, made))

    def shared(name: str, layers: int) -> SharedFolder:
        of = model.replace(num_layers=layers)
        return SharedFolder(folder / name, on_server=None, run=name, base_model="base", model=of, dtype="bfloat16")

    whole, written = shared("whole", LAYERS), []
    for turn in range(3):
        lora = adapter(LAYERS, turn)
        begin = time.perf_counter()
        weights = whole.write_adapter(turn, lora)
        written.append(time.perf_counter() - begin)
        size = sum(file.stat().st_size for file in Path(weights.path).iterdir())
        whole.remove(weights)
    print(
        f"an adapter of {LAYERS} layers, {size / 1e6:.0f} MB in bfloat16: written in {min(written):.2f} s", flush=True
    )
    write_random(folder / "wide", model.replace(num_layers=LOADED_LAYERS), scale=0.02, dtype="bfloat16")
    loaded = []
    with VllmServer(python, folder / "wide", folder / "vllm_push.log", dtype="bfloat16", rank=RANK) as server:
        part = shared("part", LOADED_LAYERS)
        engine = ServedEngine([server.url], (256,), part, trains="adapter", vocab_size=model.vocab_size)
        for turn in range(4):
            lora = adapter(LOADED_LAYERS, turn)
            engine.update_params(None, lora)
            loaded.append(engine.seconds_push)
        engine.close()
    per_layer = min(loaded) / LOADED_LAYERS
    print(
        f"of {LOADED_LAYERS} layers: written, loaded by vLLM and the one before it unloaded in {min(loaded):.2f} s, so "
        f"{per_layer * LAYERS:.1f} s for {LAYERS} layers",
        flush=True,
    )
    return True


def throughput(python: str, folder: Path, asked: argparse.Namespace) -> bool:
    """Steps an hour of three sides, in turns: with a server one step ahead, with a server, and in this process."""
    server_core, core = asked.cores
    rates: dict[str, list[float]] = {"ahead 1": [], "ahead 0": [], "this process": []}
    with VllmServer(python, small_model(folder / "model"), folder / "vllm_throughput.log", core=server_core) as server:
        for turn in range(asked.turns):
            for side in rates:
                ahead = "--rollout.ahead=1" if side == "ahead 1" else "--rollout.ahead=0"
                more = () if side == "this process" else (f"--rollout.server={server.url}", ahead)
                name = f"{side.replace(' ', '-')}-{turn}"
                rates[side].append(steps_an_hour(folder, name, *of_dtype("float32"), *BALANCED, *more, core=core))
                print(f"turn {turn}, {side}: {rates[side][-1]:,.0f} steps an hour", flush=True)
    for side, values in rates.items():
        print(f"{side}: {', '.join(f'{value:,.0f}' for value in values)} steps an hour, the best {max(values):,.0f}")
    best = {side: max(values) for side, values in rates.items()}
    ratio, to_here = best["ahead 1"] / best["ahead 0"], best["ahead 1"] / best["this process"]
    print(f"ahead 1 is {ratio:.2f} times ahead 0, and {to_here:.2f} times this process", flush=True)
    return ratio >= 1.4


# A rollout takes about as long as an update here, so that one step ahead has something to win.
BALANCED = ("--train.steps=14", "--train.batch_size=32", "--train.checkpoint_every=1000", "--train.sample_every=1000")
PARTS = {"steps": steps, "update": update, "kill": kill, "push": push}


def compare_versions(url: str, model: Path, folder: Path) -> dict[str, Any]:
    """Greedy completions of the same long prompts with two adapters, from a server and from the engine here."""
    import jax
    import numpy as np

    from egrsd_jax.data.tokenizer import load_tokenizer
    from egrsd_jax.model.hf.hub import load_pretrained
    from egrsd_jax.model.lora import Lora, init_lora
    from egrsd_jax.model.sharding import make_mesh
    from egrsd_jax.rollout.engine import engine_for
    from egrsd_jax.rollout.requests import Request, Sampling, complete
    from egrsd_jax.rollout.served.engine import ServedEngine
    from egrsd_jax.rollout.served.weights import SharedFolder

    config, params = load_pretrained(model, dtype="float32")
    stop_ids = load_tokenizer(model)[1]
    numbers = np.random.default_rng(0)
    prompts = [numbers.integers(3, config.vocab_size, 300).tolist() for _ in range(4)]
    sampling = Sampling(temperature=0.0, max_new_tokens=24)
    requests = [Request(prompt, sampling, np.array([0, number], np.uint32)) for number, prompt in enumerate(prompts)]
    adapters = []
    for seed in (1, 2):
        lora = init_lora(jax.random.key(seed), config, rank=8, alpha=16)
        keys = jax.random.split(jax.random.key(seed), len(jax.tree.leaves(lora.layers)))
        leaves = [
            0.05 * jax.random.normal(key, leaf.shape)
            for key, leaf in zip(keys, jax.tree.leaves(lora.layers), strict=True)
        ]
        adapters.append(Lora(jax.tree.unflatten(jax.tree.structure(lora.layers), leaves), scale=2.0))
    shared = SharedFolder(folder, on_server=None, run=str(folder), base_model="base", model=config, dtype="float32")
    served = ServedEngine([url], stop_ids, shared, trains="adapter", vocab_size=config.vocab_size)
    served.check(prompts[0], sampling, 300 + sampling.max_new_tokens)
    mesh = make_mesh(devices=jax.devices()[:1])
    here = engine_for(
        config.replace(dtype="float32"), mesh, stop_ids, prompts, max_rows=4, max_new_tokens=sampling.max_new_tokens
    )
    pairs, gap = [], 0.0
    for lora in adapters:
        served.update_params(params, lora)
        here.update_params(params, lora)
        pair = complete(served, requests), complete(here, requests)
        pairs.append([[completion.tokens for completion in side] for side in pair])
        for one, other in zip(*pair, strict=True):
            if one.tokens == other.tokens:
                gap = max(gap, float(np.abs(one.logp - other.logp).max()))
    served.close()
    first, second = pairs
    return {
        "prompts": len(prompts),
        "same_first": sum(one == other for one, other in zip(*first, strict=True)),
        "same_second": sum(one == other for one, other in zip(*second, strict=True)),
        "changed": sum(one != other for one, other in zip(first[0], second[0], strict=True)),
        "gap": gap,
    }


def small_model(folder: Path) -> Path:
    """A Qwen3 with random weights, which keep the size of what they multiply, and a token for each byte; written once.

    Not the built-in model: vLLM's server ends at its start where a tokenizer has no token for a letter.
    """
    if not folder.exists():
        write_random(folder, qwen3(**SMALL), scale=SMALL["hidden_size"] ** -0.5)
    return folder


def qwen3(**fields: Any) -> Any:
    """A configuration."""
    from egrsd_jax.model.config import ModelConfig

    of_all = {"vocab_size": 256 + len(MARKS), "rope_theta": 1e6, "rms_norm_eps": 1e-6, "max_positions": 2048}
    return ModelConfig(**of_all, **fields, tie_embeddings=True, dtype="float32")


def write_random(folder: Path, config: Any, *, scale: float, dtype: str = "float32") -> None:
    """A checkpoint with random weights, and its tokenizer."""
    import jax
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from egrsd_jax.model.decoder import abstract_params
    from egrsd_jax.model.hf.hub import save_pretrained

    def values(path: Any, leaf: Any) -> Any:
        """Around 1 for the weights of norms."""
        name = jax.tree_util.keystr(path)
        random_key = jax.random.key(zlib.crc32(name.encode()))
        return scale * jax.random.normal(random_key, leaf.shape, dtype) + float("norm" in name)

    params = jax.tree_util.tree_map_with_path(values, abstract_params(config))
    save_pretrained(folder, config, params, dtype=dtype, eos_token_id=256 + MARKS.index(END))
    core = Tokenizer(
        models.BPE({symbol: at for at, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, [])
    )
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_tokens([AddedToken(mark, special=True, normalized=False) for mark in MARKS])
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, chat_template=template, eos_token=END, pad_token=MARKS[0]
    )
    tokenizer.save_pretrained(folder)


def of_dtype(dtype: str) -> tuple[str, ...]:
    """Options for a run in float32 or bfloat16."""
    return f"--model.dtype={dtype}", f"--model.param_dtype={dtype}"


def start(folder: Path, name: str, *options: str, core: int | None = None) -> subprocess.Popen:
    """A training run in a process of its own, on one core where one is given."""
    command = [] if core is None else ["taskset", "-c", str(core)]
    command += [sys.executable, str(ROOT / "launch/train.py"), f"--run.dir={folder}", f"--run.name={name}", *RUN]
    command += [f"--model.path={small_model(folder / 'model')}", *options]
    with (folder / f"{name}.txt").open("w") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)


def train(folder: Path, name: str, *options: str, core: int | None = None) -> list[dict[str, float]]:
    """A whole run; its metrics. Raises SystemExit with what it printed where it fails."""
    if code := start(folder, name, *options, core=core).wait():
        raise SystemExit(f"{name} ended with {code}:\n{printed(folder, name)}")
    return metrics(folder / name)


def printed(folder: Path, name: str) -> str:
    """What a run printed."""
    return (folder / f"{name}.txt").read_text()


def metrics(run: Path) -> list[dict[str, float]]:
    """The whole rows of a run's metrics.jsonl."""
    file = run / "metrics.jsonl"
    lines = file.read_text().split("\n")[:-1] if file.exists() else []
    return [json.loads(line) for line in lines]


def steps_an_hour(folder: Path, name: str, *options: str, core: int) -> float:
    """Of a run, by the moments at which its metrics get their rows, without the first steps, which compile."""
    process, moments = start(folder, name, *options, core=core), []
    while process.poll() is None:
        moments += [time.monotonic()] * (len(metrics(folder / name)) - len(moments))
        time.sleep(0.02)
    return 3600 * (len(moments) - 1 - SKIPPED) / (moments[-1] - moments[SKIPPED])


def mean(values: Any) -> float:
    """Of a few numbers."""
    numbers = list(values)
    return sum(numbers) / len(numbers)


if __name__ == "__main__":
    main()
