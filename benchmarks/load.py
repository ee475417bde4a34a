"""Peak host memory and seconds of loading a checkpoint onto 8 host devices, compared with transformers.

    python benchmarks/load.py                              # a generated Qwen3 of about 2 GB in several shards
    python benchmarks/load.py --dtype float32              # with a cast on the way, so that both have to copy
    python benchmarks/load.py --gigabytes 0.2 --repeats 1  # a quick look; some 60 MB do not depend on the size

Every load runs in a process of its own, the loaders taking turns; what they import is imported before the clock starts.
Memory is the growth of the process's peak resident set (VmHWM, so Linux only), pages of mapped files included. Seconds
are medians, with and without every weight read once afterwards: without a cast transformers maps the files, copies
nothing and reads nothing until then, while devices need copies of their own. The files are in the page cache. "Plain
reads" into a reused buffer measure the speed of the page cache, and those into new memory the least cost of a copy: on
a virtual machine, most of it is the memory's first touch, and that varies with what ran there before.
"""

import argparse
import mmap
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this file's checkout
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ["HF_HUB_OFFLINE"] = "1"

DEMAND = 1.10  # peak memory over the size of the weights: of the files, where nothing is cast


class Load(NamedTuple):
    """One load: seconds until it returned, until every weight was read as well, and bytes of peak memory growth."""

    seconds: float
    touched: float
    peak: float


def make(folder: Path, size: float) -> str:
    """Writes a checkpoint of about `size` bytes in five or six shards and describes it."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from egrsd_jax.model.config import ModelConfig
    from egrsd_jax.model.decoder import abstract_params
    from egrsd_jax.model.hf.hub import save_pretrained

    D = 2048 if size > 1e9 else 512
    layer_bytes = 2 * (6 * D * D + 9 * D * D)  # bfloat16: 2 D² each for q and o, D² for k and v, 3 · 3 D² for the MLP
    config = ModelConfig(
        vocab_size=int(0.3 * size / (2 * D)) // 64 * 64,  # the embedding's share in a small Qwen3
        hidden_size=D,
        intermediate_size=3 * D,
        num_layers=round(0.7 * size / layer_bytes),
        num_heads=D // 64,
        num_kv_heads=D // 128,
        head_dim=128,
        rope_theta=1e6,
        rms_norm_eps=1e-6,
        tie_embeddings=True,
        max_positions=4096,
    )
    source = np.random.default_rng(0)

    def weights(leaf: Any) -> jax.Array:
        """Random finite numbers under 2: the bit that makes larger ones is cleared."""
        bits = source.integers(0, 2**16, leaf.shape, np.uint16) & np.uint16(0xBFFF)
        return jnp.asarray(bits.view(jnp.bfloat16))

    save_pretrained(folder, config, jax.tree.map(weights, abstract_params(config)), max_shard_bytes=int(size / 5))
    return f"{config.num_layers} layers, hidden size {D:,}, vocabulary {config.vocab_size:,}"


def ours(folder: Path, dtype: str) -> Load:
    """`load_pretrained` onto 8 devices, each weight split over all of them."""
    import jax
    import numpy as np

    from egrsd_jax.model.hf.hub import load_pretrained
    from egrsd_jax.model.sharding import make_mesh

    mesh = make_mesh(fsdp=8)

    def read(loaded: Any) -> None:
        for leaf in jax.tree.leaves(loaded[1]):
            for shard in leaf.addressable_shards:
                np.asarray(shard.data).view(np.uint16).max()

    return measured(lambda: load_pretrained(folder, mesh=mesh, dtype=dtype), read)


def theirs(folder: Path, dtype: str) -> Load:
    """transformers' `from_pretrained`, onto the one CPU."""
    import torch
    from transformers import Qwen3ForCausalLM

    return measured(
        lambda: Qwen3ForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)),
        lambda model: [parameter.detach().max() for parameter in model.parameters()],
    )


