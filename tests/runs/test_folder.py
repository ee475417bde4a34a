"""What a run's folder keeps of an earlier, killed run, and what it drops."""

import json
import subprocess

from egrsd_jax.config import Config, RunSettings
from egrsd_jax.runs import folder as folder_module
from egrsd_jax.runs.files import read_rows
from egrsd_jax.runs.folder import RunFolder, run_name


def folder(tmp_path, **settings) -> RunFolder:
    return RunFolder(Config(run=RunSettings(dir=str(tmp_path), name="x")), **settings)


def filled(tmp_path) -> RunFolder:
    run = folder(tmp_path)
    run.open(0, ["cpu"])
    for step in range(5):
        run.log(step, {"loss": step / 2})
        run.log_samples([{"step": step, "text": "a"}, {"step": step, "text": "b"}])
    for step in (0, 2, 4):
        run.write_json(f"evaluation_step{step}.json", {"step": step})
    run.close()
    return run


def test_rows_and_evaluations_from_the_resumed_step_on_are_dropped(tmp_path):
    filled(tmp_path)
    run = folder(tmp_path)
    run.open(3, ["cpu"])
    run.close()
    assert [row["step"] for row in read_rows(run.metrics)] == [0, 1, 2]
    assert [row["step"] for row in read_rows(run.samples)] == [0, 0, 1, 1, 2, 2]
    assert [run.read_json(f"evaluation_step{step}.json") for step in (0, 2, 4)] == [{"step": 0}, {"step": 2}, None]


def test_a_run_without_a_checkpoint_keeps_nothing_of_the_one_before(tmp_path):
    """It may have had another configuration: only checkpoints are bound to one."""
    filled(tmp_path)
    run = folder(tmp_path)
    run.open(0, ["cpu"])
    run.close()
    assert read_rows(run.metrics) == read_rows(run.samples) == []
    assert [run.read_json(f"evaluation_step{step}.json") for step in (0, 2, 4)] == [None] * 3


def test_a_line_cut_short_by_a_kill_is_no_row(tmp_path):
    run = filled(tmp_path)
    with run.metrics.open("a") as stream:
        stream.write('{"step": 5, "lo')
    assert len(read_rows(run.metrics)) == 5


def test_a_host_that_does_not_write_writes_nothing(tmp_path):
    run = folder(tmp_path, writes=False)
    run.open(0, ["cpu"])
    run.log(0, {"loss": 1.0})
    run.log_samples([{"step": 0}])
    run.write_json("evaluation_step0.json", {})
    run.close()
    assert not list(tmp_path.iterdir())


def test_the_environment_is_recorded(tmp_path):
    run = filled(tmp_path)
    environment = json.loads((run.path / "environment.json").read_text())
    assert environment["seed"] == 0
    assert environment["packages"]["jax"]
    assert {"python", "platform", "command", "git", "devices", "version"} <= set(environment)


def test_a_resumed_run_keeps_its_earlier_starts_and_returns_versions_that_differ(tmp_path, monkeypatch):
    run = filled(tmp_path)
    file = run.path / "environment.json"
    first = json.loads(file.read_text())
    assert first["earlier_starts"] == []
    assert folder(tmp_path).open(1, ["cpu"]) == []
    monkeypatch.setitem(first["packages"], "jax", "0.9.9")
    del first["version"]  # as runs of 0.1.0
    file.write_text(json.dumps(first))
    lines = folder(tmp_path).open(2, ["cpu"])
    assert [line.split(";")[1] for line in lines] == [" the last start had 0.1.0", " the last start had 0.9.9"]
    [earlier] = json.loads(file.read_text())["earlier_starts"]
    assert earlier["packages"]["jax"] == "0.9.9"


def test_the_commit_is_that_of_a_repository_which_tracks_this_code_and_of_no_other(tmp_path, monkeypatch):
    installed = tmp_path / "site-packages/egrsd_jax/runs/folder.py"
    installed.parent.mkdir(parents=True)
    installed.write_text("")
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    monkeypatch.setattr(folder_module, "__file__", str(installed))
    assert folder_module._git_state() is None


def test_a_runs_name_is_its_model_method_and_seed():
    assert run_name(Config()) == "arithmetic-egrsd-seed0"
