"""A run of a model that repeats itself alarms of loops, of missing answers, and that nothing is correct."""

import json

import jax
import pytest

from egrsd_jax.model.decoder import init_params
from egrsd_jax.model.hf.hub import save_pretrained
from egrsd_jax.runs.files import read_rows
from tests.commands import finish, start
from tests.model_folders import SMALL, write_folder

pytestmark = pytest.mark.slow


def test_a_run_made_to_loop_alarms(tmp_path):
    """Greedy completions of a model before any training, with one matrix for input and output: the likeliest token is
    the one before, again and again."""
    folder = write_folder(tmp_path / "untrained")
    save_pretrained(folder, SMALL, init_params(jax.random.key(0), SMALL))
    data = tmp_path / "problems.jsonl"
    rows = [{"problem": f"{n} + 1", "solution": f"it is {n + 1}", "answer": str(n + 1)} for n in range(8)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    where = (f"--model.path={folder}", f"--data.path={data}", f"--run.dir={tmp_path}")
    rollout = ("--rollout.temperature=0", "--rollout.max_new_tokens=64")
    train = ("--train.steps=3", "--train.batch_size=4", "--train.micro_batch_size=4", "--evaluation.path=null")
    alarms = ("--probes.window=2", "--probes.nothing_correct=3", "--run.name=looping", "--run.track=none")
    finish(start("train.py", *where, *rollout, *train, *alarms))

    begun = {(row["step"], row["probe"]) for row in read_rows(tmp_path / "looping" / "alarms.jsonl")}
    assert {(2, "loop"), (2, "no_answer"), (2, "nothing_correct")} <= begun
    last = read_rows(tmp_path / "looping" / "metrics.jsonl")[-1]
    assert last["probe_loop"] > 0.5
    assert last["probe_repeat"] > 0.5
    assert 0 < last["end_mass_student"] < 1
    assert 0 < last["end_mass_teacher"] < 1
    assert last["entropy_gap_mean"] == pytest.approx(last["entropy_mean"] - last["student_entropy_mean"], abs=1e-5)
    profile = read_rows(tmp_path / "looping" / "profiles.jsonl")[0]["first_tokens"]
    assert len(profile["delta_mean"]) == 32
    assert profile["tokens"][0] == 4
