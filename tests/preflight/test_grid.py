"""A dry run of a grid: what it counts, what it refuses, and that it runs nothing."""

import shutil

import pytest

from egrsd_jax.cli.main import main
from egrsd_jax.model.hf.hub import resolve_folder
from tests.commands import refused
from tests.model_folders import change
from tests.preflight.test_templates import OTHER_MODELS

GRID = """
base: arithmetic
set: {data.train_problems: 300}
grid:
  method.gamma: [0.3, 0.5]
  seed: [0, 1, 2]
evaluate: {benchmarks: [arithmetic], samples: 2}
"""


@pytest.fixture
def grid(tmp_path):
    file = tmp_path / "small.yaml"
    file.write_text(GRID)
    return file


def printed(capsys) -> str:
    return " ".join(capsys.readouterr().out.split())


def test_runs_hours_memory_and_disk_are_shown_and_nothing_runs(grid, tmp_path, capsys):
    main(["ablate", str(grid), "--dry_run", "--on=v5e:8", "--on=H200:1", f"--run.dir={tmp_path / 'runs'}"])
    text = printed(capsys)
    assert "6 runs, 0 of them done" in text
    assert "300 problems, each taken 26 times" in text  # 60 steps of 128 completions
    assert "template, tokenizer and generation_config.json agree" in text
    assert "v5e:8" in text
    assert "H200:1" in text
    assert text.count("fits") == 3  # both machines, and the disk
    assert not (tmp_path / "runs").exists()


def test_a_grid_whose_template_is_another_models_cannot_start(grid, tmp_path, capsys):
    folder = tmp_path / "mismatched"
    shutil.copytree(resolve_folder("arithmetic"), folder)
    change(folder / "tokenizer_config.json", chat_template=OTHER_MODELS)
    with pytest.raises(SystemExit) as stop:
        main(["ablate", str(grid), "--dry_run", f"--model.path={folder}", f"--run.dir={tmp_path / 'runs'}"])
    assert stop.value.code == 1
    assert "ends a turn with a token that ends no completion" in printed(capsys)


def test_data_that_cannot_be_read_is_said_and_the_rest_is_still_counted(grid, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["ablate", str(grid), "--dry_run", "--on=v5p:8", "--data.path=/nowhere.jsonl", f"--run.dir={tmp_path}"])
    assert stop.value.code == 1
    text = printed(capsys)
    assert "/nowhere.jsonl" in text
    assert "6 runs, 0 of them done" in text
    assert "v5p:8" in text


def test_an_unknown_machine_is_one_line(grid, capsys):
    assert "it is KIND:CHIPS" in refused(capsys, "ablate.py", grid, "--dry_run", "--on=v9:8")
