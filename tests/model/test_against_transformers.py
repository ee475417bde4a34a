"""The port against transformers' own PyTorch models: logits, checkpoints in both directions, rotary frequencies."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egrsd_jax.model.config import ModelConfig
from egrsd_jax.model.hf.hub import load_pretrained, save_pretrained
from egrsd_jax.model.rope import frequencies
from egrsd_jax.model.rope_scaling import Linear, Llama3, Yarn
from tests.model.examples import CONFIG, FAMILIES, LLAMA, SHAPES, logits, random_params

torch = pytest.importorskip("torch", reason="needs torch==2.13.0 for transformers' own models")


def their_logits(folder, tokens, dtype):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager")
    with torch.no_grad():
        return model, model(torch.from_numpy(tokens)).logits.float().numpy()


def random_tokens(config: ModelConfig) -> np.ndarray:
    return np.random.default_rng(0).integers(0, config.vocab_size, (2, 19))


@pytest.mark.parametrize("name", SHAPES)
def test_matches_transformers_in_both_directions(name, tmp_path):
    config, params = SHAPES[name], random_params(SHAPES[name])
    tokens = random_tokens(config)
    ours = logits(params, config, jnp.asarray(tokens))

    save_pretrained(tmp_path / "ours", config, params, pad_token_id=0)  # SmolLM3's class has one of a real vocabulary
    model, expected = their_logits(tmp_path / "ours", tokens, torch.float32)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5 * np.abs(expected).max())

    model.save_pretrained(tmp_path / "theirs")
    config_back, params_back = load_pretrained(tmp_path / "theirs", dtype="float32")
    assert config_back == config
    chex.assert_trees_all_equal(params_back, params)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_bfloat16_is_as_near_to_float32_as_transformers_bfloat16_is(name, tmp_path):
    """Both compute in bfloat16 with the same weights, which bfloat16 holds; what is measured against is transformers'
    float32 model of these weights. The errors of four random models are pooled, each relative to the RMS of its exact
    logits: of one alone, the RMS varies by some 7 % from seed to seed and the maximum by some 20 %.
    """
    errors = [bfloat16_errors(SHAPES[name], seed, tmp_path / str(seed)) for seed in range(4)]
    ours, theirs = (np.stack(side) for side in zip(*errors, strict=True))
    assert rms(ours) < 1.1 * rms(theirs)
    assert np.abs(ours).max() < 1.1 * np.abs(theirs).max()


def bfloat16_errors(config: ModelConfig, seed: int, folder) -> tuple[np.ndarray, np.ndarray]:
    """Errors of our bfloat16 logits and of theirs, over the RMS of the exact ones."""
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16).astype(jnp.float32), random_params(config, seed))
    tokens = np.random.default_rng(seed).integers(0, config.vocab_size, (4, 32))
    save_pretrained(folder, config, params, pad_token_id=0)
    _, exact = their_logits(folder, tokens, torch.float32)
    _, theirs = their_logits(folder, tokens, torch.bfloat16)
    ours = logits(params, config.replace(dtype="bfloat16"), jnp.asarray(tokens))
    return np.asarray(ours - exact) / rms(exact), (theirs - exact) / rms(exact)


def rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x))))


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
        {"type": "yarn", "factor": 8, "original_max_position_embeddings": 8192, "attention_factor": 1.25},
        {"type": "yarn", "factor": 2.5, "original_max_position_embeddings": 4096, "beta_fast": 16, "beta_slow": 2},
        {"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096, "mscale": 0.7, "mscale_all_dim": 1.0},
        {"type": "yarn", "factor": 3.0, "original_max_position_embeddings": 64, "mscale": 0.7},
    ],
)
@pytest.mark.parametrize(("theta", "head_dim"), [(1_000_000.0, 128), (10_000.0, 24)])
def test_yarn_is_that_of_transformers(rope, theta, head_dim):
    from transformers import Qwen3Config
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    fields = {**CONFIG.replace(head_dim=head_dim).to_hf(param_dtype="float32"), "rope_theta": theta}
    del fields["rope_parameters"]
    fields["rope_scaling"] = dict(rope)
    yarn = ModelConfig.from_hf(fields).rope_scaling
    assert isinstance(yarn, Yarn)
    expected, attention_factor = ROPE_INIT_FUNCTIONS["yarn"](Qwen3Config(**fields), "cpu")
    # One unit is torch's: its float32 power is not always the nearest number. One is the sum's.
    np.testing.assert_array_max_ulp(frequencies(head_dim, theta, yarn), expected.numpy(), maxulp=2)
    assert yarn.attention_factor == attention_factor


@pytest.mark.parametrize(
    "scaling",
    [
        Llama3(8.0, 1.0, 4.0, 8192),  # Llama 3.1
        Llama3(32.0, 1.0, 4.0, 8192),  # Llama 3.2
        Llama3(2.5, 0.7, 3.0, 64),
        Linear(4.0),
        Linear(2.5),
    ],
    ids=str,
)
@pytest.mark.parametrize(("theta", "head_dim"), [(500_000.0, 128), (10_000.0, 24)])
def test_llamas_frequencies_are_those_of_transformers(scaling, theta, head_dim):
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    fields = LLAMA.replace(head_dim=head_dim, rope_theta=theta, rope_scaling=scaling).to_hf(param_dtype="float32")
    kind = fields["rope_parameters"]["rope_type"]
    expected, attention_factor = ROPE_INIT_FUNCTIONS[kind](LlamaConfig(**fields), "cpu")
    # One unit is torch's power's; where two frequencies are mixed, up to three are the products' and the sum's.
    np.testing.assert_array_max_ulp(frequencies(head_dim, theta, scaling), expected.numpy(), maxulp=4)
    assert attention_factor == 1.0
