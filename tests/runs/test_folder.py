"""What a run's folder keeps of an earlier, killed run, and what it drops."""

import json
import subprocess

import pytest

from egrsd_jax.config import Config, RunSettings
from egrsd_jax.runs import folder as folder_module
from egrsd_jax.runs import lock
from egrsd_jax.runs.binding import BegunOtherwise, CheckpointsLost
from egrsd_jax.runs.files import read_rows
from egrsd_jax.runs.fingerprint import InputsChanged
from egrsd_jax.runs.folder import RunFolder, run_name
from egrsd_jax.runs.layout import EVALUATIONS
from egrsd_jax.runs.rows import gone


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


def test_a_run_without_a_checkpoint_begins_again_and_keeps_the_evaluation_before_it(tmp_path):
    filled(tmp_path)
    run = folder(tmp_path)
    run.open(0, ["cpu"])
    run.close()
    assert read_rows(run.metrics) == read_rows(run.samples) == []
    assert [run.read_json(f"evaluation_step{step}.json") for step in (0, 2, 4)] == [{"step": 0}, None, None]


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
    again = folder(tmp_path)
    assert again.open(1, ["cpu"]) == []
    again.log(1, {"loss": 0.5})
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


NOW = {"weights": "a" * 64}
PLACES = {"weights": "the weights in model"}


@pytest.fixture
def begun(tmp_path):
    """A run's folder from its first second: nothing in it but its settings and fingerprints."""
    run = folder(tmp_path)
    run.check()
    assert not list(tmp_path.iterdir())
    run.begin(NOW, PLACES)
    lock.release_all()
    yield run
    lock.release_all()


def other(tmp_path, **settings) -> RunFolder:
    config = Config(seed=1, run=RunSettings(dir=str(tmp_path), name="x", **settings))
    return RunFolder(config)


def test_settings_and_inputs_are_bound_from_the_first_second(begun, tmp_path):
    folder(tmp_path).begin(NOW, PLACES)
    for refuse in (other(tmp_path).check, lambda: other(tmp_path).begin(NOW, PLACES)):
        with pytest.raises(
            BegunOtherwise, match="x was begun with other settings: seed was 0 and is 1; give those, an"
        ):
            refuse()
    with pytest.raises(
        InputsChanged, match=r"x began this has changed: the weights in model \(fingerprint aaaaaaaaaaaa"
    ):
        folder(tmp_path).begin({"weights": "b" * 64}, PLACES)


def test_starting_over_moves_what_was_there_aside_and_deletes_nothing(begun, tmp_path):
    before = {file.name: file.read_bytes() for file in begun.path.iterdir()}
    for number in (1, 2):
        run = other(tmp_path, restart=True)
        run.begin(NOW, PLACES)
        assert run.notes == [f"what was in {run.path} is in {tmp_path}/x.old{number} now"]
        lock.release_all()
    assert {file.name: file.read_bytes() for file in (tmp_path / "x.old1").iterdir()} == before
    assert begun.path.joinpath("config.yaml").read_text() != before["config.yaml"].decode()


def test_rows_of_unknown_settings_are_nobodys_to_empty(begun, tmp_path):
    begun.open(0, ["cpu"])
    begun.log(0, {"loss": 1.0})
    (begun.path / "config.yaml").unlink()
    with pytest.raises(BegunOtherwise, match=r"x has metrics\.jsonl and no config\.yaml"):
        folder(tmp_path).begin(NOW, PLACES)
    assert len(read_rows(begun.metrics)) == 1


def test_checkpoints_that_must_have_been_there_are_missed(begun, tmp_path):
    begun.open(0, ["cpu"])
    every = Config().train.checkpoint_every
    for step in range(every + 1):
        folder(tmp_path).check()
        begun.log(step, {"loss": 1.0})
    with pytest.raises(CheckpointsLost, match=f"came to step {every} .* its newest is gone: there is none; put"):
        folder(tmp_path).check()
    RunFolder(Config(run=RunSettings(dir=str(tmp_path), name="x", older_checkpoint=True))).check()


def test_a_changed_step_does_not_miss_a_checkpoint_that_never_was(begun, tmp_path):
    begun.open(0, ["cpu"])
    begun.log(1, {"loss": 1.0})
    begun.metrics.write_bytes(begun.metrics.read_bytes().replace(b'"step": 1', b'"step": 99'))
    folder(tmp_path).check()


def test_what_is_damaged_is_kept_aside_and_named(tmp_path):
    run = filled(tmp_path)
    rows = run.metrics.read_bytes().splitlines(keepends=True)
    run.metrics.write_bytes(b"".join([rows[0], rows[1].replace(b"0.5", b"0.7"), *rows[2:]]))
    evaluation = run.path / "evaluation_step2.json"
    evaluation.write_bytes(evaluation.read_bytes().replace(b"2", b"3"))
    (run.path / "environment.json").write_text("{")
    notes = "\n".join(folder(tmp_path).open(4, ["cpu"]))
    for text in (
        "metrics.jsonl, line 2, is not what was written; it is kept in metrics.jsonl.damaged",
        "metrics.jsonl has no rows of steps 1; they stay missing",
        "evaluation_step2.json is not what was written: its checksum is another; it is kept as",
        "environment.json cannot be read",
    ):
        assert text in notes
    assert [row["step"] for row in read_rows(run.metrics)] == [0, 2, 3]
    assert (run.path / "evaluation_step2.json.damaged").is_file()


def test_an_evaluation_that_is_gone_or_set_aside_has_no_checksums_left(tmp_path):
    run = filled(tmp_path)
    (run.path / "evaluation_step0.json").unlink()
    (run.path / "evaluation_step2.json").write_text("{")
    assert [file.name for file in gone(run.path, EVALUATIONS)] == ["evaluation_step0.json"]
    folder(tmp_path).open(3, ["cpu"])
    assert not [*run.path.glob(".evaluation*")]


def test_conditions_of_the_same_bits_are_compared_when_a_run_resumes(tmp_path, monkeypatch):
    filled(tmp_path)
    monkeypatch.setattr(folder_module, "_processors", lambda: 77)
    [line] = folder(tmp_path).open(1, ["cpu"])
    assert line.startswith("resumed with CPU threads 77; the last start had ")
    assert line.endswith("to rounding, not bit for bit")
    [line] = [line for line in folder(tmp_path).open(1, ["cpu", "cpu"]) if "devices" in line]
    assert "resumed with devices 2 cpu; the last start had 1 cpu" in line


def test_a_runs_name_is_its_model_method_and_seed():
    assert run_name(Config()) == "arithmetic-egrsd-seed0"
