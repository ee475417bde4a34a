"""Reports on several folders: what is read, compared, marked as published, drawn and refused."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import yaml

from egrsd_jax import canvas
from egrsd_jax.config import Config, EvaluationSettings, RunSettings
from egrsd_jax.evaluate.benchmarks import BENCHMARKS, PAPERS, Protocol
from egrsd_jax.evaluate.samples import RESULTS
from egrsd_jax.evaluate.scores import Scores
from egrsd_jax.report.comparison import overview, pair_with_first, paired_tables
from egrsd_jax.report.entries import Entry, read_entries
from egrsd_jax.report.plots import pareto
from egrsd_jax.report.published import PUBLISHED, comparable_rows
from egrsd_jax.report.tables import Table
from egrsd_jax.report.write import write_comparison
from tests.commands import refused

SIZES = {**{name: BENCHMARKS[name].rows or 0 for name in PAPERS}, "gsm8k": 60}  # GSM8K cut short: time


def scores(name: str, chance: float, seed: int, problems: int, *, identity: str = "data") -> Scores:
    source = np.random.default_rng(seed)
    right = source.random((problems, 2)) < chance
    tokens = source.integers(500, 30_000, (problems, 2))
    names = [str(index) for index in range(problems)]
    return Scores(name, identity, names, right.astype(int).tolist(), tokens.tolist(), 0.1, 0, 32_768)


def evaluation(folder: Path, label: str, chance: float, *, base="org/Qwen3-8B", sets=SIZES, **asked) -> Path:
    """An evaluation's folder as launch/evaluate.py leaves it, as far as reports look."""
    folder.mkdir()
    found = {name: scores(name, chance, index, size) for index, (name, size) in enumerate(sets.items())}
    protocol = {**asdict(Protocol()), **asked}
    regime = {
        "free": {"label": label, "base": base},
        "benchmarks": {name: {**protocol, "free": {"problems": BENCHMARKS[name].rows}} for name in found},
    }
    content = {"regime": regime, "benchmarks": {name: {"scores": each.to_json()} for name, each in found.items()}}
    (folder / RESULTS).write_text(json.dumps(content))
    return folder


def training_run(folder: Path, rights: dict[int, int], problems: int = 10) -> Path:
    """A run's folder as earlier versions left it, as far as reports read it."""
    settings = EvaluationSettings(path="arithmetic", problems=problems, samples=2, max_new_tokens=96)
    config = Config(run=RunSettings(name=folder.name), evaluation=settings)
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(asdict(config)))
    for step, right in rights.items():
        correct = [[int(index < right)] * 2 for index in range(problems)]
        found = {"correct": correct, "length": [[60 - step] * 2] * problems, "cut_off": 0.0, "ungradable": 0}
        (folder / f"evaluation_step{step}.json").write_text(json.dumps({"summary": {}, **found}))
    return folder


def entries(*folders: Path) -> list[Entry]:
    return read_entries(list(folders))


def test_a_training_run_is_a_point_for_each_step_in_order(tmp_path):
    [entry] = entries(training_run(tmp_path / "run", {0: 5, 100: 9, 20: 7}))
    assert [point.label for point in entry.points] == ["run step 0", "run step 20", "run step 100"]
    assert [np.mean(point.scores["arithmetic"].correct) for point in entry.points] == [0.5, 0.7, 0.9]
    pairs = pair_with_first([entry])
    assert [each.comparisons[0].accuracy.value for each in pairs] == pytest.approx([0.2, 0.4])
    accuracy, length, power = paired_tables(pairs)
    assert accuracy.rows[0][:4] == ["run step 20", "10", "+20.0 ± 13.3", accuracy.rows[0][3]]
    assert length.rows[1][2] == "-100.0 ± 0.0"
    assert len(power.rows) == 2


def test_a_training_run_is_paired_with_an_evaluation_of_the_built_in_task(tmp_path):
    from egrsd_jax.evaluate.benchmarks import load_benchmark

    loaded = load_benchmark(BENCHMARKS["arithmetic"])
    found = scores("arithmetic", 0.5, 0, 512, identity=loaded.hash).to_json()
    found["problems"] = [problem.id for problem in loaded.problems]
    folder = tmp_path / "evaluation"
    folder.mkdir()
    regime = {"free": {"label": "arithmetic", "base": "arithmetic"}, "benchmarks": {}}
    (folder / RESULTS).write_text(json.dumps({"regime": regime, "benchmarks": {"arithmetic": {"scores": found}}}))
    [pair] = pair_with_first(entries(training_run(tmp_path / "run", {0: 5}), folder))
    assert [each.problems for each in pair.comparisons] == [10]
    assert pair.notes == []


def test_other_problems_are_not_paired_and_it_is_said(tmp_path):
    sets = {"aime24": 30, "hmmt25": 30}
    for name in ("a", "b"):
        evaluation(tmp_path / name, name, 0.5, sets=sets)
    content = json.loads((tmp_path / "b" / RESULTS).read_text())
    content["benchmarks"]["aime24"]["scores"]["identity"] = "other"
    (tmp_path / "b" / RESULTS).write_text(json.dumps(content))
    [pair] = pair_with_first(entries(tmp_path / "a", tmp_path / "b"))
    assert [each.benchmark for each in pair.comparisons] == ["hmmt25"]
    assert "b is not paired: aime24 was read from two different sets" in paired_tables([pair])[0].notes[0]


