"""How often the 95% intervals contain the true value, on simulated samples: `python benchmarks/coverage.py`.

Each row samples new problems and answers `--repeats` times at the sizes of a benchmark. Probabilities of a correct
answer are Beta, lengths log-normal around their problem's, and a second policy shifts each problem's log-odds. The true
value is that of the population of problems. Prints the tables of docs/evaluation.md.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import special, stats

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this file's checkout, installed or not

from egrsd_jax.evaluate.intervals import percentile_interval, proportion, replicates

# problems, samples, and the Beta parameters of a problem's accuracy; the last two are the hardest
ACCURACY = {
    "30 × 4, 75%": (30, 4, 0.6, 0.2),
    "30 × 4, 62%": (30, 4, 0.5, 0.3),
    "30 × 4, 44%": (30, 4, 0.4, 0.5),
    "30 × 1, 50%": (30, 1, 1.0, 1.0),
    "30 × 16, 75%": (30, 16, 0.6, 0.2),
    "272 × 4, 33%": (272, 4, 0.25, 0.5),
    "500 × 4, 87%": (500, 4, 0.9, 0.13),
    "512 × 4, 70%": (512, 4, 2.0, 0.86),
    "1,319 × 4, 94%": (1319, 4, 1.2, 0.08),
    "30 × 4, 91%": (30, 4, 1.0, 0.1),
    "30 × 4, 5%": (30, 4, 0.1, 1.9),
}
# problems, samples, spread of the logarithm of a problem's mean length and of a sample around it
LENGTH = {
    "30 × 4, 0.3 / 0.4": (30, 4, 0.3, 0.4),
    "30 × 4, 0.5 / 0.4": (30, 4, 0.5, 0.4),
    "272 × 4, 0.8 / 0.5": (272, 4, 0.8, 0.5),
    "500 × 4, 0.7 / 0.4": (500, 4, 0.7, 0.4),
    "512 × 4, 0.1 / 0.2": (512, 4, 0.1, 0.2),
}
# as ACCURACY, with the mean and the spread of the second policy's log-odds above the first's
DIFFERENCE = {
    "30 × 4, 75%, no difference": (30, 4, 0.6, 0.2, 0.0, 0.5),
    "30 × 4, 75%, +0.5": (30, 4, 0.6, 0.2, 0.5, 0.5),
    "30 × 4, 44%, +0.5": (30, 4, 0.4, 0.5, 0.5, 1.0),
    "272 × 4, 33%, +0.3": (272, 4, 0.25, 0.5, 0.3, 0.5),
    "500 × 4, 87%, +0.3": (500, 4, 0.9, 0.13, 0.3, 0.5),
    "512 × 4, 70%, +0.2": (512, 4, 2.0, 0.86, 0.2, 0.3),
}
Interval = tuple[float, float]


def student(values_NK: np.ndarray) -> Interval:
    """Student's interval of problem means."""
    means_N = values_NK.mean(axis=1)
    reach = stats.t.ppf(0.975, len(means_N) - 1) * stats.sem(means_N)
    return means_N.mean() - reach, means_N.mean() + reach


def plain_bootstrap(source: np.random.Generator, values_NK: np.ndarray, draws: int, *, both: bool) -> Interval:
    """Percentiles of means of resampled problems, with answers within them resampled too if `both`."""
    problems, samples = values_NK.shape
    resampled = source.integers(0, problems, (draws, problems))
    if not both:
        return percentile_interval(values_NK.mean(axis=1)[resampled].mean(axis=1))
    which = source.integers(0, samples, (draws, problems, samples))
    return percentile_interval(values_NK[resampled[..., None], which].mean(axis=(1, 2)))


def ours(arms: list[tuple[float, np.ndarray]], seed: int, draws: int) -> Interval:
    """The rescaled two-level bootstrap of one channel."""
    channels = [(sign, values_NK[:, :, None].astype(float)) for sign, values_NK in arms]
    return percentile_interval(replicates(channels, seed=seed, draws=draws)[:, 0])


