"""A run that trains an adapter further, and runs whose models and data are moved."""

import json
from dataclasses import replace

import chex
import jax
import jax.numpy as jnp
import pytest

from egrsd_jax.config import Config, LoraSettings
from egrsd_jax.model.hf.peft import load_adapter, save_adapter
from egrsd_jax.model.sharding import make_mesh
from egrsd_jax.objective.methods import method_settings
from egrsd_jax.policy import initial
from egrsd_jax.runs.binding import by_their_content
from egrsd_jax.train.setup import with_adapter
from egrsd_jax.train.state import before_training, init_state, make_optimizer, next_teacher, teacher
from tests.model.examples import CONFIG, random_adapter, random_params


@pytest.fixture
def adapter(tmp_path):
    """A folder with an adapter of rank 3 and alpha 6, and what is in it."""
    lora = random_adapter(CONFIG)
    save_adapter(tmp_path, lora, base_model="owner/base")
    return tmp_path, lora


def test_rank_and_alpha_are_the_adapters(adapter):
    folder, _ = adapter
    settings = with_adapter(Config(lora=LoraSettings(path=str(folder)))).lora
    assert (settings.rank, settings.alpha) == (3, 6.0)
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"use_rslora": True, "rank_pattern": {"lm_head": 5}}))
    settings = with_adapter(Config(lora=LoraSettings(path=str(folder)))).lora
    again = load_adapter(folder, CONFIG)
    assert (settings.rank, settings.alpha / settings.rank) == (5, pytest.approx(again.scale))
    assert again.layers["mlp"]["up_proj"]["a"].shape[1] == 5
    assert with_adapter(Config()) == Config()
    with pytest.raises(FileNotFoundError, match="is not an adapter's folder"):
        with_adapter(Config(lora=LoraSettings(path=str(folder / "no"))))
    with pytest.raises(ValueError, match=r"lora\.path names an adapter, and lora\.rank is 0"):
        LoraSettings(path=str(folder), rank=0)


@pytest.mark.parametrize("schedule", ["frozen", None, "ema", "current"])
def test_training_begins_with_the_adapter_and_the_frozen_teacher_keeps_it(adapter, schedule):
    folder, lora = adapter
    config = with_adapter(Config(lora=LoraSettings(path=str(folder))))
    base, mesh = random_params(CONFIG), make_mesh(devices=jax.devices()[:1])
    optimizer = make_optimizer(config.train)
    state = init_state(
        jax.random.key(0), base, CONFIG, config.lora, optimizer, mesh, schedule=schedule, start=lora.layers
    )
    chex.assert_trees_all_equal(state.trainable, lora.layers)
    moved = state.learned._replace(trainable=jax.tree.map(lambda leaf: leaf + 1, state.trainable))
    scoring = teacher(moved, base, config.lora, schedule)
    wanted = moved.trainable if schedule == "current" else lora.layers
    assert scoring.lora is not None
    chex.assert_trees_all_equal(scoring.lora.layers, wanted)
    assert scoring.lora.scale == lora.scale
    if schedule in ("frozen", None):
        chex.assert_trees_all_equal(before_training(moved, base, config.lora), scoring)
        after = next_teacher(moved, moved.trainable, jnp.int32(0), method_settings("egrsd"))
        chex.assert_trees_all_equal(after, lora.layers)
        assert before_training(moved, base, replace(config.lora, path=None)) == initial(base)


@pytest.mark.parametrize("section", ["model", "data", "evaluation", "lora"])
def test_a_path_is_bound_by_what_it_leads_to_once_that_is_known(section, tmp_path):
    names = {"model": "weights", "data": "data", "evaluation": "evaluation", "lora": "adapter"}
    was, now = ({section: {"path": path, "other": 1}} for path in ("old", "new"))
    assert by_their_content(tmp_path, was, now) == (was, now)
    (tmp_path / "fingerprints.json").write_text(json.dumps({names[section]: "abc"}))
    kept, asked = by_their_content(tmp_path, was, now)
    assert kept == asked == {section: {"path": None, "other": 1}}
    without = {section: {"path": None, "other": 1}}
    assert by_their_content(tmp_path, was, without) == (was, without)
    assert (was[section]["path"], now[section]["path"]) == ("old", "new")