def test_published_rows_stand_beside_the_same_model_and_regime_alone(tmp_path):
    ours = entries(evaluation(tmp_path / "a", "ours", 0.7))
    rows, notes = comparable_rows(ours)
    assert {row.model for row in rows} == {"Qwen3-8B"}
    assert notes == []
    means, each, _ = overview(ours, rows)
    assert means.rows[1][0] == "Qwen3-8B no training (published)"
    assert means.rows[-1] == ["Qwen3-8B CL-EGRSD (published)", "69.32", "", "12,232", "", "5.67", "", "", ""]
    assert list(each.rows[-1])[1:] == ["77.22", "70.00", "52.50", "86.95", "34.83", "94.43"]
    assert any("the paper's" in note for note in means.notes)
    assert comparable_rows(entries(evaluation(tmp_path / "b", "b", 0.7, base="org/Qwen3-14B"))) == ([], [])
    rows, [note] = comparable_rows(entries(evaluation(tmp_path / "c", "c", 0.7, max_new_tokens=64)))
    assert rows == []
    assert "aime24 was sampled with max_new_tokens 64, and the paper's is 32768" in note


def test_published_rows_have_the_figures_that_go_with_each_other():
    """The printed means are those of the printed sets, to their rounding."""
    assert len(PUBLISHED) == 14
    for row in PUBLISHED:
        assert np.mean(list(row.accuracy.values())) == pytest.approx(row.mean_accuracy, abs=0.0101), row


def test_means_are_over_the_benchmarks_that_all_have(tmp_path):
    sets = {"aime24": 30, "math500": 40}
    both = entries(evaluation(tmp_path / "a", "a", 0.6), evaluation(tmp_path / "b", "b", 0.6, sets=sets))
    means, each, unanswered = overview(both)
    assert list(unanswered.columns) == ["", "aime24", "math500"]
    assert "Over aime24, math500;" in means.notes[0]
    assert list(each.columns) == ["", "aime24", "math500"]
    only = evaluation(tmp_path / "c", "c", 0.6, sets={"hmmt25": 30})
    with pytest.raises(ValueError, match=r"no benchmark in common.*b: aime24, math500; c: hmmt25"):
        overview([*both, *entries(only)])


def test_what_has_no_answer_is_beside_every_accuracy(tmp_path):
    sets = {"aime24": 30, "math500": 40}
    folders = [evaluation(tmp_path / name, name, 0.6, sets=sets) for name in ("a", "b")]
    content = json.loads((folders[1] / RESULTS).read_text())
    content["benchmarks"]["aime24"]["scores"] |= {"missing": {"no box": 24, "cut off": 6}, "ungradable": 6}
    content["benchmarks"]["math500"]["scores"] |= {"missing": {"cut off": 8}}
    (folders[1] / RESULTS).write_text(json.dumps(content))
    means, _, each = overview(entries(*folders))
    assert list(means.columns)[-3:] == ["no answer", "cut off", "ungradable"]
    assert [row[-3:] for row in means.rows] == [["", "10.0%", "0.0%"], ["30.0%", "10.0%", "5.0%"]]  # a's is not known
    assert [row[1:] for row in each.rows] == [
        [" / 10.0% / 0.0%"] * 2,
        ["50.0% / 10.0% / 10.0%", "10.0% / 10.0% / 0.0%"],
    ]
    warned = [note for note in means.notes if note.startswith("Warning: ")]
    assert [note.split(" of the")[0] for note in warned] == ["Warning: b, aime24: 50.0%", "Warning: b, aime24: 10.0%"]
    assert "(24 no box, 6 cut off)" in warned[0]


def test_two_of_one_name_are_called_what_their_folders_are(tmp_path):
    small = {"aime24": 30}
    folders = [evaluation(tmp_path / name, label, 0.5, sets=small) for name, label in (("x", "a"), ("y", "a"))]
    assert [entry.label for entry in entries(*folders)] == ["x", "y"]


def test_the_pareto_line():
    points = [(10, 50), (20, 60), (20, 70), (30, 65), (40, 90), (5, 40), (50, 90)]
    assert pareto(points) == [5, 0, 2, 4]
    assert pareto([(1.0, 1.0)]) == [0]


def test_a_report_has_its_tables_and_pictures(tmp_path, capsys):
    sets = {"aime24": 30, "math500": 40}
    folders = [
        evaluation(tmp_path / "a", "be$t [red]", 0.4, sets=sets),
        evaluation(tmp_path / "b", "b", 0.7, sets=sets),
    ]
    write_comparison(folders, tmp_path / "report")
    text = (tmp_path / "report/report.md").read_text()
    assert "| b, aime24 | 30 |" in text
    assert "| b, mean |" in text
    shown = " ".join(capsys.readouterr().out.split())
    assert "be$t [red]" in shown
    for name in ("frontier.png", "budgets.png", "lengths.png"):
        assert (tmp_path / "report" / name).read_bytes().startswith(b"\x89PNG")


def test_a_report_without_matplotlib_has_its_tables_and_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(canvas, "find_spec", lambda name: None)
    folders = [evaluation(tmp_path / name, name, 0.5, sets={"aime24": 30}) for name in ("a", "b")]
    write_comparison(folders, tmp_path / "report")
    assert [file.name for file in (tmp_path / "report").iterdir()] == ["report.md"]
    assert "![" not in (tmp_path / "report/report.md").read_text()
    assert "no plots: matplotlib is not installed: pip install" in " ".join(capsys.readouterr().out.split())


def test_a_folder_without_results_is_one_line_and_exit_code_2(tmp_path, capsys):
    assert "has no results to report" in refused(capsys, "report.py", tmp_path)


def test_markdown_cells_cannot_break_a_table():
    table = Table("a\nb", ["x|y", "n"], [["line\nbreak", "1"]])
    assert table.markdown() == "## a b\n\n| x\\|y | n |\n| --- | ---: |\n| line break | 1 |\n"
