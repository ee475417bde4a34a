"""Grade drawn answers for some minutes, and look for a verdict that is wrong, late or missing: `--seconds 600`.

Pairs come from tests/verify/pairs.py, kind after kind: an answer and itself, another spelling of its value, another
value, broken LaTeX, nests, texts of up to 200,000 characters, anything. Each is graded alone by a pool that is called
from a thread, with a worker that is ready, and is timed from outside. Prints how many of each kind came out how, why
pairs could not be graded, the slowest, how many workers were used up, and of every failure its smallest example; ends
with status 1 where there is one. Times are of this machine: where others work on it too, the deadline bites more often.
"""

import argparse
import itertools
import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this file's checkout

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

from egrsd_jax.verify.extract import extract_answer
from egrsd_jax.verify.pool import DEADLINE, GradingPool
from egrsd_jax.verify.process import GRACE
from tests.verify.pairs import PAIRS, Pair, completions, last_box, violation

EXAMPLES = 50  # of one kind before the next has its turn
MAX_FAILURES = 20  # after which it stops
MARGIN = 2 * GRACE + 1.0  # seconds over the deadline: a worker is ended, by force if it must be
EASY = [("x", "y+1-1")]  # for a worker to start with


class Fuzzer:
    """Grades what it is given and keeps count; AssertionError where something came out as it must not."""

    def __init__(self, pool: GradingPool, deadline: float) -> None:
        self.pool, self.deadline = pool, deadline
        self.thread = ThreadPoolExecutor(1)
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.ungradable: Counter[str] = Counter()
        self.slowest: list[tuple[float, str, str]] = []
        self.workers: set[int] = set()
        self.last: object = None

    def grade(self, pair: Pair) -> None:
        """Grades one pair."""
        self.last = pair
        if not self.pool.worker_pids:
            self.pool.grade_many(EASY)
        start = time.perf_counter()
        grading = self.thread.submit(self.pool.grade_many, [(pair.prediction, pair.answer)])
        assert (error := grading.exception()) is None, f"raised {error!r}"
        [verdict] = grading.result()
        seconds = time.perf_counter() - start
        self.workers.update(self.pool.worker_pids)
        self.outcomes[pair.kind, str(verdict.outcome)] += 1
        if verdict.ungradable:
            self.ungradable[why(verdict.reason)] += 1
        self.slowest = sorted([*self.slowest, (seconds, verdict.reason, short(pair))], reverse=True)[:5]
        assert (problem := violation(pair, verdict)) is None, problem
        assert seconds < self.deadline + MARGIN, f"took {seconds:.1f} s"

    def extract(self, completion: str) -> None:
        """Looks for the box of one completion."""
        self.last = completion
        answer = extract_answer(completion)
        self.outcomes["completion", "without a box" if answer is None else "with a box"] += 1
        assert answer == last_box(completion), f"extracted {answer!r}"


def why(reason: str) -> str:
    """The reason without what is of one pair."""
    return re.sub(r"^the (prediction|gold answer) |(?<=Error):.*|(?<=has )[\d,]+ ", "", reason, flags=re.DOTALL)


def short(what: object) -> str:
    """Its spelling in Python, the middle left out where it is long."""
    text = repr(what)
    return text if len(text) <= 300 else f"{text[:200]} ... {text[-100:]} ({len(text):,} characters)"


def fuzz(strategy: SearchStrategy[Any], check: Callable[[Any], None], number: int) -> None:
    """Checks EXAMPLES examples; AssertionError after the smallest one that hypothesis finds to fail."""

    @seed(number)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
        report_multiple_bugs=False,
    )
    @given(strategy)
    def run(drawn: Any) -> None:
        check(drawn)

    run()


def main() -> int:
    """Fuzzes, prints what happened, and returns 1 where something failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--deadline", type=float, default=DEADLINE, help="seconds for one pair")
    arguments = parser.parse_args()
    start, failures = time.monotonic(), []
    with GradingPool(workers=1, deadline=arguments.deadline) as pool:
        fuzzer = Fuzzer(pool, arguments.deadline)
        kinds = [(strategy, fuzzer.grade) for strategy in PAIRS.values()] + [(completions, fuzzer.extract)]
        for turn in itertools.count():
            if time.monotonic() - start > arguments.seconds or len(failures) == MAX_FAILURES:
                break
            try:
                fuzz(*kinds[turn % len(kinds)], arguments.seed + turn)
            except AssertionError as error:
                failures.append(f"{error}\n    {short(fuzzer.last)}")
                print("FAILED", failures[-1], flush=True)
    seconds = time.monotonic() - start
    print(f"{fuzzer.outcomes.total():,} examples in {seconds:.0f} s, {len(failures)} failed")
    for (kind, outcome), count in sorted(fuzzer.outcomes.items()):
        print(f"  {kind:<10} {outcome:<13} {count:>7,}")
    print(f"could not be graded: {fuzzer.ungradable.total():,}")
    for reason, count in fuzzer.ungradable.most_common():
        print(f"  {count:>7,} {reason}")
    print(f"workers used: {len(fuzzer.workers)}\nslowest:")
    for took, reason, pair in fuzzer.slowest:
        print(f"  {took:6.2f} s, {reason}: {pair}")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
