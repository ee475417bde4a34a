"""Seconds of a training step of two checkouts, by what their runs log: a whole run's rollout and update.

    python benchmarks/run_step.py --against ../another-checkout -- --model.path FOLDER --data.path FILE
    python benchmarks/run_step.py --against . --other=--model.dtype=bfloat16 -- --config words_egrsd   # two settings

What follows -- goes to both commands, `--ours=OPTION` and `--other=OPTION` to one of them, as often as there are any.
Each run is `python launch/train.py` in a process of its own, without an evaluation; the sides take turns. The first
step of a run compiles and is left out. The losses of the first step are printed: where they differ, the sides drew
other completions or do other work. The sampler's gap is |log-probability when sampled - in the update|, nats a token.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
FOR_BOTH = ("--evaluation.every", "0", "--evaluation.problems", "2", "--train.checkpoint_every", "1000")


def parse() -> argparse.Namespace:
    """The sides, and how often and how long each runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", required=True, help="the other side")
    parser.add_argument("--ours", action="append", default=[], metavar="OPTION", help="of this checkout alone")
    parser.add_argument("--other", action="append", default=[], metavar="OPTION", help="of the other side alone")
    parser.add_argument("--repeats", type=int, default=1, help="runs of each side")
    parser.add_argument("--steps", type=int, default=4, help="steps of a run; the first is left out")
    parser.add_argument("options", nargs="*", help="after --: options of both commands")
    return parser.parse_args()


def rows(checkout: Path, options: list[str], steps: int) -> list[dict]:
    """What one run logs at each step. Ends the program with the run's output where it fails."""
    with tempfile.TemporaryDirectory() as name:
        own = ["--run.dir", name, "--run.name", "run", "--train.steps", str(steps)]
        command = [sys.executable, "launch/train.py", *options, *FOR_BOTH, *own]
        environment = {**os.environ, "PYTHONPATH": str(checkout)}
        done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{' '.join(command)} in {checkout}:\n{done.stdout}{done.stderr}")
        return [json.loads(line) for line in (Path(name) / "run/metrics.jsonl").read_text().splitlines()]


def main() -> None:
    """Both sides in turns, a table of medians, and the ratio."""
    shape = parse()
    sides = {"ours": (HERE, shape.ours), "other": (shape.against.resolve(), shape.other)}
    logged: dict[str, list[list[dict]]] = {side: [] for side in sides}
    for turn in range(shape.repeats):
        for side in list(sides)[:: 1 if turn % 2 == 0 else -1]:
            checkout, own = sides[side]
            logged[side].append(rows(checkout, [*shape.options, *own], shape.steps))
            print(f"{side}: run {turn + 1} of {shape.repeats} done", file=sys.stderr)
    print("| | rollout s | update s | step s | first loss | sampler's gap, mean |\n|---|---|---|---|---|---|")
    steps = {}
    for side, runs in logged.items():
        later = [row for run in runs for row in run[1:]]
        columns = [[row[name] for row in later] for name in ("seconds_rollout", "seconds_update")]
        columns.append([sum(parts) for parts in zip(*columns, strict=True)])
        middle = [statistics.median(column) for column in columns]
        steps[side] = middle[-1]
        first = runs[0][0]
        gap = first.get("sampler_logp_gap_mean", float("nan"))
        print(f"| {side} | {' | '.join(f'{value:.1f}' for value in middle)} | {first['loss']:.6f} | {gap:.1e} |")
    print(
        f"\na step of ours takes {steps['ours'] / steps['other']:.2f} of the other's time; {os.cpu_count()} processors"
    )


if __name__ == "__main__":
    main()