def plain(folder: Path, dtype: str) -> Load:  # noqa: ARG001  (bytes are bytes)
    """Reads of the files into one buffer."""
    buffer = bytearray(2**24)

    def load() -> None:
        for file in sorted(folder.glob("*.safetensors")):
            with file.open("rb", buffering=0) as stream:
                while stream.readinto(buffer):
                    pass

    return measured(load, lambda _: None)


def plain_new(folder: Path, dtype: str) -> Load:  # noqa: ARG001  (bytes are bytes)
    """Reads of the files into memory that stays."""

    def load() -> list[mmap.mmap]:
        return [read(file) for file in sorted(folder.glob("*.safetensors"))]

    def read(file: Path) -> mmap.mmap:
        memory = mmap.mmap(-1, file.stat().st_size)
        with file.open("rb", buffering=0) as stream, memoryview(memory) as rest:
            while count := stream.readinto(rest):
                rest = rest[count:]
        return memory

    return measured(load, lambda _: None)


def measured(load: Callable[[], Any], read: Callable[[Any], Any]) -> Load:
    """Times a load and the reading of what it gave."""
    before = memory("VmRSS")
    started = time.perf_counter()
    loaded = load()
    seconds, peak = time.perf_counter() - started, memory("VmHWM")
    read(loaded)
    return Load(seconds, time.perf_counter() - started, max(peak, memory("VmHWM")) - before)


def memory(field: str) -> float:
    """A figure of this process's /proc status, in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return 1024 * float(line.split()[1])


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function in a new process."""
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def main() -> None:
    """Makes the checkpoint, loads it in turns, prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=2.0, help="size of the generated checkpoint, in 10⁹ bytes")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16", help="what the weights become")
    parser.add_argument("--repeats", type=int, default=3, help="loads by each loader")
    parser.add_argument(
        "--dir", help="where the checkpoint is made for the time of the run; by default a temporary folder"
    )
    arguments = parser.parse_args()
    loaders: dict[str, Callable[[Path, str], Load]] = {
        "egrsd_jax, 8 devices": ours,
        "transformers": theirs,
        "plain reads": plain,
        "plain reads, new memory": plain_new,
    }
    with tempfile.TemporaryDirectory(dir=arguments.dir) as name:
        folder = Path(name)
        shape = alone(make, folder, 1e9 * arguments.gigabytes)
        files = list(folder.glob("*.safetensors"))
        size = sum(file.stat().st_size for file in files)
        print(f"Qwen3 in bfloat16, {shape}: {size / 1e9:.2f} GB in {len(files)} files, loaded as {arguments.dtype}\n")
        loads: dict[str, list[Load]] = {loader: [] for loader in loaders}
        for _ in range(arguments.repeats):
            for loader, function in loaders.items():
                loads[loader].append(alone(function, folder, arguments.dtype))
    report(loads, size * (2 if arguments.dtype == "float32" else 1))


def report(loads: dict[str, list[Load]], weights: int) -> None:
    """Both sides of every ratio, then the ratios; `weights` is the size of the files in the dtype that is loaded."""
    print("| loader | seconds | seconds, every weight read | peak memory (GB) | over the weights |")
    print("|---|---|---|---|---|")
    middle = {}
    for loader, runs in loads.items():
        seconds, touched = (statistics.median(getattr(run, name) for run in runs) for name in ("seconds", "touched"))
        peak = max(run.peak for run in runs)
        middle[loader] = Load(seconds, touched, peak)
        print(f"| {loader} | {seconds:.2f} | {touched:.2f} | {peak / 1e9:.2f} | {peak / weights:.3f} |")
    our, their, *_ = middle.values()
    print(
        f"\nours over transformers: seconds {our.seconds / their.seconds:.2f}, with every weight read "
        f"{our.touched / their.touched:.2f}, memory {our.peak / their.peak:.2f}"
    )
    verdict = "holds" if our.peak < DEMAND * weights else "does not hold"
    print(f"peak memory under {DEMAND:.2f} × the weights: {verdict} ({our.peak / weights:.3f})")


if __name__ == "__main__":
    main()
