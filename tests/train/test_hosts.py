"""Two processes with four devices each, as two hosts, against one process with eight and with one."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "--train.steps=3",
    "--train.batch_size=8",
    "--train.micro_batch_size=8",
    "--train.sample_every=1",
    "--lora.rank=4",
    "--rollout.max_new_tokens=24",
    "--evaluation.problems=8",
    "--evaluation.samples=1",
    "--evaluation.slots=8",
    "--evaluation.max_new_tokens=24",
    "--evaluation.every=0",
]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(folder: Path, devices: int, *arguments: str) -> subprocess.Popen:
    flags = f"--xla_force_host_platform_device_count={devices}"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    command = [sys.executable, str(ROOT / "launch/train.py"), f"--run.dir={folder}", *SMALL, *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(*processes: subprocess.Popen) -> list[str]:
    outputs = [process.communicate(timeout=900)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), "\n".join(outputs)
    return outputs


def rows(folder: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def test_two_hosts_give_what_one_gives(tmp_path):
    mesh = ["--model.data=2", "--model.fsdp=4"]
    finish(start(tmp_path, 1, "--run.name=one"))
    finish(start(tmp_path, 8, "--run.name=eight", *mesh))
    together = [f"--run.coordinator=127.0.0.1:{free_port()}", "--run.hosts=2", "--run.name=hosts", *mesh]
    outputs = finish(*(start(tmp_path, 4, *together, f"--run.host={host}") for host in (0, 1)))
    assert "change" in outputs[0]
    assert "change" not in outputs[1]  # one of them speaks

    expected = rows(tmp_path / "one", "metrics.jsonl")
    for name in ("eight", "hosts"):
        for row, wanted in zip(rows(tmp_path / name, "metrics.jsonl"), expected, strict=True):
            for figure in ("loss", "gradient_norm", "reward_mean", "reward_running_mean", "entropy_max", "gate_mean"):
                np.testing.assert_allclose(
                    row[figure], wanted[figure], rtol=2e-4, atol=1e-6, err_msg=f"{name} {figure}"
                )
        drawn = [[row["tokens"] for row in rows(tmp_path / run, "samples.jsonl")] for run in (name, "one")]
        assert drawn[0] == drawn[1]
        evaluations = [json.loads((tmp_path / run / "evaluation_step3.json").read_text()) for run in (name, "one")]
        assert evaluations[0] == evaluations[1]
