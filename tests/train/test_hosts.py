"""Two processes with four devices each, as two hosts: against one process with eight devices and with one, with a
server, and when one of them freezes. What else can happen to a host: tests/model/test_host_watch.py."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egrsd_jax.command_line import load_config
from egrsd_jax.model.hf.checkpoint_names import named_leaves
from egrsd_jax.model.hf.hub import load_pretrained
from egrsd_jax.model.sharding import make_mesh
from egrsd_jax.train.checkpoint import Checkpoints
from egrsd_jax.train.state import TrainState, init_state, make_optimizer
from tests.commands import HIDE_TORCH, ROOT, environment, finish
from tests.rollout.served.serving import serving
from tests.train.test_served import COMPLETIONS, LOAD, sampled  # noqa: F401

SMALL = [
    "--train.steps=3",
    "--train.batch_size=8",
    "--train.checkpoint_every=1",
    "--train.sample_every=1",
    "--lora.rank=4",
    "--rollout.max_new_tokens=24",
    "--evaluation.problems=8",
    "--evaluation.samples=1",
    "--evaluation.max_new_tokens=24",
    "--evaluation.every=0",
]
pytestmark = pytest.mark.slow
MESH = ["--model.data=2", "--model.fsdp=4"]
HEARTBEAT = 10  # seconds of silence after which a host counts as dead; jax's own 100 are long for a test
LAUNCHER = f"""{HIDE_TORCH}
import runpy, sys
sys.argv[0] = {str(ROOT / "launch/train.py")!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""
FREEZES = f"""
import os, signal
from egrsd_jax.train.checkpoint import Checkpoints
save = Checkpoints.save
def save_and_freeze(self, state, history):
    save(self, state, history)
    if int(state.step) == 2:
        os.kill(os.getpid(), signal.SIGSTOP)
Checkpoints.save = save_and_freeze
{LAUNCHER}"""


def start(folder: Path, devices: int, *arguments: str, launcher: str = LAUNCHER) -> subprocess.Popen:
    command = [sys.executable, "-c", launcher, f"--run.dir={folder}", *SMALL, *arguments]
    outputs = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, env=environment(devices), **outputs)


def start_hosts(folder: Path, name: str, port: int, *arguments: str, second: str = LAUNCHER) -> list[subprocess.Popen]:
    together = [f"--run.name={name}", f"--run.coordinator=127.0.0.1:{port}", "--run.hosts=2", *MESH, *arguments]
    together.append(f"--run.heartbeat={HEARTBEAT}")
    return [
        start(folder, 4, *together, f"--run.host={host}", launcher=launcher)
        for host, launcher in enumerate((LAUNCHER, second))
    ]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def rows(folder: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def final_state(folder: Path) -> TrainState:
    """The newest checkpoint of a run, on one device."""
    config = load_config(folder / "config.yaml")
    model, base = load_pretrained(config.model.path, dtype=config.model.param_dtype)
    mesh = make_mesh(devices=jax.devices()[:1])
    state = init_state(jax.random.key(0), base, model, config.lora, make_optimizer(config.train), mesh)
    checkpoints = Checkpoints(folder / "checkpoints", config)
    try:
        restored = checkpoints.restore(state)
    finally:
        checkpoints.close()
    assert restored is not None
    return restored


def gradient_means(state: TrainState) -> list[jax.Array]:
    """Adam's running means of the gradient."""
    parts = jax.tree.leaves(state.optimizer, is_leaf=lambda part: hasattr(part, "mu"))
    (adam,) = (part for part in parts if hasattr(part, "mu"))
    return jax.tree.leaves(adam.mu)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, compiled_programs):
    """The same run on one device, on eight, and on two hosts with four each."""
    folder = tmp_path_factory.mktemp("runs")
    finish(start(folder, 1, "--run.name=one"))
    finish(start(folder, 8, "--run.name=eight", *MESH))
    outputs = finish(*start_hosts(folder, "hosts", free_port()))
    assert "change" in outputs[0]
    assert "change" not in outputs[1]  # one of them speaks
    return folder


