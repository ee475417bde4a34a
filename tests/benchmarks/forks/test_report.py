"""The report on the task with forks: measures and paired differences by hand, from folders as runs leave them."""

import json
import math
import random
from pathlib import Path

import numpy as np
import pytest

from benchmarks.forks.measures import MEASURES, fork_tables, paired, read_held_out, references, token_figures
from benchmarks.forks.plots import draw_entropies, draw_measures
from egrsd_jax.ablate.results import Arm, GridResults, GridRun
from egrsd_jax.data.tasks.orders import orders_problems, planned_completion
from egrsd_jax.data.tokenizer import load_tokenizer
from egrsd_jax.evaluate.samples import RESULTS, EvaluationFolder, Sample
from egrsd_jax.evaluate.scores import Scores
from egrsd_jax.model.hf.hub import BUILT_IN
from egrsd_jax.runs.layout import benchmarks_folder

PROBLEMS = orders_problems(3, seed=0, held_out=True)
SAMPLES = 4


def completion(problem, seed: int, *, recheck: float) -> str:
    text = planned_completion(problem, random.Random(seed), recheck=recheck, privileged=False)
    return text.removesuffix("<|im_end|>")


def write_evaluation(folder: Path, *, recheck: float, seed: int = 0) -> None:
    """Four completions of each of three problems, of which the last is cut off and wrong."""
    kept = EvaluationFolder(folder)
    folder.mkdir(parents=True)
    kept.write_problems("orders", PROBLEMS)
    samples, grades = [], []
    for problem in PROBLEMS:
        for number in range(SAMPLES):
            text, ends = completion(problem, seed + number % 2, recheck=recheck), number < SAMPLES - 1
            samples.append(Sample(problem.id, number, 0, len(text.split()), ends, 0.0, text))
            grades.append({"problem": problem.id, "sample": number, "outcome": "right" if ends else "wrong"})
    kept.append("orders", samples)
    kept.write_rows("grades_orders.jsonl", grades)
    kept.write_json(RESULTS, {})