def row(label: str, repeats: int, truth: float, intervals: Callable[[int], dict[str, Interval]]) -> str:
    """One row of a table: how often each interval contains the true value, and misses of ours on either side."""
    covered: dict[str, list[int]] = {}
    under = over = 0
    for repeat in range(repeats):
        for kind, (low, high) in intervals(repeat).items():
            covered.setdefault(kind, []).append(low <= truth <= high)
            if kind == "ours":
                under, over = under + (truth < low), over + (truth > high)
    shares = " | ".join(f"{100 * np.mean(values):.1f}" for values in covered.values())
    return f"| {label} | {shares} | {100 * under / repeats:.1f} / {100 * over / repeats:.1f} |"


def accuracy_rows(repeats: int, draws: int) -> None:
    """The score interval of an accuracy."""
    print("| problems × samples, accuracy | ours (score) | Student | bootstrap of problems | of both levels | missed |")
    print("|---|---|---|---|---|---|")
    for label, (problems, samples, a, b) in ACCURACY.items():
        source = np.random.default_rng(0)

        def intervals(_: int) -> dict[str, Interval]:
            correct = source.random((problems, samples)) < source.beta(a, b, (problems, 1))  # noqa: B023
            score = proportion(correct)
            return {
                "ours": (score.low, score.high),
                "Student": student(correct),
                "problems": plain_bootstrap(source, correct, draws, both=False),  # noqa: B023
                "both": plain_bootstrap(source, correct, draws, both=True),  # noqa: B023
            }

        print(row(label, repeats, a / (a + b), intervals), flush=True)


def length_rows(repeats: int, draws: int) -> None:
    """The rescaled bootstrap of a mean length."""
    print("| problems × samples, spread of log length between / within | ours | Student | of both levels | missed |")
    print("|---|---|---|---|---|")
    for label, (problems, samples, between, within) in LENGTH.items():
        source = np.random.default_rng(1)

        def intervals(repeat: int) -> dict[str, Interval]:
            normal = source.standard_normal  # noqa: B023
            tokens = np.exp(between * normal((problems, 1)) + within * normal((problems, samples)))  # noqa: B023
            return {
                "ours": ours([(1.0, tokens)], repeat, draws),
                "Student": student(tokens),
                "both": plain_bootstrap(source, tokens, draws, both=True),  # noqa: B023
            }

        print(row(label, repeats, float(np.exp((between**2 + within**2) / 2)), intervals), flush=True)


def difference_rows(repeats: int, draws: int) -> None:
    """The rescaled bootstrap of a paired difference of accuracies."""
    print("| problems × samples, accuracy, change of log-odds | ours | Student | missed |")
    print("|---|---|---|---|")
    for label, (problems, samples, a, b, shift, spread) in DIFFERENCE.items():
        source = np.random.default_rng(2)

        def chances(count: int) -> tuple[np.ndarray, np.ndarray]:
            before = source.beta(a, b, (count, 1)).clip(1e-9, 1 - 1e-9)  # noqa: B023
            change = shift + spread * source.standard_normal((count, 1))  # noqa: B023
            return before, special.expit(special.logit(before) + change)

        many = chances(2_000_000)

        def intervals(repeat: int) -> dict[str, Interval]:
            before, after = (source.random((problems, samples)) < chance for chance in chances(problems))  # noqa: B023
            paired = ours([(-1.0, before), (1.0, after)], repeat, draws)
            return {"ours": paired, "Student": student(after.astype(float) - before)}

        print(row(label, repeats, float(many[1].mean() - many[0].mean()), intervals), flush=True)


def main() -> None:
    """Prints the three tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=2000, help="a coverage of 95%% is then known to 0.5 points")
    parser.add_argument("--draws", type=int, default=1000, help="of every bootstrap")
    arguments = parser.parse_args()
    for rows in (accuracy_rows, length_rows, difference_rows):
        rows(arguments.repeats, arguments.draws)
        print()


if __name__ == "__main__":
    main()
