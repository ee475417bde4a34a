"""Adapters in PEFT's format: peft itself reads ours, we read them back, and what cannot be read is named."""

import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from egrsd_jax.model.decoder import abstract_params, forward, output_head
from egrsd_jax.model.hf.hub import save_pretrained
from egrsd_jax.model.hf.peft import load_adapter, save_adapter
from egrsd_jax.model.lora import PROJECTIONS, Lora, projection_shapes
from egrsd_jax.model.sharding import make_mesh
from tests.model.examples import CONFIG as TINY

CONFIG = TINY.replace(vocab_size=96, num_layers=2)
LLAMA = CONFIG.replace(model_type="llama", attention_bias=True, mlp_bias=True)
WEIGHTS = "adapter_model.safetensors"
Q1_B = "base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight"


def random_tree(tree, std: float, seed: int):
    source = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(std * source.standard_normal(leaf.shape, np.float32)), tree)


def random_adapter(rank: int = 4, alpha: float = 6.0, dropout: float = 0.0) -> Lora:
    L = CONFIG.num_layers
    shapes = {
        block: {
            name: {
                "a": jax.ShapeDtypeStruct((L, rank, in_size), "float32"),
                "b": jax.ShapeDtypeStruct((L, out, rank), "float32"),
            }
            for name, (out, in_size) in projections.items()
        }
        for block, projections in projection_shapes(CONFIG).items()
    }
    return Lora(random_tree(shapes, 0.3, seed=1), scale=alpha / rank, dropout=dropout)


@pytest.mark.slow
@pytest.mark.parametrize("config", [CONFIG, LLAMA], ids=["qwen3", "llama"])
def test_peft_over_the_transformers_model_gives_our_logits(config, tmp_path):
    torch = pytest.importorskip("torch", reason="needs torch==2.13.0 for transformers' own model")
    peft = pytest.importorskip("peft", reason="needs peft>=0.18, which reads the adapter")
    from transformers import AutoModelForCausalLM

    params, lora = random_tree(abstract_params(config), 0.3, seed=0), random_adapter(dropout=0.25)
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (2, 19))

    def ours(lora):
        return forward(params, config, jnp.asarray(tokens), lora=lora) @ output_head(params, config)

    save_pretrained(tmp_path / "base", config, params)
    save_adapter(tmp_path / "adapter", lora, base_model=str(tmp_path / "base"))
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32, attn_implementation="eager")
    adapted = peft.PeftModel.from_pretrained(base, tmp_path / "adapter")
    assert adapted.peft_config["default"].lora_dropout == 0.25
    with torch.no_grad():
        theirs = adapted(torch.from_numpy(tokens)).logits.numpy()
        merged = adapted.merge_and_unload()(torch.from_numpy(tokens)).logits.numpy()
    tolerance = 1e-5 * np.abs(theirs).max()
    np.testing.assert_allclose(ours(lora), theirs, rtol=0, atol=tolerance)
    np.testing.assert_allclose(ours(lora), merged, rtol=0, atol=tolerance)
    assert np.abs(ours(None) - theirs).max() > 1000 * tolerance


def test_what_peft_writes_is_read(tmp_path):
    torch = pytest.importorskip("torch", reason="needs torch==2.13.0 for transformers' own model")
    peft = pytest.importorskip("peft", reason="needs peft>=0.18, which writes the adapter")
    from transformers import AutoModelForCausalLM

    params, lora = random_tree(abstract_params(CONFIG), 0.3, seed=0), random_adapter(dropout=0.25)
    save_pretrained(tmp_path / "base", CONFIG, params)
    save_adapter(tmp_path / "ours", lora, base_model=str(tmp_path / "base"))
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    peft.PeftModel.from_pretrained(base, tmp_path / "ours").save_pretrained(tmp_path / "theirs")
    back = load_adapter(tmp_path / "theirs", CONFIG)
    assert (back.scale, back.dropout) == (lora.scale, 0.25)
    chex.assert_trees_all_equal(back.layers, lora.layers)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("axes", [None, (2, 2, 2)], ids=["one device", "mesh"])
