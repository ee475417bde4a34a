"""Seconds from the command to its first step's line and to its end, with a cold and a warm compilation cache.

    python benchmarks/start.py                                  # this checkout's default run
    python benchmarks/start.py --against ../another-checkout    # two checkouts in turns, and their ratios
    python benchmarks/start.py --repeats 1 -- --train.steps 3   # a quick look; what follows -- goes to both commands

Each start is `python launch/train.py` in a process of its own with a run folder of its own. The sides take turns: each
with an empty cache folder (cold), then each again with what that start left there (warm); a checkout that keeps no
compiled programs has an empty folder both times. The first step's line is on the terminal when `metrics.jsonl` has its
first row. Processor seconds are of all threads, and of the grading processes too: they vary less on a machine that has
other work. With --programs each side starts once more, and jax's log counts what a cold start compiles.
"""

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parents[1]
POLL_SECONDS = 0.05


class Start(NamedTuple):
    """One start: seconds to the first row of metrics.jsonl and to the end, seconds of processors, and the final
    evaluation's text."""

    first: float
    whole: float
    processor: float
    result: str


def parse() -> argparse.Namespace:
    """The sides and how often each starts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="the other side")
    parser.add_argument("--repeats", type=int, default=1, help="cold and warm starts of each side")
    parser.add_argument("--programs", action="store_true", help="one more start of each side, which counts programs")
    parser.add_argument("--python", default=sys.executable, help="the interpreter of both sides")
    parser.add_argument("options", nargs="*", help="after --: options of both commands")
    return parser.parse_args()


def environment(checkout: Path, cache: Path) -> dict[str, str]:
    """The user's cache folder is `cache`; nothing else says where programs are kept."""
    ours = {name: value for name, value in os.environ.items() if "COMPILATION_CACHE" not in name}
    return {**ours, "XDG_CACHE_HOME": str(cache), "HOME": str(cache), "PYTHONPATH": str(checkout)}


def start(checkout: Path, cache: Path, shape: argparse.Namespace) -> Start:
    """Runs the command once. Raises CalledProcessError, with its output, where it fails."""
    with tempfile.TemporaryDirectory() as name, (Path(name) / "output.txt").open("w+", encoding="utf-8") as output:
        runs = Path(name) / "runs"
        command = [shape.python, "launch/train.py", "--run.dir", str(runs), "--run.name", "run", *shape.options]
        began, used, first = time.perf_counter(), processor_seconds(), None
        process = subprocess.Popen(
            command, cwd=checkout, env=environment(checkout, cache), stdout=output, stderr=subprocess.STDOUT
        )
        metrics = runs / "run" / "metrics.jsonl"
        while process.poll() is None:
            if first is None and metrics.is_file() and metrics.stat().st_size:
                first = time.perf_counter() - began
            time.sleep(POLL_SECONDS)
        whole = time.perf_counter() - began
        if process.returncode or first is None:
            output.seek(0)
            raise subprocess.CalledProcessError(process.returncode, command, output.read())
        return Start(first, whole, processor_seconds() - used, final_evaluation(runs / "run"))


def processor_seconds() -> float:
    """Of all processes that this one has started and that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def final_evaluation(run: Path) -> str:
    """The correct answers and lengths of the last held-out evaluation; empty without one."""
    steps = {int(re.findall(r"\d+", file.name)[0]): file for file in run.glob("evaluation_step*.json")}
    if not steps:
        return ""
    content = json.loads(steps[max(steps)].read_text(encoding="utf-8"))
    lengths = content["tokens"] if "tokens" in content else content["length"]  # its name before 0.2.0
    return json.dumps([content["correct"], lengths])


def count_programs(checkout: Path, shape: argparse.Namespace) -> int:
    """Programs that a cold start compiles, by jax's log."""
    with tempfile.TemporaryDirectory() as name:
        runs, cache = Path(name) / "runs", Path(name) / "cache"
        done = subprocess.run(
            [shape.python, "launch/train.py", "--run.dir", str(runs), *shape.options],
            cwd=checkout,
            env={**environment(checkout, cache), "JAX_LOG_COMPILES": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
        )
        return done.stdout.count("Finished XLA compilation of")


def main() -> None:
    """Both sides in turns, their medians, and the ratios."""
    shape = parse()
    sides = {"ours": HERE} | ({} if shape.against is None else {"other": shape.against.resolve()})
    starts: dict[tuple[str, str], list[Start]] = {}
    for turn in range(shape.repeats):
        with tempfile.TemporaryDirectory() as name:
            for kind in ("cold", "warm"):
                for side, checkout in list(sides.items())[:: 1 if turn % 2 == 0 else -1]:
                    (cache := Path(name) / side).mkdir(exist_ok=True)
                    taken = start(checkout, cache, shape)
                    starts.setdefault((side, kind), []).append(taken)
                    print(
                        f"{side} {kind}: first {taken.first:.1f} s, whole {taken.whole:.1f} s, "
                        f"processors {taken.processor:.1f} s",
                        file=sys.stderr,
                    )
    report(starts, list(sides))
    if shape.programs:
        for side, checkout in sides.items():
            print(f"programs of a cold start, {side}: {count_programs(checkout, shape)}")


def report(starts: dict[tuple[str, str], list[Start]], sides: list[str]) -> None:
    """A Markdown table of medians, best in brackets; ratios to the other side's cold start; whether results agree."""
    print(
        f"{os.cpu_count()} cores\n\n| start | s to the first step's line | s in all | processor s |\n|---|---|---|---|"
    )
    middle = {}
    for (side, kind), taken in starts.items():
        columns = [[getattr(one, name) for one in taken] for name in ("first", "whole", "processor")]
        middle[side, kind] = [statistics.median(column) for column in columns]
        cells = (f"{statistics.median(column):.1f} ({min(column):.1f})" for column in columns)
        print(f"| {side}, {kind} | {' | '.join(cells)} |")
    base = sides[-1], "cold"
    for key, figures in middle.items():
        if key != base:
            first, whole, processor = (one / other for one, other in zip(figures, middle[base], strict=True))
            ratios = f"first line {first:.2f}, in all {whole:.2f}, processors {processor:.2f}"
            print(f"\n{' '.join(key)} over {' '.join(base)}: {ratios}", end="")
    results = {one.result for taken in starts.values() for one in taken}
    print(f"\n\nfinal evaluations: {'the same in all starts' if len(results) == 1 else f'{len(results)} DIFFERENT'}")


if __name__ == "__main__":
    main()
