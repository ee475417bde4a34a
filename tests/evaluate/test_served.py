"""Evaluations with a server: what is kept when it fails, what is told apart, and mistakes."""

import json
import re
import subprocess
from pathlib import Path

import jax
import pytest

from egrsd_jax.cli.main import main
from egrsd_jax.data.tokenizer import load_tokenizer
from egrsd_jax.evaluate.policies import load_policy
from egrsd_jax.evaluate.run import default_folder, evaluate
from egrsd_jax.evaluate.samples import EvaluationFolder
from egrsd_jax.evaluate.settings import Settings
from egrsd_jax.model.hf.hub import resolve_folder
from egrsd_jax.model.sharding import make_mesh
from egrsd_jax.report.evaluation import write_report
from egrsd_jax.rollout.http.engine import API_KEY
from egrsd_jax.rollout.http.server import ServerError
from egrsd_jax.runs.files import SettingsMismatch
from tests.commands import command_line
from tests.rollout.http.fake_server import STOP, completion, serving


def settings(url: str, folder: Path, **others) -> Settings:
    return Settings(server=url, to=folder, problems=6, samples=2, **others)


def test_a_server_that_fails_leaves_what_was_finished_and_the_rest_is_drawn_later(tmp_path, monkeypatch):
    monkeypatch.setenv(API_KEY, "secret")
    refused = []

    def behave(handler, body, number):
        if number == 5:
            refused.append(body["prompt"])
            handler.reply({"detail": "out of memory"}, 400)
            handler.drop()

    with serving(behave) as server:
        asked = settings(server.url, tmp_path, in_flight=1)
        with pytest.raises(
            ServerError, match="400 out of memory; the samples that ended are kept, and the same command"
        ):
            evaluate(asked)
        kept = (tmp_path / "samples_arithmetic.jsonl").read_bytes()
        assert kept.count(b"\n") == len(server.bodies) - 1 == 5
        write_report(evaluate(asked))
        assert len(server.bodies) == 6 + 7  # nothing is asked for twice, but for what was refused
        assert server.bodies[6]["prompt"] == refused[0]
        evaluate(asked)
        assert len(server.bodies) == 13
    assert {each["Authorization"] for each in server.headers} == {"Bearer secret"}
    assert (tmp_path / "samples_arithmetic.jsonl").read_bytes().startswith(kept)
    assert len({body["seed"] for body in server.bodies}) == 12
    tokenizer, stop_ids = load_tokenizer(resolve_folder("arithmetic"))
    assert STOP in stop_ids
    texts = [tokenizer.decode([*reversed(body["prompt"])], skip_special_tokens=True) for body in server.bodies]
    samples = EvaluationFolder(tmp_path).samples("arithmetic")
    assert {sample.text for sample in samples.values()} == set(texts)
    for sample in samples.values():
        assert sample.stopped
        assert sample.tokens >= len(tokenizer.encode(sample.text))
        assert 0 < sample.seconds < 10


def test_the_regime_names_the_servers_model_and_adapter_and_not_its_address(tmp_path):
    with serving() as server, serving() as elsewhere:
        evaluate(settings(server.url, tmp_path))
        evaluate(settings(elsewhere.url, tmp_path))
        assert not elsewhere.bodies
        with pytest.raises(SettingsMismatch, match=r"model was 'base by vllm, .*' and is 'base with tuned by vllm, "):
            evaluate(settings(server.url, tmp_path, served_adapter="tuned"))
    with serving(kind="sglang") as server, pytest.raises(SettingsMismatch, match="and is 'base by sglang, "):
        evaluate(settings(server.url, tmp_path))
    with pytest.raises(
        SettingsMismatch, match="dtype was \"the server's dtype\" and is 'float32'; model was 'base by vllm"
    ):
        evaluate(Settings(to=tmp_path, problems=6, samples=2))
    regime = json.loads((tmp_path / "regime.json").read_text())
    assert regime["free"]["label"] == "base by vllm"
    assert regime["free"]["server"].startswith("http://127.0.0.1:")