def test_what_was_saved_is_loaded_to_the_last_bit(dtype, axes, tmp_path):
    lora = random_adapter(dropout=0.1)
    save_adapter(tmp_path, lora, base_model="owner/base", dtype=dtype)
    mesh = None if axes is None else make_mesh(*axes)
    back = load_adapter(tmp_path, CONFIG, mesh=mesh, dtype=dtype)
    assert (back.scale, back.dropout, back.key) == (1.5, 0.1, None)
    chex.assert_trees_all_equal(back.layers, jax.tree.map(lambda leaf: leaf.astype(dtype), lora.layers))
    if mesh is not None:
        b = back.layers["self_attn"]["o_proj"]["b"]
        assert b.sharding.spec == jax.P(None, "fsdp", None)
    fields = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (fields["r"], fields["lora_alpha"], fields["base_model_name_or_path"]) == (4, 6, "owner/base")
    assert fields["lora_dropout"] == 0.1
    tensors = load_file(tmp_path / WEIGHTS)
    assert len(tensors) == 2 * 7 * CONFIG.num_layers
    assert tensors[Q1_B].shape == (64, 4)
    assert tensors["base_model.model.model.layers.0.mlp.down_proj.lora_A.weight"].shape == (4, 48)


PEFT_KINDS = {
    "attention alone": {"target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]},
    "q and v": {"target_modules": ["q_proj", "v_proj"]},
    "a regular expression": {"target_modules": r".*\.(1)\..*(q|up)_proj"},
    "rank-stabilised": {"use_rslora": True},
    "patterns": {
        "rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\.down_proj": 6},
        "alpha_pattern": {"mlp.up_proj": 32, "down_proj": 3},
    },
    "rank-stabilised patterns": {"use_rslora": True, "rank_pattern": {"o_proj": 7}, "alpha_pattern": {"k_proj": 1}},
    "one layer": {"layers_to_transform": [1]},
    "one layer by its pattern": {"layers_to_transform": 0, "layers_pattern": "layers"},
    "one layer by its whole name": {"layers_to_transform": [1], "layers_pattern": "model.layers"},
    "one layer, and a module by its whole name": {
        "layers_to_transform": [1],
        "target_modules": ["v_proj", "model.layers.0.self_attn.q_proj"],
    },
    "all but some": {"target_modules": "all-linear", "exclude_modules": ["down_proj", "layers.0.self_attn.q_proj"]},
    "trained biases of a model without": {"bias": "all"},
    "another beginning": {"init_lora_weights": "Gaussian"},
}


@pytest.fixture(scope="module")
def peft_base(tmp_path_factory):
    """A base model's folder, its parameters, tokens, and what makes an adapted model of transformers' own."""
    torch = pytest.importorskip("torch", reason="needs torch==2.13.0 for transformers' own model")
    peft = pytest.importorskip("peft", reason="needs peft>=0.18, which writes the adapter")
    from transformers import AutoModelForCausalLM

    folder, params = tmp_path_factory.mktemp("models") / "base", random_tree(abstract_params(CONFIG), 0.3, seed=0)
    save_pretrained(folder, CONFIG, params)
    tokens = np.random.default_rng(0).integers(0, CONFIG.vocab_size, (2, 7))

    def adapted(to, fields):
        """Writes an adapter with these fields, and returns its logits."""
        everything = {"r": 4, "lora_alpha": 6, "task_type": "CAUSAL_LM", "target_modules": sorted(PROJECTIONS)}
        base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        model = peft.get_peft_model(base, peft.LoraConfig(**everything | fields)).eval()
        torch.manual_seed(1)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "lora_B" in name:
                    weight.normal_(0, 0.3)
            model.save_pretrained(to)
            return model(torch.from_numpy(tokens)).logits.numpy()

    return params, tokens, adapted


