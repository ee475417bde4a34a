"""Where metrics go: TensorBoard by default, Weights & Biases and trackio where they are asked for and installed."""

import json
import os
import sys
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace
from unittest.mock import Mock, call

import pytest

from egrsd_jax.config import Config, RunSettings
from egrsd_jax.runs import trackers
from egrsd_jax.runs.folder import RunFolder
from egrsd_jax.runs.trackers import check_tracker


def run_folder(tmp_path, track: str) -> RunFolder:
    return RunFolder(Config(run=RunSettings(dir=str(tmp_path), name="x", track=track)))  # pyright: ignore


def logged(run: RunFolder, steps: range) -> None:
    run.open(steps.start, ["cpu"])
    for step in steps:
        run.log(step, {"loss": step / 2})
    run.close()


@pytest.fixture
def fake(monkeypatch):
    """A tracker's module that only records how it is called."""

    def install(name: str) -> Mock:
        recorder, module = Mock(), ModuleType(name)
        module.__dict__.update({function: getattr(recorder, function) for function in ("init", "log", "finish")})
        module.__spec__ = SimpleNamespace(name=name)  # pyright: ignore
        monkeypatch.setitem(sys.modules, name, module)
        return recorder

    return install


@pytest.mark.parametrize("track", ["auto", "none", "tensorboard"])
def test_tensorboard_is_the_default_and_none_leaves_metrics_jsonl_alone(tmp_path, track):
    assert Config().run.track == "auto"
    logged(run_folder(tmp_path, track), range(2))
    assert len((tmp_path / "x/metrics.jsonl").read_text().splitlines()) == 2
    assert (tmp_path / "x/tensorboard").is_dir() == (track != "none")


def test_without_tensorboard_metrics_go_to_metrics_jsonl_and_asking_for_it_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    logged(run_folder(tmp_path, "auto"), range(2))
    assert len((tmp_path / "x/metrics.jsonl").read_text().splitlines()) == 2
    assert not (tmp_path / "x/tensorboard").exists()
    with pytest.raises(ValueError, match="which is not installed: pip install tensorboardX"):
        check_tracker("tensorboard")


def test_weights_and_biases_gets_every_step_next_to_tensorboard(tmp_path, fake):
    wandb = fake("wandb")
    logged(run_folder(tmp_path, "wandb"), range(2))
    options = wandb.init.call_args.kwargs
    assert (options["name"], options["dir"], options["resume"]) == ("x", str(tmp_path / "x"), "allow")
    assert options["config"]["method"]["name"] == "egrsd"
    log, finish = wandb.init.return_value.log, wandb.init.return_value.finish
    assert log.mock_calls == [call({"loss": 0.0}, step=0), call({"loss": 0.5}, step=1)]
    finish.assert_called_once_with()
    assert list((tmp_path / "x/tensorboard").iterdir())


def test_a_resumed_run_continues_under_its_id_and_a_new_one_has_its_own(tmp_path, fake):
    wandb = fake("wandb")
    for steps in (range(2), range(1, 3), range(2)):
        logged(run_folder(tmp_path, "wandb"), steps)
    first, resumed, anew = (entry.kwargs["id"] for entry in wandb.init.call_args_list)
    assert first == resumed != anew


def test_trackio_gets_every_step_and_resumes_by_name(tmp_path, fake):
    trackio = fake("trackio")
    logged(run_folder(tmp_path, "trackio"), range(1))
    logged(run_folder(tmp_path, "trackio"), range(1, 2))
    assert [entry.kwargs["resume"] for entry in trackio.init.call_args_list] == ["never", "allow"]
    assert {entry.kwargs["name"] for entry in trackio.init.call_args_list} == {"x"}
    assert trackio.log.mock_calls == [call({"loss": 0.0}, step=0), call({"loss": 0.5}, step=1)]
    assert trackio.finish.call_count == 2


@pytest.mark.parametrize("track", ["wandb", "trackio"])
def test_a_tracker_that_is_not_installed_is_one_line(track, monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=f"^run.track is {track}, which is not installed: pip install {track}$"):
        check_tracker(track)


@pytest.mark.skipif(find_spec("wandb") is None, reason="needs wandb: pip install wandb")
def test_weights_and_biases_offline_keeps_the_run_in_its_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    logged(run_folder(tmp_path, "wandb"), range(3))
    [run] = (tmp_path / "x/wandb").glob("offline-run-*")
    assert list(run.glob("*.wandb"))
    assert (tmp_path / "x/tracker_id").read_text() in run.name


@pytest.mark.skipif(find_spec("trackio") is None, reason="needs trackio: pip install trackio")
def test_trackio_keeps_the_run_on_this_machine(tmp_path):
    """In a process of its own: trackio reads its folder when it is imported."""
    import subprocess

    code = (
        "from egrsd_jax.config import Config, RunSettings; from egrsd_jax.runs.folder import RunFolder; "
        f"run = RunFolder(Config(run=RunSettings(dir={str(tmp_path)!r}, name='x', track='trackio'))); "
        "run.open(0, []); run.log(0, {'loss': 1.0}); run.log(1, {'loss': 0.5}); run.close(); "
        "import json, trackio; print(json.dumps(trackio.Api().runs('egrsd_jax')[0].name))"
    )
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == "x"
    assert list((tmp_path / "trackio").iterdir())
