"""What a run's folder keeps of an earlier, killed run, and what it drops."""

import json

from egrsd_jax.config import Config, RunSettings
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
    assert {"python", "platform", "command", "git", "devices"} <= set(environment)
    assert run_name(Config()) == "arithmetic-egrsd-seed0"
