"""A grid's file: its cells, their names and configurations, and mistakes that are named in one line."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from egrsd_jax.ablate.grid import read_grid
from egrsd_jax.objective.methods import METHODS
from tests import commands

ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / "configs/arithmetic.yaml"
ARMS = 2  # cells of the grids of every method that are another setting of one: OPSD and PW-OPSD without their clip
SIZES = {
    "arithmetic_gamma_window": 3 * 4 * 5,
    "arithmetic_methods": (len(METHODS) + ARMS) * 5,
    "arithmetic_teachers": 4 * 5,
    "arithmetic_controls": 9 * 5,
    "qwen3_8b_gamma_window": 3 * 4,
    "qwen3_4b_paper": 6,
    "qwen3_8b_paper": 6,
    "qwen3_8b_teachers": 4,
    "qwen3_4b_methods": len(METHODS) + ARMS,
    "qwen3_8b_methods": len(METHODS) + ARMS,
    "orders_gate": 6 * 5,
    "words_methods": 6 * 3,
}


def grid(folder: Path, text: str, *options: str):
    file = folder / "mine.yaml"
    file.write_text(f"base: {BASE}\n{text}")
    return read_grid(file, options)


def refused(folder: Path, text: str, *options: str) -> str:
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z") as mistake:
        grid(folder, text, *options)
    return str(mistake.value)


@pytest.mark.parametrize("name", ["arithmetic_methods", "qwen3_4b_methods", "qwen3_8b_methods"])
def test_a_grid_of_every_method_has_every_method(name):
    found = read_grid(ROOT / f"configs/ablate/{name}.yaml", ())
    assert {cell.config.method.name for cell in found.cells} == METHODS.keys()


def test_a_grid_is_the_product_of_its_lists_with_the_seeds_last(tmp_path):
    found = grid(tmp_path, "grid: {seed: [0, 1], method.gamma: [0.3, 1.0], method.window: [0, 5]}")
    assert [cell.name for cell in found.cells][:3] == [
        "gamma0.3-window0-seed0",
        "gamma0.3-window0-seed1",
        "gamma0.3-window5-seed0",
    ]
    assert len(found.cells) == 8
    assert found.axes == {"method.gamma": [0.3, 1.0], "method.window": [0, 5]}
    last = found.cells[-1]
    assert (last.config.seed, last.config.method.gamma, last.config.method.window) == (1, 1.0, 5)
    assert last.arm == "gamma1.0-window5"
    assert last.argv[:2] == ["--config", str(BASE)]
    assert {"--method.gamma=1.0", "--method.window=5", "--seed=1"} <= set(last.argv)
    assert found.folder == Path("runs/mine")


def test_window_0_is_egrsd_and_another_one_cl_egrsd_unless_the_method_is_named(tmp_path):
    found = grid(tmp_path, "grid: {method.window: [0, 3]}")
    assert [cell.config.method.name for cell in found.cells] == ["egrsd", "cl_egrsd"]
    message = refused(tmp_path, "set: {method.name: egrsd}\ngrid: {method.window: [0, 3]}")
    assert "cell method.window 3: method.window is 3, and egrsd has it fixed at 0; cl_egrsd can set it" in message


def test_a_cell_may_leave_at_null_what_its_method_does_not_have(tmp_path):
    text = "set: {method.gamma: 1.0}\ncells: {egrsd: {}, grpo: {method.name: grpo, method.gamma: null}}"
    fields = {cell.arm: cell.fields for cell in grid(tmp_path, text).cells}
    assert fields == {
        "egrsd": {"cell": "egrsd"},
        "grpo": {"cell": "grpo", "method.name": "grpo", "method.gamma": None},
    }


def test_a_grid_of_an_earlier_version_is_read_with_todays_names(tmp_path):
    text = "set: {rollout.slots: 8}\nevaluate: {benchmarks: [arithmetic], slots: 32}"
    [cell] = grid(tmp_path, text).cells
    assert cell.config.rollout.max_rows == 8
    found = grid(tmp_path, "grid: {rollout.slots: [8, 16]}\n" + text.partition("\n")[2])
    assert found.axes == {"rollout.max_rows": [8, 16]}
    assert found.evaluate is not None
    assert found.evaluate.options["max_rows"] == 32
    assert grid(tmp_path, "", "--rollout.slots=4").cells[0].config.rollout.max_rows == 4


def test_named_cells_are_crossed_with_the_lists(tmp_path):
    cells = "cells:\n  plain: {}\n  a mean: {method.teacher: ema}\n"
    found = grid(tmp_path, "set: {train.steps: 7}\n" + cells + "grid: {train.learning_rate: [1e-4, 3e-4]}")
    assert [cell.name for cell in found.cells] == [
        "plain-learning_rate0.0001-seed0",
        "plain-learning_rate0.0003-seed0",
        "a_mean-learning_rate0.0001-seed0",
        "a_mean-learning_rate0.0003-seed0",
    ]
    assert found.axes == {"cell": ["plain", "a mean"], "train.learning_rate": [1e-4, 3e-4]}
    assert found.cells[2].fields == {"cell": "a mean", "train.learning_rate": 1e-4, "method.teacher": "ema"}
    assert {cell.config.train.steps for cell in found.cells} == {7}


def test_options_hold_for_all_cells_and_take_the_place_of_lists(tmp_path):
    text = "set: {train.steps: 60}\ngrid: {method.gamma: [0.3, 0.5, 1.0], seed: [0, 1, 2]}"
    found = grid(tmp_path, text, "--train.steps", "4", "--seed=5", "--method.gamma", "[0.3, 1.0]", "--run.name", "x")
    assert [(cell.name, cell.config.train.steps) for cell in found.cells] == [
        ("gamma0.3-seed5", 4),
        ("gamma1.0-seed5", 4),
    ]
    assert found.folder == Path("runs/x")


def test_a_list_for_a_field_that_takes_one_value_varies_it(tmp_path):
    text = "set: {train.learning_rate: 1.0e-3}\ncells: {a: {method.name: egrsd}, b: {method.name: grpo}}"
    rates = ("--train.learning_rate", "[1e-4, 3e-4]", "--seed=[0, 1]", "--probes.mentions", "[reference]")
    rates += ("--prompt.system", "[be brief]")  # a text and not a list of one
    found = grid(tmp_path, text, *rates)
    assert [cell.name for cell in found.cells[:3]] == [
        "a-learning_rate0.0001-seed0",
        "a-learning_rate0.0001-seed1",
        "a-learning_rate0.0003-seed0",
    ]
    assert [cell.config.train.learning_rate for cell in found.cells] == 2 * [1e-4, 1e-4, 3e-4, 3e-4]
    assert {cell.config.probes.mentions for cell in found.cells} == {("reference",)}
    assert {cell.config.prompt.system for cell in found.cells} == {"[be brief]"}
    assert found.axes == {"cell": ["a", "b"], "train.learning_rate": [1e-4, 3e-4]}
    assert "--train.learning_rate is [1e-4; it must be a value or a list" in refused(
        tmp_path, text, "--train.learning_rate", "[1e-4"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("grid: {method.gama: [1.0]}", "grid: there is no field method.gama; the nearest is method.gamma"),
        ("grid: {method: [1.0]}", "there is no field method; write one of its fields, such as method."),
        ("grid: {method.gamma: []}", "grid: method.gamma is []; it must be a list of values"),
        ("grid: {method.gamma: 0.3}", "grid: method.gamma is 0.3; it must be a list of values"),
        ("grid: {method.gamma: [0.3, 2.0]}", "cell method.gamma 2.0: method.gamma is 2.0; it must be between 0 and 1"),
        ("grid: {method.gamma: [large]}", "cell method.gamma large: method.gamma: 'large' is not a number or null"),
        ("grid: {seed: [a]}", "seed is ['a']; it must be a list of whole numbers"),
        ("grid: {method.window: [abc, 3]}", "cell method.window abc: method.window: 'abc' is not a whole number"),
        ("grid: {seed: [0, 0]}", "two cells would be called base-seed0: seed 0; and seed 0; give each value once"),
        ("grid: {method.gamma: [", "mine.yaml is not valid YAML: line "),
        ("grid: {method.gamma: [0.3, 0.3]}", "two cells would be called gamma0.3-seed0"),
        ("set: {run.name: a}", "run.name can only be given on the command line"),
        ("set: {run.hosts: 2}", "a cell runs on one host"),
        ("cells: {a: 3}", "cells: a is 3; it must be a mapping"),
        ("cells: {a: {seed: 1}}\ngrid: {seed: [0]}", "seed is varied by grid and set by the cell a"),
        ("sets: {}", "there is no key sets; the nearest is set"),
        ("set: {evaluation.path: null}", "nothing evaluates the cell base-seed0"),
        ("evaluate: {benchmarks: [aime42]}", "evaluate: there is no benchmark 'aime42'; known are aime24"),
        ("evaluate: {benchmark: [aime24]}", "evaluate: there is no option benchmark"),
        (
            "evaluate: {benchmarks: [aime24], steps: [30]}",
            "steps has 30, of which the cell base-seed0 writes no checkpoint",
        ),
        ("evaluate: {benchmarks: [aime24], samples: 0}", "evaluate: --samples is 0; it must be at least 1"),
    ],
)
def test_mistakes_are_named_in_one_line(tmp_path, text, message):
    assert message in refused(tmp_path, text)


def test_mistakes_in_options_are_named(tmp_path):
    assert "there is no field train.step; the nearest is" in refused(tmp_path, "", "--train.step", "4")
    message = refused(tmp_path, "grid: {method.gamma: [0.3]}", "--method.gamma", "[0.3")
    assert "--method.gamma is [0.3; it must be a value or a list of values" in message
    assert "--train.steps has no value" in refused(tmp_path, "", "--train.steps")
    message = refused(tmp_path, "cells: {a: {method.gamma: 0.5}}", "--method.gamma", "1.0")
    assert "--method.gamma is set by the cell a" in message


def test_a_section_of_the_base_that_is_no_mapping_is_one_line(tmp_path, capsys):
    (tmp_path / "base.yaml").write_text("train: 3\n")
    file = tmp_path / "mine.yaml"
    file.write_text("base: base.yaml\n")
    assert "base.yaml: train is 3; it must be a mapping of fields" in commands.refused(capsys, "ablate.py", file)


def test_a_base_that_is_not_there_is_one_line_and_exit_code_2(tmp_path, capsys):
    file = tmp_path / "mine.yaml"
    file.write_text("base: nowhere.yaml\n")
    assert "base nowhere.yaml is neither a file" in commands.refused(capsys, "ablate.py", file)


@pytest.mark.slow
def test_the_grids_of_the_project_are_whole():
    files = {file.stem: file for file in (ROOT / "configs/ablate").glob("*.yaml")}
    assert {name: len(read_grid(file).cells) for name, file in files.items()} == SIZES


def test_the_documentation_says_how_many_runs_each_grid_has():
    rows = re.findall(r"^\| (`\w+\.yaml`.*?) \|.*\| (\d+) \|$", (ROOT / "docs/ablations.md").read_text(), re.MULTILINE)
    said = {name: int(runs) for names, runs in rows for name in re.findall(r"\w+\.yaml", names)}
    assert said == {file.name: len(read_grid(file).cells) for file in (ROOT / "configs/ablate").glob("*.yaml")}


def test_reading_a_grid_needs_no_jax():
    code = (
        "import sys; from pathlib import Path; from egrsd_jax.ablate.grid import read_grid; "
        f"read_grid(Path({str(ROOT / 'configs/ablate/qwen3_8b_gamma_window.yaml')!r})); assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


def test_the_base_of_a_grid_may_be_a_preset(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("base: arithmetic\nset: {train.steps: 3}\n")
    [cell] = read_grid(file).cells
    assert cell.argv[:2] == ["--config", str(ROOT / "configs/arithmetic.yaml")]
    assert cell.config.train.steps == 3
