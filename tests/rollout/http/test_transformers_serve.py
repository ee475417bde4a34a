"""The HTTP engine and evaluation against `transformers serve`: the same greedy completions, and a server that dies."""

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import jax
import numpy as np
import pytest

from egrsd_jax.data.prompts import PromptTemplates, encode_student
from egrsd_jax.data.tokenizer import TOKENIZER_FILES, load_tokenizer
from egrsd_jax.evaluate import run
from egrsd_jax.evaluate.benchmarks import find_benchmark, load_benchmark
from egrsd_jax.evaluate.run import evaluate
from egrsd_jax.evaluate.samples import EvaluationFolder, Sample
from egrsd_jax.evaluate.settings import Settings
from egrsd_jax.model.hf.hub import load_pretrained, resolve_folder, save_pretrained
from egrsd_jax.model.sharding import make_mesh
from egrsd_jax.rollout.engine import Engine
from egrsd_jax.rollout.http import server as client
from egrsd_jax.rollout.http.engine import HttpEngine
from egrsd_jax.rollout.http.server import ServerError
from egrsd_jax.rollout.requests import Completion, Request, Sampling, complete

MISSING = [
    name for name in ("torch", "accelerate", "fastapi", "uvicorn", "openai") if not importlib.util.find_spec(name)
]
pytestmark = [
    pytest.mark.server,
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"`transformers serve` needs {', '.join(MISSING)}"),
]

CAP = 60


