"""What the fingerprint of a model's weights costs beyond loading them, and what a run's locks and checksums cost.

    python benchmarks/fingerprints.py                   # a generated Qwen3 of 2 GB, in the page cache
    python benchmarks/fingerprints.py --gigabytes 0.5 --repeats 3
    python benchmarks/fingerprints.py --run runs/arithmetic-egrsd-seed0    # per step and checkpoint, next to its time

Loads alone, loads during which the fingerprint is taken as a run takes it, loads after which it is taken, plain reads,
the fingerprint alone, and the one by SHA-256 that earlier versions took take turns, each in a process of its own.
Seconds are medians, and per gigabyte; the last lines say what that is for 16 GB.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from sys import path

path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.load import make, plain
from egrsd_jax.command_line import load_config
from egrsd_jax.model.hf.checkpoint_files import weight_files
from egrsd_jax.runs import checksums, fingerprint
from egrsd_jax.runs.layout import CONFIG
from egrsd_jax.runs.lock import check_held, held
from egrsd_jax.runs.restore import base_folder
from egrsd_jax.runs.rows import append_rows, write_checked

LARGE = 16  # gigabytes
WAYS = ("read", "fingerprint", "by SHA-256", "load", "load with", "load, then")


def seconds(way: str, folder: Path) -> float:
    """One measurement, in a process of its own."""
    if way == "read":
        return plain(folder, "").seconds
    import jax

    from egrsd_jax.model.hf.hub import load_pretrained
    from egrsd_jax.model.sharding import make_mesh

    mesh = make_mesh(fsdp=8)
    jax.block_until_ready(jax.device_put(0.0))
    began = time.perf_counter()
    if way in ("fingerprint", "by SHA-256"):
        fingerprint.of_files(weight_files(folder), quick=way == "fingerprint")
        return time.perf_counter() - began
    result = fingerprint.begin_of_weights(folder) if way == "load with" else None
    jax.block_until_ready(load_pretrained(folder, mesh=mesh)[1])
    if way == "load, then":
        fingerprint.of_weights(folder)
    if result is not None:
        result()
    return time.perf_counter() - began


def of_weights(size: float, repeats: int) -> None:
    """The table of fingerprints and loads."""
    with tempfile.TemporaryDirectory() as place:
        folder, spawn = Path(place), get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=spawn) as pool:
            print(pool.submit(make, folder, size * 1e9).result())
        gigabytes = sum(file.stat().st_size for file in folder.glob("*.safetensors")) / 1e9
        measured: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(repeats):
            for way in WAYS:
                with ProcessPoolExecutor(1, mp_context=spawn) as pool:
                    measured[way].append(pool.submit(seconds, way, folder).result())
    medians = {way: statistics.median(values) for way, values in measured.items()}
    print(f"{gigabytes:.2f} GB, {repeats} times each\n\n| | s | s per GB |\n|---|---|---|")
    for way, median in medians.items():
        print(f"| {way} | {median:.2f} | {median / gigabytes:.3f} |")
    print(f"by SHA-256 it takes {medians['by SHA-256'] / medians['fingerprint']:.1f} times as long")
    for way in ("load with", "load, then"):
        more = (medians[way] - medians["load"]) / gigabytes * LARGE
        print(f"{way}: {more:.1f} s for {LARGE} GB beyond loading them")


def of_run(run: Path) -> None:
    """What locking, checksums and fingerprints take of a finished run, done again with its own files."""
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    samples = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    evaluations = [json.loads(file.read_bytes()) for file in run.glob("evaluation_step*.json")]
    steps = checksums.checkpoint_steps(run / "checkpoints")
    whole = sum(row["seconds_rollout"] + row["seconds_update"] for row in metrics)
    spent: dict[str, float] = {}

    def take(what: str, work: Callable[[], object], times: int = 1) -> None:
        began = time.perf_counter()
        for _ in range(times):
            work()
        spent[what] = time.perf_counter() - began

    def add(file: Path, rows: list[dict]) -> None:
        for row in rows:
            append_rows(file, [row])

    with tempfile.TemporaryDirectory() as place:
        take("rows without checksums", lambda: _plainly(Path(place) / "plain.jsonl", metrics + samples))
        with held(Path(place)):
            take("checks of the lock", check_held, len(metrics))
            take("rows with checksums", lambda: add(Path(place) / "rows.jsonl", metrics + samples))
            take("evaluations", lambda: [write_checked(Path(place) / "e.json", content) for content in evaluations])
        take("locking and releasing", lambda: _lock(Path(place)))
    take("fingerprint of weights", lambda: fingerprint.of_weights(base_folder(run, load_config(run / CONFIG))))
    take("checkpoints read back", lambda: [checksums.damage(run / "checkpoints", step) for step in steps])
    for what, value in spent.items():
        print(f"{what:24} {value:8.4f} s")
    total = sum(spent.values()) - 2 * spent["rows without checksums"]  # once in the sum, once what they replace
    print(f"{total:.3f} s of the {whole:.0f} s of {len(metrics)} steps: {100 * total / whole:.3f}%")


def _lock(folder: Path) -> None:
    with held(folder):
        pass


def _plainly(file: Path, rows: list[dict]) -> None:
    for row in rows:
        with file.open("a") as stream:
            stream.write(json.dumps(row) + "\n")


def main() -> None:
    """Arguments to one of the two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--run", type=Path, help="a finished run, whose files are written and checked again elsewhere")
    given = parser.parse_args()
    if given.run is not None:
        of_run(given.run)
    else:
        of_weights(given.gigabytes, given.repeats)


if __name__ == "__main__":
    main()