def test_results_are_kept_by_the_servers_names():
    with serving() as server:
        asked = Settings(server=server.url, served="base", served_adapter="tuned")
        policy = load_policy(asked, make_mesh(devices=jax.devices()[:1]))
    assert default_folder(asked, policy) == Path("runs/evaluation-base-with-tuned-by-vllm-seed0")


def test_half_of_aime_without_a_box_is_in_every_table_of_the_command(tmp_path, capsys):
    rows = [{"problem": f"{number % 8} + 1 =", "answer": str(number % 8 + 1)} for number in range(30)]
    (tmp_path / "aime25.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    tokenizer, _ = load_tokenizer(resolve_folder("arithmetic"))

    def behave(handler, body, number):
        asked = int(re.findall(r"\d", tokenizer.decode(body["prompt"]))[0])
        text = rf"\boxed{{{asked + 1}}}" if asked % 2 else str(asked + 1)
        tokens = [*tokenizer.encode(text, add_special_tokens=False), STOP]
        return completion({"token_ids": tokens}, prompt_tokens=len(body["prompt"]), completion_tokens=len(tokens))

    with serving(behave) as server:
        asked = ["--server", server.url, "--benchmarks", "aime25", "--data", str(tmp_path), "--max_new_tokens", "64"]
        main(["evaluate", *asked, "--prompt", "{problem}", "--to", str(tmp_path / "out")])
    printed = " ".join(capsys.readouterr().out.split())
    metrics = json.loads((tmp_path / "out/results.json").read_text())["benchmarks"]["aime25"]["metrics"]
    assert (metrics["no_answer"], metrics["missing"], metrics["cut_off"]) == (0.5, {"no box": 60}, 0.0)
    assert metrics["accuracy"]["value"] == 0.5
    warning = "Warning: aime25: 50.0% of the completions have no answer (60 no box)"
    written = (tmp_path / "out/results.md").read_text()
    assert "| no answer | cut off | ungradable |" in written
    assert "| 50.0% | 0.0% | 0.0% |" in written
    assert warning in written
    assert "│ 50.0% │ 0.0% │ 0.0% │" in printed
    assert warning in printed


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"served": "x"}, "--served is for a --server, and there is none"),
        ({"in_flight": 4}, "--in_flight is for a --server"),
        ({"server_kind": "chat"}, "--server_kind is for a --server"),
        ({"server": "http://x", "server_wait": -1.0}, "--server_wait is -1.0; it must be at least 0"),
        ({"server": "http://x", "server_timeout": 0.0}, "--server_timeout is 0.0; it must be over 0"),
        ({"server": "http://x", "run": Path("y")}, "--run is not for a --server: serve what `egrsd export` writes"),
        ({"server": "http://x", "adapter": Path("y")}, "--adapter is not for a --server: name one that it has loaded"),
        ({"server": "http://x", "max_rows": 4}, "--max_rows is not for a --server: give --in_flight"),
        ({"server": "http://x", "mesh": (1, 1, 1)}, "--mesh is not for a --server"),
        ({"server": "http://x", "in_flight": 0}, "--in_flight is 0; it must be at least 1"),
    ],
)
def test_contradictions_are_refused(others, message):
    with pytest.raises(ValueError, match=message):
        Settings(**others)


def test_a_cap_that_the_server_cannot_hold_is_refused_before_anything_is_written(tmp_path):
    with serving(kind="short") as server, pytest.raises(ValueError, match=r"the server takes 12 \(max_model_len\)"):
        evaluate(settings(server.url, tmp_path / "none"))
    assert not server.bodies
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_a_server_that_is_not_there_is_one_line_and_exit_code_2(tmp_path):
    with serving() as server:
        url = server.url
    command = command_line("evaluate.py", "--server", url, "--to", tmp_path / "none")
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"evaluate.py: error: {url}/v1/models failed: " in done.stderr
    assert not (tmp_path / "none").exists()
