"""The port against logits that transformers' PyTorch models gave, without torch."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from egrsd_jax.model.decoder import forward, output_head
from egrsd_jax.model.hf.hub import load_pretrained
from tests.model.golden_checkpoint import GOLDEN, write_checkpoint

NAMES = sorted(file.stem for file in GOLDEN.glob("*.json"))


def test_every_architecture_has_a_golden_file():
    assert NAMES == ["llama", "llama3", "olmo3", "qwen2", "qwen3", "qwen3_yarn", "smollm3"]


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_those_of_transformers(name, tmp_path):
    golden = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    expected = np.load(GOLDEN / f"{name}.npz")
    write_checkpoint(tmp_path, golden["config"], golden["shapes"])
    config, params = load_pretrained(tmp_path, dtype="float32")
    logits = forward(params, config, jnp.asarray(expected["tokens"])) @ output_head(params, config)
    np.testing.assert_allclose(logits, expected["logits"], rtol=0, atol=1e-5 * np.abs(expected["logits"]).max())