class Served:
    """`transformers serve` on a folder, in a process of its own, which can be killed and started again."""

    def __init__(self, folder: Path, log: Path):
        self.folder, self._log = folder, log
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(self.folder)]
        command += ["--device", "cpu", "--host", "127.0.0.1", "--port", str(self._port)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=log, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + 120
        while True:
            try:
                return client.Server(self.url).ask("/v1/models", tries=1)
            except ServerError:
                assert self._process.poll() is None, self._log.read_text()
                assert time.monotonic() < deadline, self._log.read_text()
                time.sleep(0.1)

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The built-in model, written anew, with sampling settings of its own that nobody asks for."""
    folder = tmp_path_factory.mktemp("served") / "model"
    config, params = load_pretrained("arithmetic", dtype="float32")
    save_pretrained(folder, config, params)
    for name in TOKENIZER_FILES:
        if (file := resolve_folder("arithmetic") / name).is_file():
            shutil.copy(file, folder)
    own = {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.9, "repetition_penalty": 1.5}
    (folder / "generation_config.json").write_text(json.dumps(own))
    served = Served(folder, folder.parent / "log")
    yield served
    served.kill()


@pytest.fixture(scope="module")
def here():
    """The same model's greedy completions from the engine in this process."""
    config, params = load_pretrained("arithmetic", dtype="float32")
    mesh = make_mesh(devices=jax.devices()[:1])

    def draw(prompts: list[list[int]], stop_ids: tuple[int, ...]) -> list[Completion]:
        engine = Engine(
            config.replace(dtype="float32"), mesh, stop_ids, max_rows=4, max_prompt_tokens=32, max_new_tokens=CAP
        )
        engine.update_params(params)
        return complete(engine, [Request(prompt, Sampling(temperature=0.0, max_new_tokens=CAP)) for prompt in prompts])

    return draw


def test_greedy_completions_are_those_of_the_engine_here(served, here):
    tokenizer, _ = load_tokenizer(served.folder)
    stop_ids = (tokenizer.eos_token_id,)  # of several, a text does not show which it was
    problems = load_benchmark(find_benchmark("arithmetic", {})).problems[:5]
    templates = PromptTemplates(student="{problem}", student_thinking=True)
    prompts = [encode_student(tokenizer, templates, problem) for problem in problems]
    engine = HttpEngine(served.url, tokenizer, stop_ids, in_flight=4)
    sampling = Sampling(temperature=0.0, max_new_tokens=CAP)
    found = complete(engine, [Request(prompt, sampling) for prompt in prompts])
    wanted = here(prompts, stop_ids)
    expected = [each.tokens for each in wanted]
    assert [each.tokens for each in found] == expected
    assert [each.ended for each in found] == [each.ended for each in wanted]
    length = len(expected[0])  # a stop token in the last place is an end, and one place less cuts it off
    for most, ended in ((length, "stop"), (length - 1, "length")):
        (each,) = complete(engine, [Request(prompts[0], Sampling(temperature=0.0, max_new_tokens=most))])
        assert (each.tokens, each.ended) == (expected[0][:most], ended)


def test_sampling_is_as_it_is_asked_for(served, here):
    """Sampled at temperature 1 a problem's completions differ; a repetition penalty of 1.5 would leave no answers."""
    tokenizer, _ = load_tokenizer(served.folder)
    stop_ids = (tokenizer.eos_token_id,)
    (problem, *_) = load_benchmark(find_benchmark("arithmetic", {})).problems
    prompt = encode_student(tokenizer, PromptTemplates(student="{problem}", student_thinking=True), problem)
    engine = HttpEngine(served.url, tokenizer, stop_ids, in_flight=1)
    requests = [Request(prompt, Sampling(max_new_tokens=96), np.array([0, n], np.uint32)) for n in range(4)]
    first, second = complete(engine, requests), complete(engine, requests)
    assert len({tuple(each.tokens) for each in first}) > 1
    assert sum("\\boxed{" in str(each.text) for each in first) >= 3
    assert [each.tokens for each in first] == [each.tokens for each in second]  # one at a time, by their seeds
    (narrow,) = complete(engine, [Request(prompt, Sampling(5.0, top_k=1, max_new_tokens=CAP))])
    assert narrow.tokens == here([prompt], stop_ids)[0].tokens


def test_an_evaluation_whose_server_is_killed_keeps_what_was_finished_and_goes_on(served, here, tmp_path, monkeypatch):
    monkeypatch.setattr(client, "FIRST_WAIT", 0.05)
    settings = Settings(
        model=str(served.folder),
        server=served.url,
        server_wait=0.1,
        in_flight=2,
        benchmarks=("arithmetic",),
        problems=12,
        samples=1,
        temperature=0.0,
        max_new_tokens=CAP,
        to=tmp_path / "evaluation",
    )
    file = settings.to / "samples_arithmetic.jsonl"
    append = EvaluationFolder.append

    def append_then_kill(folder: EvaluationFolder, benchmark: str, samples: Iterable[Sample]) -> None:
        append(folder, benchmark, samples)
        if file.read_bytes().count(b"\n") >= 5:
            served.kill()

    with monkeypatch.context() as patched:
        patched.setattr(run, "WRITE_EVERY", 0.0)  # every sample as it ends, so that some are missing at the kill
        patched.setattr(EvaluationFolder, "append", append_then_kill)
        with pytest.raises(ServerError, match="the samples that ended are kept, and the same command resumes"):
            evaluate(settings)
    kept = file.read_bytes()
    assert 5 <= kept.count(b"\n") < 12
    served.start()
    evaluated = evaluate(settings)
    assert file.read_bytes().startswith(kept)
    samples = EvaluationFolder(settings.to).samples("arithmetic")
    assert len(samples) == 12
    assert evaluated.results[0].metrics.accuracy.value > 0.4
    tokenizer, stop_ids = load_tokenizer(served.folder)
    for problem in load_benchmark(find_benchmark("arithmetic", {})).problems[:12:5]:
        templates = PromptTemplates(student="{problem}", student_thinking=True)
        (tokens,) = (each.tokens for each in here([encode_student(tokenizer, templates, problem)], stop_ids))
        sample = samples[problem.id, 0]
        assert sample.tokens == len(tokens)
        assert sample.text == tokenizer.decode(tokens, skip_special_tokens=True)
        assert 0 < sample.seconds < 60
