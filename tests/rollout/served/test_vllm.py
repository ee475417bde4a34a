"""Runs against a real vLLM, where EGRSD_VLLM is the Python of an environment that has it."""

import json
import os

import pytest

from benchmarks.peers.vllm_server import VllmServer
from benchmarks.served import RUN, compare_versions, small_model
from egrsd_jax.command_line import parse_config
from egrsd_jax.presets import training_file
from egrsd_jax.rollout.http.server import ServerError
from egrsd_jax.runs.folder import RunFolder
from egrsd_jax.train.loop import train
from egrsd_jax.train.setup import prepare

PYTHON = os.environ.get("EGRSD_VLLM", "")
STEPS = 3

pytestmark = [
    pytest.mark.server,
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="needs EGRSD_VLLM, the Python of an environment with vLLM: docs/served.md"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return small_model(tmp_path_factory.mktemp("vllm") / "model")


@pytest.fixture(scope="module")
def server(model):
    with VllmServer(PYTHON, model, model.parent / "log", rows=16) as server:
        yield server


def run(folder, server, model, *more):
    options = [f"--run.dir={folder}", "--run.name=run", f"--rollout.server={server.url}", *RUN, f"--model.path={model}"]
    options += ["--train.batch_size=8", "--rollout.max_new_tokens=24", f"--train.steps={STEPS}", *more]
    return prepare(parse_config(options, program="train", description=None, default=training_file("arithmetic")))


def test_completions_are_of_the_adapter_that_was_given_last_and_not_of_an_older_ones_cache(server, model, tmp_path):
    counts = compare_versions(server.url, model, tmp_path)
    assert counts["same_first"] == counts["same_second"] == counts["prompts"]
    assert counts["changed"] == counts["prompts"]
    assert counts["gap"] < 1e-4


def test_what_it_cannot_do_is_refused_before_the_first_step(server, model, tmp_path):
    with pytest.raises(ValueError, match=r"takes 512 \(max_model_len\)"):
        run(tmp_path, server, model, "--data.max_prompt_tokens=600", "--rollout.max_new_tokens=500")
    with pytest.raises(
        ServerError, match=r"greater than max_lora_rank 16.*start the server with --max-lora-rank of it"
    ):
        train(run(tmp_path / "rank", server, model, "--lora.rank=32"))
    with pytest.raises(ServerError, match="keeps the old output head"):
        run(tmp_path, server, model, "--lora.rank=0")


def test_a_run_whose_server_is_killed_and_started_again_has_every_step_once(server, model, tmp_path, monkeypatch):
    log = RunFolder.log

    def log_then_kill(folder: RunFolder, step: int, values: dict[str, float]) -> None:
        log(folder, step, values)
        if step == 0:
            server.kill()
            server.start(wait=False)

    monkeypatch.setattr(RunFolder, "log", log_then_kill)
    train(run(tmp_path, server, model))
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    samples = [json.loads(line) for line in (tmp_path / "run/samples.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(STEPS))
    assert [sum(sample["step"] == step for sample in samples) for step in range(STEPS)] == [8] * STEPS
    assert all(row["sampler_logp_gap_mean"] < 1e-4 for row in rows)
    assert not list((tmp_path / "run/served").iterdir())