@pytest.mark.parametrize("kind", PEFT_KINDS)
def test_adapters_as_peft_writes_them_are_computed_exactly(kind, peft_base, tmp_path):
    params, tokens, adapted = peft_base
    theirs = adapted(tmp_path / "theirs", PEFT_KINDS[kind])

    def ours(lora):
        return forward(params, CONFIG, jnp.asarray(tokens), lora=lora) @ output_head(params, CONFIG)

    lora = load_adapter(tmp_path / "theirs", CONFIG)
    tolerance = 2e-6 * np.abs(theirs).max()
    np.testing.assert_allclose(ours(lora), theirs, rtol=0, atol=tolerance)
    assert np.abs(ours(None) - theirs).max() > 1000 * tolerance
    save_adapter(tmp_path / "ours", lora, base_model="owner/base")
    chex.assert_trees_all_equal(load_adapter(tmp_path / "ours", CONFIG).layers, lora.layers)


def test_a_sparse_adapter_keeps_its_zeros_in_training(tmp_path):
    """The gradient of what PEFT's adapter is not on is exactly zero, so that training it here is training it there."""
    lora = random_adapter()
    some = {**lora.layers, "mlp": jax.tree.map(jnp.zeros_like, lora.layers["mlp"])}
    save_adapter(tmp_path, Lora(some, scale=lora.scale), base_model="owner/base")
    fields = json.loads((tmp_path / "adapter_config.json").read_text())
    assert fields["target_modules"] == ["k_proj", "o_proj", "q_proj", "v_proj"]
    back = load_adapter(tmp_path, CONFIG)
    chex.assert_trees_all_equal(back.layers, some)
    params, tokens = random_tree(abstract_params(CONFIG), 0.3, seed=0), jnp.arange(12).reshape(2, 6)

    def loss(layers):
        return jnp.square(forward(params, CONFIG, tokens, lora=Lora(layers, scale=back.scale))).sum()

    gradient = jax.grad(loss)(back.layers)
    assert all(not leaf.any() for leaf in jax.tree.leaves(gradient["mlp"]))
    assert all(leaf.any() for leaf in jax.tree.leaves(gradient["self_attn"]))


def change_tensors(folder, change):
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


def change_config(**fields):
    def change(folder):
        file = folder / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | fields))

    return change