@pytest.mark.parametrize("name", ["eight", "hosts"])
def test_two_hosts_give_what_one_gives(name, runs):
    for row, wanted in zip(rows(runs / name, "metrics.jsonl"), rows(runs / "one", "metrics.jsonl"), strict=True):
        for figure in ("loss", "gradient_norm", "reward_mean", "reward_running_mean", "entropy_max", "gate_mean"):
            np.testing.assert_allclose(row[figure], wanted[figure], rtol=2e-4, atol=1e-6, err_msg=f"{name} {figure}")
    drawn = [[row["tokens"] for row in rows(runs / run, "samples.jsonl")] for run in (name, "one")]
    assert drawn[0] == drawn[1]
    evaluations = [json.loads((runs / run / "evaluation_step3.json").read_text()) for run in (name, "one")]
    assert evaluations[0] == evaluations[1]
    ours, theirs = final_state(runs / name), final_state(runs / "one")
    # Gradients agree entry by entry, as Adam's running mean of them shows. Adam divides each by its own size, and with
    # it the rounding of one that is nearly 0, so weights agree as a whole.
    for mean, wanted in zip(gradient_means(ours), gradient_means(theirs), strict=True):
        np.testing.assert_allclose(mean, wanted, rtol=0, atol=1e-4 * jnp.abs(wanted).max(), err_msg=name)
    for (path, leaf), wanted in zip(named_leaves(ours.trainable), jax.tree.leaves(theirs.trainable), strict=True):
        assert jnp.linalg.norm(leaf - wanted) <= 1e-4 * jnp.linalg.norm(wanted), f"{name} {path}"
    chex.assert_trees_all_equal(ours.moments, theirs.moments)


def test_a_host_that_freezes_ends_the_other_and_the_same_commands_go_on_to_the_same_end(runs):
    port = free_port()  # the same one twice: the same commands
    hosts = start_hosts(runs, "frozen", port, "--evaluation.path=null", second=FREEZES)
    output, _ = hosts[0].communicate(timeout=HEARTBEAT + 600)  # most of it for the start
    assert hosts[0].returncode == 1, output
    assert f"error: host 0 lost host 1: no sign of life for {HEARTBEAT} s (run.heartbeat); start the same" in output
    assert "Traceback" not in output
    hosts[1].kill()
    hosts[1].communicate()
    assert not (runs / "frozen/checkpoints/3").exists()

    outputs = finish(*start_hosts(runs, "frozen", port, "--evaluation.path=null"))
    assert "resuming from the checkpoint of step 2" in outputs[0]
    chex.assert_trees_all_equal(final_state(runs / "frozen"), final_state(runs / "hosts"))
    assert (runs / "frozen/samples.jsonl").read_text() == (runs / "hosts/samples.jsonl").read_text()


def test_the_first_host_asks_the_server_one_step_ahead_and_all_end_and_resume_together(
    sampled,  # noqa: F811
    tmp_path,
    compiled_programs,
):
    """Against one process that asks for itself; evaluations are asked for by the first host too."""
    loads, failing = [], []

    def behave(handler, path, body):
        if path == LOAD:
            loads.append(body["lora_name"])
        if path != COMPLETIONS:
            return None
        if failing and len(loads) == failing[0]:
            return {"detail": "out of memory"}, 400
        return sampled(server, body)

    with serving(behave) as server:
        options = [
            f"--rollout.server={server.url}",
            *("--rollout.ahead=1", "--rollout.max_new_tokens=12", "--evaluation.problems=2"),
            *("--evaluation.max_new_tokens=12", "--train.learning_rate=0.003", "--train.warmup_steps=0"),
        ]
        finish(start(tmp_path, 1, "--run.name=one", *options))
        asked, versions = len(server.completions()), len(loads)
        assert versions == 4  # of the two evaluations, and before the first and the second update
        loads.clear()
        failing.append(3)
        port = free_port()
        hosts = start_hosts(tmp_path, "hosts", port, *options)
        outputs = [host.communicate(timeout=600)[0] for host in hosts]
        assert [host.returncode for host in hosts] == [1, 1], "\n".join(outputs)
        assert "out of memory; nothing of this step is kept; the same command resumes" in outputs[0]
        assert "the first host could not get completions" in outputs[1]
        assert "Traceback" not in "".join(outputs)
        failing.clear()
        refused = len(server.completions())
        finish(*start_hosts(tmp_path, "hosts", port, *options))
        assert len(server.completions()) - refused <= asked - 16  # the last step's, and an evaluation
    one, both = (rows(tmp_path / name, "metrics.jsonl") for name in ("one", "hosts"))
    assert [row["rollout_age"] for row in both] == [0, 1, 1]
    for row, wanted in zip(both, one, strict=True):
        assert row["sampler_logp_gap_max"] < 1e-4
        for figure in ("loss", "gradient_norm", "reward_mean", "importance_mean"):
            np.testing.assert_allclose(row[figure], wanted[figure], rtol=2e-4, atol=1e-6, err_msg=figure)
    tokens = [[row["tokens"] for row in rows(tmp_path / name, "samples.jsonl")] for name in ("one", "hosts")]
    assert tokens[0] == tokens[1]
    evaluations = [(tmp_path / name / "evaluation_step3.json").read_text() for name in ("one", "hosts")]
    assert evaluations[0] == evaluations[1]
