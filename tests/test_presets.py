"""Presets by name, from any folder."""

import re

import pytest

from egrsd_jax.command_line import parse_config
from egrsd_jax.presets import FOLDER, grid_file, training_file


def test_a_checkout_reads_its_configs_folder():
    assert FOLDER.name == "configs"
    assert (FOLDER.parent / "egrsd_jax").is_dir()


@pytest.mark.parametrize("given", ["qwen3_8b_cl_egrsd", "qwen3_8b_cl_egrsd.yaml", "configs/qwen3_8b_cl_egrsd.yaml"])
def test_a_preset_is_found_by_name_from_any_folder(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert training_file(given) == FOLDER / "qwen3_8b_cl_egrsd.yaml"


@pytest.mark.parametrize(
    "given", ["orders_gate", "orders_gate.yaml", "ablate/orders_gate", "configs/ablate/orders_gate.yaml"]
)
def test_a_grid_is_found_by_name_from_any_folder(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert grid_file(given) == FOLDER / "ablate/orders_gate.yaml"


def test_a_file_comes_before_a_preset_of_the_same_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "arithmetic.yaml").write_text("seed: 3\n")
    assert training_file("arithmetic.yaml").read_text() == "seed: 3\n"
    assert training_file("arithmetic") == FOLDER / "arithmetic.yaml"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("arithmetik", "no preset configuration of that name; the nearest is arithmetic"),
        ("orders_gate", "no preset configuration of that name; "),  # a grid is no configuration
        ("elsewhere/arithmetic.yaml", "elsewhere/arithmetic.yaml: there is no such file"),
        ("zzz", "the presets are arithmetic, orders, qwen3_4b_cl_egrsd"),
    ],
)
def test_what_is_neither_is_refused(given, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=re.escape(message)):
        training_file(given)


def test_the_command_line_takes_a_presets_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def parse(*argv):
        return parse_config(argv, program="egrsd train", description=None)

    named = parse("--config", "qwen3_8b_cl_egrsd", "--seed=3")
    assert named == parse("--config=configs/qwen3_8b_cl_egrsd.yaml", "--seed", "3")
    assert (named.method.gamma, named.method.window, named.seed) == (1.0, 5, 3)
    assert parse().model.path == "arithmetic"
    for argv, message in ((["--config"], "--config has no value"), (["--config=qwen"], "--config qwen: there is no")):
        with pytest.raises(SystemExit):
            parse(*argv)
        assert message in capsys.readouterr().err