BROKEN = {
    "no configuration": (lambda folder: (folder / "adapter_config.json").unlink(), "it has no adapter_config.json"),
    "a run": (
        lambda folder: (folder / "adapter_config.json").rename(folder / "config.yaml"),
        "it has no adapter_config.json; it is a run's: `egrsd export .* --what adapter",
    ),
    "a broken configuration": (
        lambda folder: (folder / "adapter_config.json").write_text("{"),
        "is not the configuration",
    ),
    "no weights": (
        lambda folder: (folder / WEIGHTS).rename(folder / "adapter_model.bin"),
        f"has no {WEIGHTS}.*PeftModel",
    ),
    "a truncated file": (
        lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-9]),
        f"{WEIGHTS} is cut short",
    ),
    "a missing tensor": (
        lambda folder: change_tensors(folder, lambda t: t.pop(Q1_B)),
        f"1 tensor is missing, the first is {Q1_B}; its configuration",
    ),
    "names of a state dict": (
        lambda folder: change_tensors(
            folder, lambda t: t.update({Q1_B.replace(".weight", ".default.weight"): t.pop(Q1_B)})
        ),
        "1 tensor is missing, .*; it has .*default.weight, which is no name of peft's save_pretrained",
    ),
    "another rank": (
        change_config(r=3),
        r"layers.0.mlp.down_proj.lora_A.weight has shape \[4, 48\]; its configuration and this model say \[3, 48\]",
    ),
    "fewer target modules": (
        change_config(target_modules=["q_proj", "v_proj"]),
        r"mlp\.down_proj\.lora_A\.weight has no place in an adapter on the projections .*merge_and_unload",
    ),
    "targets elsewhere": (change_config(target_modules=["c_attn"]), r"target_modules is \['c_attn'\], and that is no"),
    "a broken pattern of targets": (change_config(target_modules="(q"), r"target_modules is '\(q'; names of modules"),
    "DoRA": (change_config(use_dora=True), "use_dora is True"),
    "ranks that are none": (change_config(rank_pattern={"q_proj": 0}), "rank_pattern is {'q_proj': 0}"),
    "alphas that are none": (change_config(alpha_pattern={"q_proj": "8"}), "alpha_pattern is {'q_proj': '8'}"),
    "another rank by pattern": (
        change_config(rank_pattern={"q_proj": 8}),
        r"layers\.0\.self_attn\.q_proj\.lora_A\.weight has shape \[4, 32\]; .* this model say \[8, 32\]",
    ),
    "other layers trained too": (
        change_config(modules_to_save=["lm_head"]),
        r"modules_to_save is \['lm_head'\].*merge",
    ),
    "numbers that are not finite": (
        lambda folder: change_tensors(folder, lambda t: t[Q1_B].fill(np.nan)),
        f"{Q1_B} has values that are not finite",
    ),
    "layers that the model has not": (
        lambda folder: change_tensors(folder, lambda t: t.update({Q1_B.replace("layers.1", "layers.30"): t[Q1_B]})),
        "layers.30.*over 'owner/base'",
    ),
    "biases": (
        lambda folder: change_tensors(folder, lambda t: t.update({Q1_B.replace("lora_B.weight", "bias"): t[Q1_B]})),
        r"q_proj\.bias has no place in an adapter",
    ),
    "a Git LFS pointer": (
        lambda folder: (folder / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\n"),
        f"{WEIGHTS} is a Git LFS pointer",
    ),
    "a base that was changed": (
        change_config(init_lora_weights="pissa"),
        "init_lora_weights is 'pissa'.*path_initial_model_for_w",
    ),
    "something newer than this port": (change_config(use_hyper_lora=True), "use_hyper_lora is True"),
    "another kind of adapter": (change_config(peft_type="IA3"), "peft_type is 'IA3'"),
    "no rank": (change_config(r=0), "r is 0"),
    "everything dropped": (
        change_config(lora_dropout=1.0),
        r"lora_dropout is 1\.0; a number of at least 0 and under 1",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_an_adapter_that_cannot_be_read_is_an_error_that_names_why(name, tmp_path):
    break_it, message = BROKEN[name]
    save_adapter(tmp_path, random_adapter(), base_model="owner/base")
    break_it(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        load_adapter(tmp_path, CONFIG)
    assert str(tmp_path) in str(caught.value)


def test_another_model_is_named_by_its_first_shape_that_differs(tmp_path):
    save_adapter(tmp_path, random_adapter(), base_model="owner/base")
    with pytest.raises(ValueError, match=r"has shape \[4, 48\]; .* this model say \[4, 64\].*over 'owner/base'"):
        load_adapter(tmp_path, CONFIG.replace(intermediate_size=64))


def test_numbers_that_float16_does_not_reach_are_no_adapter(tmp_path):
    large = Lora(jax.tree.map(lambda leaf: leaf * 1e6, random_adapter().layers), scale=1.0)
    with pytest.raises(ValueError, match=r"has numbers beyond float16's largest, 65,504; write bfloat16 or float32"):
        save_adapter(tmp_path, large, base_model="owner/base", dtype="float16")


def test_an_unknown_dtype_is_named(tmp_path):
    with pytest.raises(ValueError, match="dtype 'int4' is not supported"):
        save_adapter(tmp_path, random_adapter(), base_model="owner/base", dtype="int4")
    with pytest.raises(ValueError, match="dtype 'int4' is not supported"):
        load_adapter(tmp_path, CONFIG, dtype="int4")
