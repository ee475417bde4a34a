"""The figures that the paper prints (arXiv 2605.13255), beside which ours stand where model and regime are the same."""

from dataclasses import asdict, dataclass
from pathlib import Path

from egrsd_jax.evaluate.benchmarks import BENCHMARKS, PAPERS, Protocol
from egrsd_jax.report.entries import Entry

# More samples estimate the same figure better, and the wording of the paper's prompt is not published.
NOT_BINDING = ("samples", "prompt")


@dataclass(frozen=True)
class Published:
    """A printed row: accuracy in percent by benchmark, and the two means. An `approximate` length is off a plot."""

    model: str
    method: str
    accuracy: dict[str, float]
    mean_accuracy: float
    length: float
    approximate: bool = False


def _rows(model: str, text: str) -> list[Published]:
    """A line is a method, the accuracy on the six sets, Avg, and AvgLen, with ~ where it was read off a plot."""
    rows = []
    for line in text.strip().splitlines():
        method, *numbers, mean, length = (cell.strip() for cell in line.split("|"))
        accuracy: dict[str, float] = dict(zip(PAPERS, map(float, numbers), strict=True))
        rows.append(Published(model, method, accuracy, float(mean), float(length.strip("~")), length.startswith("~")))
    return rows


PUBLISHED = _rows(
    "Qwen3-4B",
    """
    no training | 73.02 | 65.00 | 41.56 | 86.93 | 33.09 | 93.96 | 65.59 | 11008
    SFT         | 58.61 | 42.50 | 30.83 | 83.65 | 26.47 | 87.19 | 54.88 | 9070
    GRPO        | 73.06 | 63.33 | 45.00 | 87.15 | 32.90 | 93.95 | 65.90 | 11809
    OPSD        | 74.48 | 67.92 | 43.12 | 87.02 | 33.23 | 93.89 | 66.61 | 11787
    CRISP       | 74.06 | 63.33 | 40.94 | 86.94 | 32.84 | 94.01 | 65.35 | 11157
    EGRSD       | 77.92 | 68.75 | 42.92 | 87.17 | 32.81 | 93.88 | 67.24 | 11064
    CL-EGRSD    | 77.08 | 67.08 | 44.58 | 86.92 | 32.90 | 94.26 | 67.14 | 11085
    """,
) + _rows(
    "Qwen3-8B",
    """
    no training | 75.11 | 67.71 | 45.10 | 86.92 | 34.32 | 94.53 | 67.28 | ~11370
    SFT         | 73.61 | 66.67 | 46.67 | 86.60 | 33.92 | 94.45 | 66.99 | ~12620
    GRPO        | 75.28 | 71.67 | 41.67 | 86.60 | 34.65 | 94.58 | 67.41 | ~12275
    OPSD        | 73.75 | 68.75 | 45.84 | 87.11 | 34.94 | 94.68 | 67.51 | 12097
    CRISP       | 76.04 | 67.29 | 42.92 | 86.93 | 34.47 | 94.57 | 67.04 | ~11385
    EGRSD       | 76.67 | 70.00 | 45.42 | 87.20 | 35.48 | 94.61 | 68.23 | 11836
    CL-EGRSD    | 77.22 | 70.00 | 52.50 | 86.95 | 34.83 | 94.43 | 69.32 | 12232
    """,
)


def published_beside(entries: list[Entry]) -> tuple[list[Published], list[str]]:
    """The printed rows of the models that were evaluated as the paper does, and why others have none beside them."""
    same: dict[str, None] = {}
    notes = []
    for entry in entries:
        name = Path(entry.base).name
        if name not in {row.model for row in PUBLISHED}:
            continue
        if reason := _other_regime(entry):
            notes.append(f"The paper's figures for {name} are not beside {entry.label}: {reason}.")
        else:
            same[name] = None
    return [row for row in PUBLISHED if row.model in same], notes


def _other_regime(entry: Entry) -> str | None:
    """The first way in which an entry was not evaluated as the paper does; None where it was."""
    papers = asdict(Protocol())
    names = [name for name in entry.regime.get("benchmarks", {}) if name in PAPERS]
    if not names:
        return "none of its benchmarks was evaluated"
    for name in names:
        asked = entry.regime["benchmarks"][name]
        if asked["free"]["problems"] != BENCHMARKS[name].rows:
            return f"{name} has {asked['free']['problems']} of its {BENCHMARKS[name].rows} problems"
        for setting, value in papers.items():
            if setting not in NOT_BINDING and asked[setting] != value:
                return f"{name} was sampled with {setting} {asked[setting]}, and the paper's is {value}"
    return None
