"""Whole runs whose completions come from a server: with each step's weights, through its losses, and resumed."""

import json
import threading

import jax
import numpy as np
import pytest

from egrsd_jax.cli.main import main
from egrsd_jax.command_line import parse_config
from egrsd_jax.model.hf.hub import load_pretrained
from egrsd_jax.model.hf.peft import load_adapter
from egrsd_jax.model.sharding import make_mesh
from egrsd_jax.presets import training_file
from egrsd_jax.rollout.engine import Engine
from egrsd_jax.rollout.http import server as http_server
from egrsd_jax.rollout.http.server import ServerError
from egrsd_jax.rollout.requests import Request, Sampling, complete
from egrsd_jax.train.loop import train
from egrsd_jax.train.setup import prepare
from tests.rollout.served.serving import STOP, serving

COMPLETIONS, LOAD = "/v1/completions", "/v1/load_lora_adapter"
SMALL = (
    *("--train.steps=3", "--train.batch_size=4", "--train.micro_batch_size=4", "--rollout.samples_per_problem=2"),
    *("--rollout.max_new_tokens=12", "--evaluation.problems=2", "--evaluation.samples=1", "--run.track=none"),
    *("--evaluation.max_new_tokens=12", "--lora.rank=2", "--train.learning_rate=0.01"),
)

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(http_server, "FIRST_WAIT", 0.01)


@pytest.fixture(scope="module")
def sampled():
    """A request's answer by the built-in model with an adapter, or without, and the prompt's completion."""
    config, params = load_pretrained("arithmetic", dtype="float32")
    config = config.replace(dtype="float32")
    mesh = make_mesh(devices=jax.devices()[:1])
    engine = Engine(config, mesh, (STOP,), max_rows=1, max_prompt_tokens=64, max_new_tokens=12)
    lock = threading.Lock()

    def answer(server, body: dict) -> dict:
        rules = {name: body[name] for name in ("temperature", "top_k", "top_p", "min_p")}
        rules |= {"top_k": max(body["top_k"], 0), "max_new_tokens": body["max_tokens"]}
        key = np.array([body["seed"] >> 32, body["seed"] % 2**32], np.uint32)
        with lock:
            folder = server.adapters.get(body["model"])
            engine.update_params(params, load_adapter(folder, config) if folder else None)
            (completion,) = complete(engine, [Request(body["prompt"], Sampling(**rules), key)])
        return {
            "model": body["model"],
            "choices": [
                {
                    "finish_reason": completion.ended,
                    "token_ids": completion.tokens,
                    "logprobs": {"token_logprobs": completion.logp.tolist()},
                }
            ],
            "usage": {"prompt_tokens": len(body["prompt"]), "completion_tokens": len(completion.tokens)},
        }

    return answer


def run(folder, server, *more):
    options = [f"--run.dir={folder}", "--run.name=run", f"--rollout.server={server.url}", *SMALL, *more]
    return prepare(parse_config(options, program="train", description=None, default=training_file("arithmetic")))


def rows(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "run/metrics.jsonl").read_text().splitlines()]


def test_each_step_is_sampled_with_its_weights_and_a_run_that_lost_its_server_resumes(sampled, tmp_path):
    loads, refuses, before = [], [True], []

    def behave(handler, path, body):
        if path == LOAD:
            loads.append(body["lora_name"])
        if path != COMPLETIONS or body["model"] not in (*server.adapters, "base"):
            return None
        if len(loads) == 1 and len(server.completions()) == 1 + 2 + 3:
            server.forget()  # it was started again in the middle of step 0
            return None
        if len(loads) == 4 and refuses:
            before.append(body["seed"])
            return {"detail": "out of memory"}, 400
        return sampled(server, body)

    with serving(behave) as server:
        with pytest.raises(
            ServerError, match=r"out of memory; nothing of this step is kept; the same command resumes"
        ) as end:
            train(run(tmp_path, server, "--rollout.in_flight=1"))
        assert end.value.exit_code == 1  # pyright: ignore
        assert [row["step"] for row in rows(tmp_path)] == [0, 1]
        assert loads[0] == loads[1]  # given again after it was lost
        refuses.clear()
        asked = len(server.completions())
        train(run(tmp_path, server, "--rollout.in_flight=1"))
        seeds = [body["seed"] for body in server.completions()[asked:]]
        assert before[0] in seeds
        assert not server.adapters
        assert not list((tmp_path / "run/served").iterdir())
    assert [row["step"] for row in rows(tmp_path)] == [0, 1, 2]
    assert all(row["sampler_logp_gap_max"] < 1e-4 for row in rows(tmp_path))
    assert all(row["seconds_push"] > 0 for row in rows(tmp_path))
    assert len(set(loads)) == len(loads) - 1  # but for the adapter that was lost, no name was used twice
    samples = [json.loads(line) for line in (tmp_path / "run/samples.jsonl").read_text().splitlines()]
    assert [sample["step"] for sample in samples] == [0] * 4


def test_a_server_with_other_weights_ends_the_run_before_its_update_is_kept(sampled, tmp_path):
    def behave(handler, path, body):
        if path == COMPLETIONS:
            answer = sampled(server, body)
            logp = answer["choices"][0]["logprobs"]
            logp["token_logprobs"] = [value - 0.6 for value in logp["token_logprobs"]]
            return answer
        return None

    with (
        serving(behave) as server,
        pytest.raises(FloatingPointError, match=r"the limit of rollout.gap_stops: the server"),
    ):
        train(run(tmp_path, server, "--evaluation.path=null"))
    assert not list((tmp_path / "run/checkpoints").glob("[0-9]*"))


def test_mistakes_are_one_line_and_nothing_is_written(tmp_path, capsys):
    with serving(context=16) as server:
        cases = (
            ((f"--rollout.server={server.url}",), "takes 16 (max_model_len)"),
            ((f"--rollout.server={server.url}", "--rollout.served=other"), "has no model 'other'"),
            (("--rollout.server=http://127.0.0.1:9",), "Connection refused"),
        )
        for options, message in cases:
            with pytest.raises(SystemExit) as end:
                main(["train", f"--run.dir={tmp_path / 'runs'}", *SMALL, *options], program="egrsd train")
            assert end.value.code == 2
            printed = capsys.readouterr().err
            assert message in printed
            assert printed.count("\n") == 1
    assert not (tmp_path / "runs").exists()