def write_training(folder: Path, logp: float, *, teacher: bool = True) -> None:
    """One recorded completion at two steps, with the same numbers at each of its tokens."""
    tokenizer, _ = load_tokenizer(BUILT_IN["orders"])
    tokens = tokenizer.encode(completion(PROBLEMS[0], 0, recheck=0.0))
    numbers = {"student_logp": logp} | ({"teacher_entropy": 0.5, "gate": 0.75} if teacher else {})
    rows = [
        {"step": step, "tokens": tokens, **{name: [value] * len(tokens) for name, value in numbers.items()}}
        for step in (0, 10)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def grid(tmp_path) -> GridResults:
    """A cell without a gate that never looks again, and one that always does, two seeds each; a third has not ended."""
    ended = {"orders": Scores("orders", "", ["a", "b"], [[1], [0]], [[1], [1]], 0.0, 0, 48)}
    arms = []
    for label, recheck in (("egrsd", 1.0), ("no_gate", 0.0)):
        runs = []
        for seed in (0, 1):
            folder = tmp_path / f"{label}-seed{seed}"
            write_evaluation(benchmarks_folder(folder, 60), recheck=recheck, seed=seed)
            write_training(folder, -1.5 - seed)
            runs.append(GridRun(folder, seed, 60, {60: ended}))
        method = {"method.name": "direction"} if label == "no_gate" else {}
        arms.append(Arm(label, {"cell": label, **method}, [*runs, GridRun(tmp_path / "not_ended", 2, 60, {})]))
    return GridResults("mine", {"cell": ["egrsd", "no_gate"]}, arms)


def test_measures_by_hand(tmp_path):
    write_evaluation(tmp_path / "found", recheck=1.0)
    found = read_held_out(tmp_path / "found")
    values = {measure.name: measure.of(found).tolist() for measure in MEASURES}
    assert values["accuracy (%)"] == values["valid (%)"] == [75.0] * 3
    assert values["pass@K (%)"] == [100.0] * 3
    assert values["re-checks"] == [5.0] * 3
    assert values["distinct orders"] == [2.0] * 3
    assert values["length (tokens)"][0] == len(completion(PROBLEMS[0], 0, recheck=1.0).split())
    for problem, share in zip(PROBLEMS, values["same first (%)"], strict=True):
        first = [completion(problem, number % 2, recheck=1.0).split()[2] for number in range(SAMPLES - 1)]
        pairs = [first[0] == first[1], first[0] == first[2], first[1] == first[2]]
        assert share == pytest.approx(100 * np.mean(pairs))


def test_a_folder_without_the_tasks_samples_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no results\.json; launch/evaluate\.py --benchmarks orders"):
        read_held_out(tmp_path)


def test_paired_differences_by_hand():
    before = {0: np.array([1.0, 2.0, 3.0]), 1: np.array([1.0, 2.0, np.nan]), 7: np.zeros(3)}
    after = {0: np.array([2.0, 4.0, 3.0]), 1: np.array([4.0, 3.0, 5.0])}
    found = paired(before, after)  # by seed 1 and 2, by problem 2, 1.5 and 0
    assert found.value == pytest.approx(1.5)
    assert found.seeds == 2
    assert found.over_seeds == pytest.approx(12.7062 * math.sqrt(0.5) / math.sqrt(2), rel=1e-4)
    assert found.over_problems == pytest.approx(np.std([2.0, 1.5, 0.0], ddof=1) / math.sqrt(3))
    with pytest.raises(ValueError, match="no seed is in common"):
        paired({0: np.zeros(3)}, {1: np.zeros(3)})


def test_tables_compare_with_the_cell_without_a_gate(grid, tmp_path):
    assert references(grid) == {"egrsd": "no_gate"}
    write_evaluation(tmp_path / "before", recheck=0.0)
    figures, differences, kinds, entropies = fork_tables(grid, read_held_out(tmp_path / "before"))
    assert [row[:2] for row in figures.rows] == [["before training", ""], ["egrsd", "2"], ["no_gate", "2"]]
    [[label, *cells]] = differences.rows
    assert label == "egrsd − no_gate"
    assert cells[4] == "+5.000 ± 0.000 / 0.000"  # re-checks: after each of five steps against none
    of_forks = next(row for row in kinds.rows if row[:3] == ["egrsd", "10", "fork"])
    assert entropies.rows == [["egrsd − no_gate", "2", *["+0.000 ± 0.000"] * 3]]
    assert of_forks[4:] == ["2.000 ± 0.500", "0.500 ± 0.000", "0.750 ± 0.000"]


def test_an_arm_without_a_teacher_has_no_entropy_and_no_gate_of_it(grid):
    for run in grid.arms[0].runs:
        write_training(run.folder, -1.5, teacher=False)
    kinds = fork_tables(grid, None)[2]
    assert {tuple(row[4:]) for row in kinds.rows if row[0] == "egrsd"} == {("1.500 ± 0.000", "", "")}


def test_a_completion_that_was_not_in_the_loss_is_left_out(tmp_path):
    write_training(tmp_path, -1.5)
    before, samples = token_figures(tmp_path), tmp_path / "samples.jsonl"
    rows = [json.loads(line) for line in samples.read_text().splitlines()]
    unscored = [{"step": row["step"], "tokens": row["tokens"]} for row in rows]
    samples.write_text("".join(json.dumps(row) + "\n" for row in [*unscored, *rows]))
    assert token_figures(tmp_path) == before


def test_an_arm_is_compared_with_the_one_without_a_gate_of_its_own_optimizer(grid):
    sgd = {"train.adam_eps": 1.0}
    ended = grid.arms[0].runs
    others = [Arm("gate_sgd", sgd, ended), Arm("none_sgd", {"method.name": "direction", **sgd}, ended)]
    alone = Arm("alone", {"train.steps": 9}, ended)
    found = GridResults("mine", {}, [*grid.arms, *others, alone])
    assert references(found) == {"egrsd": "no_gate", "gate_sgd": "none_sgd"}


def test_token_figures_are_of_their_kind_and_step(tmp_path):
    write_training(tmp_path, -2.0)
    found = token_figures(tmp_path)
    assert set(found) == {0, 10}
    assert found[0]["fork"].student_entropy == 2.0
    words = len(completion(PROBLEMS[0], 0, recheck=0.0).split()) + 2  # blanks on both sides of the answer
    assert found[0]["fork"].share == pytest.approx(4 / words)
    assert found[0]["pivot"].share == pytest.approx(5 / words)


def test_pictures_are_drawn(grid, tmp_path):
    for draw in (draw_measures, draw_entropies):
        draw(tmp_path / "plot.png", grid)
        assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
