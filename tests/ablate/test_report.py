"""Reports on a grid: figures by hand, what is missing, which tables and plots there are, what is printed next to
them."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy import stats

from egrsd_jax import canvas
from egrsd_jax.ablate.grid import read_grid, write_record
from egrsd_jax.ablate.plots import draw_grid_plots
from egrsd_jax.ablate.report import write_grid
from egrsd_jax.ablate.results import GridResults, read_grid_results
from egrsd_jax.ablate.state import write_failure
from egrsd_jax.ablate.tables import comparison, differences, every_run, grid_tables, snapshots, sweep, token_efficiency
from egrsd_jax.config import Config
from egrsd_jax.evaluate.benchmarks import BENCHMARKS, PAPERS, Protocol
from egrsd_jax.evaluate.samples import RESULTS
from egrsd_jax.evaluate.scores import Scores
from egrsd_jax.evaluate.seeds import accuracy, compare_seeds, efficiency, length
from egrsd_jax.report.comparison import published_means
from egrsd_jax.report.published import PAPERS_DATA, PUBLISHED_GAMMA_WINDOW, PUBLISHED_TEACHERS, other_training
from egrsd_jax.runs.layout import benchmarks_folder

ROOT = Path(__file__).resolve().parents[2]


def scores(right: list[list[int]], tokens: list[list[int]]) -> Scores:
    return Scores("set", "data", [str(index) for index in range(len(right))], right, tokens, 0.0, 0, 96)


def built_in(folder: Path, text: str, *options: str):
    file = folder / "mine.yaml"
    small = "{train.steps: 4, evaluation.problems: 4, evaluation.samples: 2}"
    file.write_text(f"base: {ROOT / 'configs/arithmetic.yaml'}\nset: {small}\n{text}")
    grid = read_grid(file, ["--run.dir", str(folder), *options])
    write_record(grid)
    return grid


def run_of(grid, cell, found: dict[int, tuple[int, int]]) -> None:
    """What a run leaves: at each step so many of 4 problems right, of 2 samples each, and the tokens of a sample."""
    folder = grid.folder_of(cell)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(asdict(cell.config)))
    for step, (right, tokens) in found.items():
        correct = [[int(index < right)] * 2 for index in range(4)]
        evaluation = {"correct": correct, "length": [[tokens] * 2] * 4, "cut_off": 0.0, "ungradable": 0}
        (folder / f"evaluation_step{step}.json").write_text(json.dumps(evaluation))


def squares(folder: Path) -> GridResults:
    """gamma .3 and 1 by window 0 and 5, two seeds: one cell failed, one is half way, and one arm has nothing."""
    grid = built_in(folder, "grid: {method.gamma: [0.3, 1.0], method.window: [0, 5], seed: [0, 1]}")
    for cell, right in zip(grid.cells, (2, 3, 4, 4, 3, None, None, None), strict=True):
        if right is not None:
            run_of(grid, cell, {0: (1, 60), 4: (right, 40 + 2 * cell.seed)})
    run_of(grid, grid.cells[5], {0: (1, 60), 2: (4, 50)})
    grid.folder_of(grid.cells[6]).mkdir()
    write_failure(grid.folder_of(grid.cells[6]), ["train"], 2, "no such model", 0.0)
    return read_grid_results(grid.folder)


def test_figures_over_seeds_by_hand():
    seeds = [[scores([[1, 1], [0, 0]], [[10, 10], [20, 20]])], [scores([[1, 1], [1, 0]], [[10, 10], [10, 10]])]]
    right, tokens, ratio = accuracy(seeds), length(seeds), efficiency(seeds)
    assert right.by_seed == [0.5, 0.75]
    assert (right.value, right.over_seeds) == (0.625, pytest.approx(0.125))
    assert right.over_problems == pytest.approx(np.std([1.0, 0.25], ddof=1) / np.sqrt(2))
    student = stats.t.ppf(0.975, 1)  # two seeds, and two problems
    assert right.half_width == pytest.approx(student * np.hypot(0.125, 0.375))
    assert accuracy(seeds[:1]).half_width == pytest.approx(student * 0.5)
    assert (tokens.value, tokens.over_seeds) == (12.5, pytest.approx(2.5))
    assert ratio.by_seed == pytest.approx([100 * 0.5 / 0.015, 100 * 0.75 / 0.010])
    assert accuracy(seeds[:1]).over_seeds is None


def test_differences_are_paired_by_seed_and_problem():
    before = {0: [scores([[0, 0], [1, 1]], [[10, 10]] * 2)], 1: [scores([[0, 1], [1, 1]], [[10, 10]] * 2)]}
    after = {1: [scores([[1, 1], [1, 1]], [[8, 8]] * 2)], 0: [scores([[1, 1], [1, 1]], [[6, 6]] * 2)], 2: before[0]}
    found = compare_seeds(before, after)
    assert (found.seeds, found.problems) == ([0, 1], 2)
    assert (found.accuracy.value, found.length.value) == (0.375, -3.0)
    assert found.accuracy.over_seeds == pytest.approx(0.125)  # 0.5 and 0.25
    assert found.accuracy.over_problems == pytest.approx(0.375)  # 0.75 and 0
    assert found.length.over_problems == 0.0
    assert (found.accuracy.p, found.length.p) == (1.0, 0.5)  # one problem differs; two do, both the same way
    with pytest.raises(ValueError, match="no seed is in common"):
        compare_seeds({0: before[0]}, {1: after[1]})


def test_of_several_benchmarks_the_difference_is_the_plain_mean():
    small, large = scores([[0], [1]], [[4], [4]]), scores([[1], [1], [1]], [[10], [10], [10]])
    better = scores([[1], [1]], [[4], [4]])
    found = compare_seeds({0: [small, large]}, {0: [better, large]})
    assert (found.accuracy.value, found.accuracy.p, found.accuracy.over_seeds) == (0.25, None, None)
    assert found.accuracy.over_problems == pytest.approx(0.25)  # 0.5 on the first, none on the other, halved
    assert found.problems == 5


def test_the_comparison_says_what_is_missing_and_what_failed(tmp_path):
    table = comparison(squares(tmp_path))
    shares = ["", "0.0%", "0.0%"]  # files of an earlier version do not say what has no answer
    assert [list(row) for row in table.rows] == [
        ["before training", "", "25.0 ± 25.0", "60.0 ± 0.0", "416.67 ± 416.67", *shares],
        ["gamma 0.3, window 0", "2", "62.5 ± 12.5", "41.0 ± 1.0", "1,517.86 ± 267.86", *shares],
        ["gamma 0.3, window 5", "2", "100.0 ± 0.0", "41.0 ± 1.0", "2,440.48 ± 59.52", *shares],
        ["gamma 1.0, window 0", "1 of 2", "75.0 ± 25.0", "40.0 ± 0.0", "1,875.00 ± 625.00", *shares],
        ["gamma 1.0, window 5", "0 of 2", "failed", "failed", "failed", "", "", ""],
    ]
    assert "gamma1.0-window5-seed0 failed: exit code 2: no such model." in table.notes


def test_differences_are_to_the_first_arm_and_corrected_over_the_table(tmp_path):
    table, lengths = differences(squares(tmp_path))
    assert table.title == "Accuracy less that of gamma 0.3, window 0 (points)"
    first, second = table.rows
    assert list(first) == ["gamma 0.3, window 5", "2", "4", "+37.5 ± 23.9 / 12.5", "0.500", "1.000"]
    assert list(second)[:4] == ["gamma 1.0, window 0", "1", "4", "+25.0 ± 25.0"]
    assert list(lengths.rows[0])[3] == "+0.0 ± 0.0 / 0.0"


def test_a_sweep_compares_within_what_else_is_equal(tmp_path):
    found = squares(tmp_path)
    rows = [list(row) for row in sweep(found, "method.window").rows]
    assert [row[:2] for row in rows] == [
        ["gamma 0.3", "window 0"],
        ["gamma 0.3", "window 5"],
        ["gamma 1.0", "window 0"],
        ["gamma 1.0", "window 5"],
    ]
    assert [row[5] for row in rows] == ["", "+37.5 ± 23.9 / 12.5", "", ""]
    gammas = [list(row) for row in sweep(found, "method.gamma").rows]
    assert [row[:2] for row in gammas][:2] == [["window 0", "gamma 0.3"], ["window 0", "gamma 1.0"]]
    assert gammas[1][5] == "+25.0 ± 25.0"


def test_snapshots_and_single_runs(tmp_path):
    found = squares(tmp_path)
    table = snapshots(found)[0]
    assert list(table.columns) == ["", "0", "2", "4"]
    assert list(table.rows[2]) == ["gamma 1.0, window 0", "25.0 ± 0.0", "100.0 ± 0.0", "75.0 ± 25.0"]
    runs = [list(row) for row in every_run(found).rows]
    assert runs[2:] == [["gamma 1.0, window 0", "75.0, 40.0", "missing"], ["gamma 1.0, window 5", "failed", "missing"]]


@pytest.mark.slow
def test_heat_maps_hatch_what_is_missing(tmp_path):
    found = squares(tmp_path)
    assert set(draw_grid_plots(tmp_path, found)) == {"frontier", "heatmap"}
    text = (tmp_path / "heatmap.svg").read_text()
    assert text.count("<!-- failed -->") == 4  # a panel each
    assert text.count("<!-- missing -->") == 0
    for said in ("62.5", "± 12.5", "1 of 2", "+37.5", "± 268", "± 25.0", "2,440"):
        assert said in text, said
    assert "url(#h" in text  # matplotlib's name of a hatch
    assert (tmp_path / "frontier.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_long_legend_gets_the_room_that_it_takes(tmp_path):
    def width_drawn(name: str, arms: int) -> int:
        (folder := tmp_path / name).mkdir()
        grid = built_in(
            folder, f"cells: {{{', '.join(f'c{arm}: {{train.warmup_steps: {arm}}}' for arm in range(arms))}}}"
        )
        for cell in grid.cells:
            run_of(grid, cell, {0: (1, 60), 4: (2, 50)})
        draw_grid_plots(folder, read_grid_results(grid.folder))
        return int.from_bytes((folder / "frontier.png").read_bytes()[16:20], "big")

    assert width_drawn("more", 31) == width_drawn("few", 30) + 2.4 * 150  # a column of the legend, inches and dots


def test_a_grid_of_named_cells_has_no_heat_map_and_compares_with_egrsd(tmp_path, capsys):
    grid = built_in(tmp_path, "cells: {grpo: {method.name: grpo}, egrsd: {}}")
    for cell, right in zip(grid.cells, (3, 4), strict=True):
        run_of(grid, cell, {0: (1, 60), 4: (right, 40)})
    write_grid(grid.folder, tmp_path / "report")
    assert not (tmp_path / "report/heatmap.png").exists()
    text = (tmp_path / "report/report.md").read_text()
    assert "## Accuracy less that of EGRSD (points)" in text
    assert "| GRPO, whitened | 1 | 4 | -25.0 ± 25.0 | 1.000 | 1.000 |" in text
    assert "![accuracy against length](frontier.png)" in text
    assert "Comparison" in capsys.readouterr().out


def test_a_grids_report_without_matplotlib_has_its_tables_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(canvas, "find_spec", lambda name: None)
    grid = built_in(tmp_path, "cells: {grpo: {method.name: grpo}, egrsd: {}}")
    for cell in grid.cells:
        run_of(grid, cell, {0: (1, 60), 4: (3, 40)})
    write_grid(grid.folder, tmp_path / "report")
    assert [file.name for file in (tmp_path / "report").iterdir()] == ["report.md"]


def test_each_model_has_a_reference_of_its_own(tmp_path):
    text = "cells: {grpo: {method.name: grpo}, egrsd: {}}\ngrid: {model.path: [arithmetic, other]}"
    grid = built_in(tmp_path, text)
    for cell, right in zip(grid.cells, (3, 2, 4, 1), strict=True):
        run_of(grid, cell, {0: (1, 60 if cell.config.model.path == "other" else 50), 4: (right, 40)})
    found = read_grid_results(grid.folder)
    table = differences(found)[0]
    assert table.title == "Accuracy less that of its model's reference (points)"
    assert [list(row)[:4] for row in table.rows] == [
        ["GRPO, whitened, arithmetic", "1", "4", "-25.0 ± 25.0"],
        ["GRPO, whitened, other", "1", "4", "+25.0 ± 25.0"],
    ]
    assert [row[0] for row in comparison(found).rows][:2] == ["before training, arithmetic", "before training, other"]
    assert [list(row)[:4] for row in token_efficiency(found).rows][2:4] == [
        ["GRPO, whitened, arithmetic", "1,875.00 ± 625.00", "+275.0%", "-25.0%"],
        ["GRPO, whitened, other", "1,250.00 ± 721.69", "+200.0%", "+100.0%"],
    ]


def test_a_grid_without_results_is_refused(tmp_path):
    grid = built_in(tmp_path, "cells: {a: {}, b: {}}")
    grid.folder_of(grid.cells[0]).mkdir(parents=True)
    write_failure(grid.folder_of(grid.cells[0]), ["train"], 1, "no such model", 0.0)
    with pytest.raises(ValueError, match="no cell of the grid mine has ended; one failed: exit code 1: no such model"):
        read_grid_results(grid.folder)


def papers_grid(folder: Path, *options: str) -> GridResults:
    """The paper's gamma and window on Qwen3-8B, with benchmarks as launch/evaluate.py leaves them."""
    grid = read_grid(ROOT / "configs/ablate/qwen3_8b_gamma_window.yaml", ["--run.dir", str(folder), *options])
    write_record(grid)
    for cell in grid.cells[:2]:
        to = benchmarks_folder(grid.folder_of(cell), cell.config.train.steps)
        to.mkdir(parents=True)
        (grid.folder_of(cell) / "config.yaml").write_text(yaml.safe_dump(asdict(cell.config)))
        names = ("aime24", "aime25", "hmmt25", "minerva")
        each = {name: replace(scores([[1], [0]], [[9000], [12_000]]), benchmark=name).to_json() for name in names}
        asked = {name: {**asdict(Protocol()), "free": {"problems": BENCHMARKS[name].rows}} for name in names}
        regime = {"free": {"label": cell.name, "base": "Qwen/Qwen3-8B"}, "benchmarks": asked}
        content = {"regime": regime, "benchmarks": {name: {"scores": found} for name, found in each.items()}}
        (to / RESULTS).write_text(json.dumps(content))
    return read_grid_results(grid.folder)


