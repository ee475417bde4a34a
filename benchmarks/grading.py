r"""What grading costs and what it decides, next to another version of the package and to bare math-verify.

    python benchmarks/grading.py --data DATA --other OTHER_CHECKOUT

Pairs are the golds of the six sets against themselves, and against mutants of of_math_verify with one token changed
(`tests/verify/mutations.py`). Times are of one pair each, in the calling process, as a worker takes them: the median of
all, and the 95th percentile of those that need algebra. Each version runs in a process of its own, one after the other.
The table counts how this version and math-verify decide the same pairs; `--show N` prints N pairs of each field in
which they disagree. A pair that takes over five seconds counts as ungradable.
"""

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]  # the checkout that this file is in
DEADLINE = 5.0  # seconds for a pair
Pair = tuple[str, str]


class Late(Exception):
    """A pair took too long."""


def ours(root: str) -> Callable[[str, str], tuple[bool | None, bool]]:
    """A checkout's verdict on a pair, None where it has none, and whether it took algebra."""
    sys.path.insert(0, root)
    from egrsd_jax.verify.grade import refusal, settle, work_out

    def decide(prediction: str, answer: str) -> tuple[bool | None, bool]:
        if (verdict := settle(prediction, answer)) is not None:
            return verdict, False
        if refusal(prediction, answer):
            return None, False
        try:
            return work_out(prediction, answer), True
        except Exception:
            return None, True

    decide(r"\sqrt{8}", r"2\sqrt{2}")  # imports are no part of a pair
    return decide


def math_verify() -> Callable[[str, str], tuple[bool | None, bool]]:
    """What math-verify says about the same two texts between dollar signs, by its defaults."""
    import logging

    from math_verify import parse, verify

    logging.disable(logging.ERROR)

    def decide(prediction: str, answer: str) -> tuple[bool | None, bool]:
        no_limit: Any = None  # as math-verify documents it; its annotation says int
        gold, predicted = (parse(f"${text}$", parsing_timeout=no_limit) for text in (answer, prediction))
        return bool(verify(gold, predicted, timeout_seconds=None)), True

    return decide


def measured(decide: Callable[[str, str], tuple[bool | None, bool]], pairs: list[Pair]) -> list[Any]:
    """Verdict, whether by algebra, and milliseconds of every pair."""

    def ring(*_: object) -> None:
        raise Late

    signal.signal(signal.SIGALRM, ring)
    rows = []
    for prediction, answer in pairs:
        start = time.perf_counter()
        signal.setitimer(signal.ITIMER_REAL, DEADLINE)
        try:
            verdict, by_algebra = decide(prediction, answer)
        except Exception:
            verdict, by_algebra = None, True
        signal.setitimer(signal.ITIMER_REAL, 0)
        rows.append((verdict, by_algebra, 1e3 * (time.perf_counter() - start)))
    return rows


def in_a_process(side: str, pairs: list[Pair]) -> list[Any]:
    """`measured` for a checkout or for math-verify, in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, __file__, "--side", side],
        input=json.dumps(pairs),
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": ""},
    )
    return json.loads(done.stdout.splitlines()[-1])


def all_pairs(data: Path, count: int) -> tuple[list[Pair], list[Pair]]:
    """Golds against themselves, and a random `count` of their mutants."""
    sys.path.insert(0, str(ROOT))
    from tests.verify.mutations import mutants
    from tests.verify.test_grade import golds

    texts = list(dict.fromkeys(str(gold) for _, gold in golds(data)))
    changed = [(mutant, gold) for gold in texts for mutant in mutants(gold)]
    return [(gold, gold) for gold in texts], random.Random(0).sample(changed, min(count, len(changed)))


def cost(rows: list[Any]) -> str:
    """Median of all, then median, 95th percentile and maximum of those by algebra, in milliseconds."""
    every = [took for *_, took in rows]
    algebra = sorted(took for _, by_algebra, took in rows if by_algebra) or [0.0]
    late = algebra[min(len(algebra) - 1, int(0.95 * len(algebra)))]
    return (
        f"median {statistics.median(every):.4f} ms; {len(algebra):,} by algebra: median "
        f"{statistics.median(algebra):.2f}, 95% {late:.1f}, largest {algebra[-1]:.0f} ms"
    )


def main() -> None:
    """Prints costs and the table of agreement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the folder of the six sets")
    parser.add_argument("--other", help="a checkout of another version to compare cost with")
    parser.add_argument("--mutants", type=int, default=3_000)
    parser.add_argument("--show", type=int, default=0)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        decide = math_verify() if arguments.side == "math-verify" else ours(arguments.side)
        print(json.dumps(measured(decide, json.loads(sys.stdin.read()))))
        return
    same, changed = all_pairs(arguments.data, arguments.mutants)
    sides = {"this version": str(ROOT)} | ({"other version": arguments.other} if arguments.other else {})
    list_of_accepted = (ROOT / "tests/verify/accepted_mutants.jsonl").read_text().splitlines()
    argued = {(row["mutant"], row["gold"]) for row in map(json.loads, list_of_accepted)}
    rows = {}
    for name, side in sides.items():
        rows[name] = in_a_process(side, same + changed)
        of_golds, of_mutants = rows[name][: len(same)], rows[name][len(same) :]
        accepted = [pair for pair, (verdict, *_) in zip(changed, of_mutants, strict=True) if verdict]
        new = [pair for pair in accepted if pair not in argued]
        print(
            f"{name}: accepts {len(accepted):,} of {len(changed):,} mutants, {len(new):,} of them without an argument"
        )
        for prediction, answer in new[: arguments.show]:
            print(f"      {prediction}  |  {answer}")
        print(f"  golds: {cost(of_golds)}\n  mutants: {cost(of_mutants)}", flush=True)
    of_math_verify = in_a_process("math-verify", same + changed)
    print(f"math-verify\n  mutants: {cost(of_math_verify[len(same) :])}")
    examples = defaultdict(list)
    table: Counter[tuple[str, str]] = Counter()
    words = {True: "correct", False: "wrong", None: "ungradable"}
    for pair, (verdict, *_), (other_verdict, *_) in zip(
        same + changed, rows["this version"], of_math_verify, strict=True
    ):
        field = words[verdict], words[other_verdict]
        table[field] += 1
        examples[field].append(pair)
    print("this version | math-verify | pairs")
    for (verdict, other_word), number in sorted(table.items()):
        print(f"  {verdict:<10} | {other_word:<10} | {number:,}")
        if verdict != other_word:
            for prediction, answer in random.Random(1).sample(
                examples[verdict, other_word], min(arguments.show, number)
            ):
                print(f"      {prediction}  |  {answer}")


if __name__ == "__main__":
    main()
