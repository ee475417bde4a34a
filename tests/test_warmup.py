"""The script that makes the built-in model, and whether the kept model is what it claims to be."""

import json

import jax
import pytest

from egrsd_jax.data.prompts import encode_student, encode_teacher
from egrsd_jax.data.tasks.registry import MODELLED_TASKS
from egrsd_jax.data.tokenizer import load_tokenizer
from egrsd_jax.model.hf.hub import BUILT_IN, load_pretrained
from egrsd_jax.model.sharding import make_mesh
from egrsd_jax.policy import Policy
from egrsd_jax.rollout.engine import Engine
from egrsd_jax.rollout.grading import Grader
from egrsd_jax.verify.pool import GradingPool
from egrsd_jax.warmup.run import held_out, warm_up
from egrsd_jax.warmup.settings import WarmupSettings

pytestmark = pytest.mark.slow
BRIEF = {"steps": 4, "batch_size": 4, "evaluate_every": 2, "problems": 8}


@pytest.mark.parametrize("task", MODELLED_TASKS)
def test_warm_up_writes_a_folder_that_loads(tmp_path, task):
    lines = []
    settings = WarmupSettings(task, **BRIEF, plain_accuracy=0.0, privileged_accuracy=0.0)
    warm_up(settings, tmp_path, lines.append)
    assert len(lines) == 1
    assert lines[0].startswith("step 2: loss")
    config, params = load_pretrained(tmp_path, dtype="float32")
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) < 1_000_000
    assert config.vocab_size == len(load_tokenizer(tmp_path)[0])
    assert json.loads((tmp_path / "warmup.json").read_text())["stopped_at_step"] == 2


def test_warm_up_that_never_gets_there_says_so_and_writes_no_model(tmp_path):
    with pytest.raises(RuntimeError, match="4 steps did not reach"):
        warm_up(WarmupSettings(**BRIEF, plain_accuracy=1.0), tmp_path, lambda line: None)
    assert not (tmp_path / "model.safetensors").exists()


def kept_model(task: str, problems: int):
    """What the kept model of a task gives alone, and with references."""
    tokenizer, stop_ids = load_tokenizer(BUILT_IN[task])
    config, params = load_pretrained(task, dtype="float32")
    engine = Engine(
        config,
        make_mesh(devices=jax.devices()[:1]),
        stop_ids,
        max_rows=256,
        max_prompt_tokens=64,
        max_new_tokens=MODELLED_TASKS[task].max_new_tokens,
    )
    with GradingPool() as pool:
        return [
            held_out(task, tokenizer, encode, problems).evaluate(Policy(params, None), engine, Grader(tokenizer, pool))
            for encode in (encode_student, encode_teacher)
        ]


def test_the_kept_model_is_what_it_claims():
    """Right 55-75% of the time alone, with verbose completions, and over 85% with the reference, in fewer tokens."""
    assert sum(file.stat().st_size for file in BUILT_IN["arithmetic"].iterdir()) < 3_000_000
    plain, privileged = kept_model("arithmetic", 256)
    assert 0.55 <= plain.accuracy <= 0.75
    assert privileged.accuracy > 0.85
    assert plain.mean_length > privileged.mean_length + 10
    assert plain.ungradable == privileged.ungradable == 0


def test_the_kept_model_of_orders_is_what_it_claims():
    """Right 65-80% of the time alone, about as often with the reference, and as long with it as without."""
    assert sum(file.stat().st_size for file in BUILT_IN["orders"].iterdir()) < 1_000_000
    plain, privileged = kept_model("orders", 256)
    assert 0.65 <= plain.accuracy <= 0.8
    assert abs(privileged.accuracy - plain.accuracy) < 0.08
    assert abs(privileged.mean_length - plain.mean_length) < 1
    assert plain.ungradable == privileged.ungradable == 0
