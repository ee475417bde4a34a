"""The numbers that the paper prints (arXiv 2605.13255), shown next to ours where model and regime are the same."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from egrsd_jax.config import Config, binding
from egrsd_jax.evaluate.benchmarks import BENCHMARKS, PAPERS, Protocol
from egrsd_jax.report.entries import Entry
from egrsd_jax.runs.files import differences

# More samples estimate the same accuracy better, and the wording of the paper's prompt is not published.
NOT_BINDING = ("samples", "prompt")


@dataclass(frozen=True)
class Published:
    """A printed row: accuracy in percent by benchmark, and the two means, None where they are not printed. An
    `approximate` length is off a plot. `fields` are the settings of a row of a sweep."""

    model: str
    method: str
    accuracy: dict[str, float]
    mean_accuracy: float | None
    length: float | None
    approximate: bool = False
    fields: dict[str, Any] = field(default_factory=dict)


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


# Of these two the means alone are printed.
PUBLISHED_MEANS = [
    Published(model, method, {}, mean, length)
    for model, rows in {
        "AceReason-Nemotron-7B": {
            "no training": (60.63, 8382), "SFT": (59.60, 8360), "GRPO": (60.52, 8218), "OPSD": (60.13, 8259),
            "CRISP": (60.75, 7908), "CL-EGRSD": (61.45, 7943),
        },
        "Olmo-3-1025-7B": {
            "no training": (25.49, 7203), "SFT": (26.52, 7845), "GRPO": (25.95, 7585), "OPSD": (25.25, 7311),
            "CRISP": (23.67, 6432), "CL-EGRSD": (26.72, 7439),
        },
    }.items()
    for method, (mean, length) in rows.items()
]  # fmt: skip

# Rows of gamma .3, .5, 1; columns of window 0, 3, 5, 7.
_GAMMA_WINDOW = {
    "aime24": "76.67 75.00 74.72 75.28 / 75.00 73.61 76.11 76.11 / 76.39 74.17 77.22 74.44",
    "aime25": "67.50 66.67 69.17 70.83 / 67.50 65.83 65.00 68.33 / 66.67 65.83 70.00 70.83",
    "hmmt25": "41.67 50.00 45.00 45.83 / 43.33 42.50 47.50 40.00 / 47.50 37.50 52.50 43.33",
    "minerva": "35.02 34.74 35.11 34.38 / 34.56 35.29 34.38 35.20 / 34.56 34.56 34.83 35.39",
}
PUBLISHED_GAMMA_WINDOW = [
    Published(
        "Qwen3-8B",
        f"gamma {gamma}, window {window}",
        {name: float(text.split(" / ")[row].split()[column]) for name, text in _GAMMA_WINDOW.items()},
        None,
        None,
        fields={"method.gamma": gamma, "method.window": window},
    )
    for row, gamma in enumerate((0.3, 0.5, 1.0))
    for column, window in enumerate((0, 3, 5, 7))
]
PUBLISHED_TEACHERS = [
    Published("Qwen3-8B", f"EGRSD, teacher {schedule}", {}, mean, None, fields=fields)
    for schedule, mean, fields in (
        ("frozen", 68.23, {"method.teacher": "frozen"}),
        ("EMA 0.99", 67.83, {"method.teacher": "ema", "method.teacher_decay": 0.99}),
        ("copied every 20 steps", 67.12, {"method.teacher": "copy", "method.teacher_every": 20}),
        ("copied every 50 steps", 66.64, {"method.teacher": "copy", "method.teacher_every": 50}),
    )
]
EVERY_PUBLISHED = [*PUBLISHED, *PUBLISHED_MEANS, *PUBLISHED_GAMMA_WINDOW, *PUBLISHED_TEACHERS]
PAPERS_DATA = "siyanzhao/Openthoughts_math_30k_opsd"

# The mechanism study has gamma .3 and window 5, and of the models with printed results only this one is trained with
# that pair.
MECHANISM_MODEL = "Qwen3-8B"
MECHANISM_SHARES = {"lock": 0.500, "mid": 0.270, "pivot": 0.209, "fork": 0.021}
MECHANISM_RESTORED = {"lock": "<0.001", "mid": "0.040", "pivot": "0.111", "fork": "0.053"}
MECHANISM_DELTAS = {1: 0.0024, 10: 0.329}  # mean |delta| of the first and the last entropy decile, nats


def comparable_rows(entries: list[Entry]) -> tuple[list[Published], list[str]]:
    """The printed rows of the models that were evaluated as the paper does, and why others have none."""
    rows = [*PUBLISHED, *PUBLISHED_MEANS]
    same: dict[str, None] = {}
    notes = []
    for entry in entries:
        name = Path(entry.base).name
        if name not in {row.model for row in rows}:
            continue
        if reason := other_regime(entry):
            notes.append(f"The paper's results for {name} are not compared with {entry.label}: {reason}.")
        else:
            same[name] = None
    return [row for row in rows if row.model in same], notes


def other_training(config: Config) -> str | None:
    """The first way in which a run was not trained as the paper's; None where it was. The fields' defaults are the
    paper's settings; method and model are what is compared, and the prompts' wording is not published."""
    if config.data.path != PAPERS_DATA:
        return f"it was trained on {config.data.path}, and the paper's on {PAPERS_DATA}"
    if config.train.steps != Config().train.steps:
        return f"it was trained for {config.train.steps} steps, and the paper's for {Config().train.steps}"
    papers, ours = (binding(asdict(settings)) for settings in (Config(method=config.method), config))
    for section in ("lora", "rollout", "reward", "train"):
        if lines := differences(papers[section], ours[section], section):
            return lines[0].replace(" was ", " of the paper is ").replace(" and is ", " and its own ")
    return None


def other_regime(entry: Entry) -> str | None:
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