@pytest.mark.slow
def test_published_figures_stand_beside_the_same_model_and_regime_alone(tmp_path):
    found = papers_grid(tmp_path / "same")
    assert found.published == PUBLISHED_GAMMA_WINDOW
    rows = [list(row) for table in grid_tables(found) if table.title.startswith("Accuracy by b") for row in table.rows]
    assert ["Qwen3-8B gamma 0.3, window 3 (published)", "75.00", "66.67", "50.00", "34.74"] in rows
    draw_grid_plots(tmp_path, found)
    text = (tmp_path / "heatmap.svg").read_text()
    assert text.count("<!-- (75.0) -->") == 1  # window 3 of aime24, in its cell; the other ten cells are missing
    assert text.count("<!-- missing -->") == 4 * 10

    other = papers_grid(tmp_path / "other", "--train.learning_rate", "1e-5")
    assert other.published == []
    assert "train.learning_rate of the paper is 5e-06 and its own 1e-05" in other.notes[0]
    assert "50.00" not in "".join(table.markdown() for table in grid_tables(other))


def test_the_papers_regime_is_that_of_the_defaults():
    config = Config()
    papers = replace(config, data=replace(config.data, path=PAPERS_DATA))
    assert other_training(papers) is None
    assert other_training(config) == f"it was trained on arithmetic, and the paper's on {PAPERS_DATA}"
    assert "50 steps" in str(other_training(replace(papers, train=replace(papers.train, steps=50))))
    assert len(PUBLISHED_GAMMA_WINDOW) == 12
    assert [row.mean_accuracy for row in PUBLISHED_TEACHERS] == [68.23, 67.83, 67.12, 66.64]
    label = "Qwen3-8B EGRSD, teacher frozen (published)"
    assert published_means(PUBLISHED_TEACHERS[0], PAPERS) == [label, "68.23", "", "", "", ""]
    at = {(row.fields["method.gamma"], row.fields["method.window"]): row.accuracy for row in PUBLISHED_GAMMA_WINDOW}
    assert at[1.0, 5] == {"aime24": 77.22, "aime25": 70.0, "hmmt25": 52.5, "minerva": 34.83}
