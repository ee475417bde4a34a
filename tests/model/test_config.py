"""What a `config.json` may say, in transformers' two layouts, and what it may not."""

import json

import pytest

from egrsd_jax.model.config import ModelConfig, read_config
from egrsd_jax.model.rope_scaling import Linear, Llama3, Yarn
from tests.model.examples import CONFIG, LLAMA, OLMO3, QWEN2, SHAPES, SMOLLM3, YARN

LLAMA3_FIELDS = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
YARN_FIELDS = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}


def fields_of(config: ModelConfig, *without: str, **changes) -> dict:
    fields = {**config.to_hf(param_dtype="float32"), **changes}
    return {name: value for name, value in fields.items() if name not in without}


@pytest.mark.parametrize("name", SHAPES)
def test_what_is_written_is_read_back(name, tmp_path):
    config = SHAPES[name]
    (tmp_path / "config.json").write_text(json.dumps(config.to_hf(param_dtype="float32")), encoding="utf-8")
    assert read_config(tmp_path, dtype="float32") == config


@pytest.mark.parametrize("name", SHAPES)
def test_each_of_transformers_layouts_alone_says_the_same(name):
    config = SHAPES[name]
    for without in (["rope_theta", "rope_scaling"], ["rope_parameters"]):
        assert ModelConfig.from_hf(fields_of(config, *without), dtype="float32") == config


def test_olmo_may_state_one_rope_for_both_kinds_of_layer():
    config = OLMO3.replace(rope_scaling=YARN)
    flat = config.to_hf(param_dtype="float32")["rope_parameters"]["full_attention"]
    fields = fields_of(config, "rope_theta", "rope_scaling", rope_parameters=flat)
    assert ModelConfig.from_hf(fields, dtype="float32") == config


@pytest.mark.parametrize("key", ["type", "rope_type"])
def test_yarn_in_its_shortest_form(key):
    scaling = {key: "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "attention_factor": None}
    config = ModelConfig.from_hf(fields_of(CONFIG, "rope_parameters", rope_scaling=scaling))
    assert config.rope_scaling == Yarn(4.0, 64, 0.1 * 1.3862943611198906 + 1.0, beta_fast=32.0, beta_slow=1.0)


@pytest.mark.parametrize("base", [LLAMA, QWEN2, OLMO3], ids=["llama", "qwen2", "olmo3"])
def test_head_dim_may_be_left_out_where_it_follows(base):
    assert ModelConfig.from_hf(fields_of(base, "head_dim"), dtype="float32") == base.replace(head_dim=8)


def test_an_old_llama_file_leaves_out_what_transformers_assumes():
    old = fields_of(
        LLAMA, "head_dim", "num_key_value_heads", "attention_bias", "mlp_bias", "rope_theta", "rope_parameters"
    )
    assert ModelConfig.from_hf(old, dtype="float32") == LLAMA.replace(num_kv_heads=LLAMA.num_heads)


def test_llamas_rope_types():
    fields = fields_of(LLAMA, "rope_parameters", rope_scaling=LLAMA3_FIELDS)
    assert ModelConfig.from_hf(fields).rope_scaling == Llama3(8.0, 1.0, 4.0, 8192)
    fields = fields_of(LLAMA, "rope_parameters", rope_scaling={"type": "linear", "factor": 2})
    assert ModelConfig.from_hf(fields).rope_scaling == Linear(2.0)


@pytest.mark.parametrize(
    "more",
    [
        {"attn_factor": 1.0},
        {"extrapolation_factor": 1, "finetuned": True},
        {"truncate": True, "partial_rotary_factor": 1.0},
        {"attention_factor": None},
    ],
)
def test_fields_that_change_nothing_at_their_values_are_read(more):
    plain = ModelConfig.from_hf(fields_of(CONFIG, "rope_parameters", rope_scaling=YARN_FIELDS))
    assert ModelConfig.from_hf(fields_of(CONFIG, "rope_parameters", rope_scaling=YARN_FIELDS | more)) == plain
    neutral = {"rope_type": "default", "factor": 1.0, "attention_factor": 1.0}
    assert ModelConfig.from_hf(fields_of(CONFIG, rope_scaling=neutral)) == ModelConfig.from_hf(fields_of(CONFIG))


def test_yarns_factor_follows_from_two_lengths_where_it_is_null():
    fields = fields_of(CONFIG, "rope_parameters", rope_scaling=YARN_FIELDS | {"factor": None})
    scaling = ModelConfig.from_hf(fields).rope_scaling
    assert isinstance(scaling, Yarn)
    assert scaling.factor == CONFIG.max_positions / 64


def test_attn_factor_is_refused_with_what_either_reader_makes_of_it():
    fields = fields_of(CONFIG, "rope_parameters", rope_scaling=YARN_FIELDS | {"attn_factor": 0.8782488562869419})
    with pytest.raises(ValueError, match=r"0\.87824885.*attention_factor 1\.13863, vLLM .* computes with 1; write"):
        ModelConfig.from_hf(fields)


@pytest.mark.parametrize(
    "window", [{"max_window_layers": 3, "sliding_window": 8}, {"max_window_layers": 1, "sliding_window": None}]
)
def test_a_window_that_no_layer_looks_through(window):
    plain = ModelConfig.from_hf(fields_of(QWEN2))
    assert ModelConfig.from_hf(fields_of(QWEN2, use_sliding_window=True, hidden_act="swish", **window)) == plain


def test_a_bias_that_only_llama_and_smollm3_have_is_named():
    with pytest.raises(ValueError, match="mlp_bias are not supported for qwen3; for llama and smollm3 they are"):
        CONFIG.replace(mlp_bias=True)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"no_rope_layers": [1, 0, 1]}, (False, True, False)),
        ({"no_rope_layers": [1, 0, 1, 1, 0]}, (False, True, False)),  # of a deeper model
        ({"no_rope_layers": [1, 1, 1]}, ()),
        ({"no_rope_layers": None, "no_rope_layer_interval": 3}, (False, False, True)),
        ({"no_rope_layers": None}, ()),  # every fourth of three
        ({"use_sliding_window": True, "sliding_window": None}, (False, True, False)),
    ],
)
def test_layers_without_positions(fields, expected):
    assert ModelConfig.from_hf(fields_of(SMOLLM3, **fields), dtype="float32") == SMOLLM3.replace(nope_layers=expected)


def test_layers_without_positions_are_smollm3s():
    with pytest.raises(ValueError, match="only smollm3 has such layers, with 3 entries here"):
        CONFIG.replace(nope_layers=(True, False, False))
    with pytest.raises(ValueError, match="only smollm3 has such layers, with 3 entries here"):
        SMOLLM3.replace(nope_layers=(True,))


@pytest.mark.parametrize(
    ("base", "changes", "message"),
    [
        (CONFIG, {"model_type": "gemma"}, "model_type 'gemma' is not supported; supported: llama, smollm3, qwen2"),
        (CONFIG, {"hidden_act": "gelu"}, "hidden_act 'gelu' is not supported; for qwen3 'silu' is"),
        (CONFIG, {"attention_bias": True}, "attention_bias True is not supported; for qwen3 False is"),
        (OLMO3, {"attention_bias": True}, "attention_bias True is not supported; for olmo3 False is"),
        (
            QWEN2,
            {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2},
            "use_sliding_window True is not supported; for qwen2 False is",
        ),
        (
            SMOLLM3,
            {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 28},
            "use_sliding_window True is not supported; for smollm3 False is",
        ),
        (SMOLLM3, {"no_rope_layers": [1, 0]}, r"no_rope_layers is \[1, 0\]; it has num_hidden_layers 3 entries"),
        (SMOLLM3, {"no_rope_layers": None, "no_rope_layer_interval": 0}, "no_rope_layer_interval is 0"),
        (CONFIG, {"attention_dropout": 0.1}, "attention_dropout 0.1"),
        (CONFIG, {"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5"),
        (CONFIG, {"is_causal": False}, "is_causal False is not supported; for qwen3 True is"),
        (CONFIG, {"head_dim": None}, "the field 'head_dim' is missing"),
        (CONFIG, {"num_key_value_heads": None}, "the field 'num_key_value_heads' is missing"),
        (CONFIG, {"layer_types": ["sliding_attention"] * 3}, "for qwen3 .* entries of full_attention"),
        (OLMO3, {"layer_types": ["full_attention"] * 3}, "num_hidden_layers 4 entries"),
        (OLMO3, {"sliding_window": None}, "sliding_window None"),
        (
            CONFIG,
            {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
            "'dynamic' is not .*default, yarn, llama3, linear",
        ),
        (LLAMA, {"rope_scaling": {"rope_type": "linear", "factor": 2.0, "beta_fast": 1}}, "rope field 'beta_fast'"),
        (LLAMA, {"rope_scaling": {"rope_type": "linear"}}, "the field 'factor' is missing"),
        (LLAMA, {"rope_scaling": {**LLAMA3_FIELDS, "low_freq_factor": 4.0}}, "low_freq_factor is 4.0 and high_freq_"),
        (LLAMA, {"rope_scaling": {**LLAMA3_FIELDS, "factor": 0.5}}, "llama3's factor is 0.5"),
        (CONFIG, {"rope_scaling": {**YARN_FIELDS, "truncate": False}}, "rope field 'truncate' is not supported"),
        (CONFIG, {"rope_scaling": {**YARN_FIELDS, "factor": 0.5}}, "factor is 0.5"),
        (CONFIG, {"rope_scaling": {"type": "yarn", "factor": 2.0}}, "'original_max_position_embeddings' is missing"),
        (
            OLMO3,
            {
                "rope_parameters": {
                    "full_attention": {"rope_theta": 500.0},
                    "sliding_attention": {"rope_theta": 10_000.0},
                }
            },
            "rope_parameters.sliding_attention .* is not supported",
        ),
        (CONFIG, {"num_key_value_heads": 3}, "4 query heads cannot share 3 key-value heads"),
        (CONFIG, {"head_dim": 15}, "head_dim is 15"),
    ],
)
def test_what_this_port_does_not_have_is_named(base, changes, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig.from_hf(fields_of(base, **changes))


@pytest.mark.parametrize(
    ("base", "name"),
    [(CONFIG, "head_dim"), (CONFIG, "rms_norm_eps"), (OLMO3, "layer_types"), (OLMO3, "sliding_window")],
)
def test_a_missing_field_is_named(base, name):
    with pytest.raises(ValueError, match=f"the field '{name}' is missing; a {base.model_type} config.json has it"):
        ModelConfig.from_hf(fields_of(base, name))


@pytest.mark.parametrize("top", [{}, {"rope_theta": 500.0}])
def test_a_theta_that_transformers_would_lose_is_named(top):
    own = {"rope_type": "default", "rope_theta": 1e6}
    plain = fields_of(CONFIG, "rope_theta", "rope_scaling", rope_parameters=own)
    assert ModelConfig.from_hf(plain | top).rope_theta == 1e6
    with pytest.raises(ValueError, match=r"rope_scaling has no rope_theta; .*write \"rope_theta\": 1e\+06 into"):
        ModelConfig.from_hf(plain | top | {"rope_scaling": YARN_FIELDS})
    assert ModelConfig.from_hf(plain | {"rope_scaling": YARN_FIELDS | {"rope_theta": 1e6}}).rope_theta == 1e6
    assert ModelConfig.from_hf(plain | {"rope_theta": 1e6, "rope_scaling": YARN_FIELDS}).rope_theta == 1e6


def test_a_missing_theta_is_named():
    with pytest.raises(ValueError, match="rope_theta is neither in rope_parameters nor at the top level"):
        ModelConfig.from_hf(fields_of(CONFIG, "rope_theta", "rope_parameters"))


@pytest.mark.parametrize("field", ["rematerialise", "attention", "model_type"])
def test_a_choice_that_does_not_exist_is_named(field):
    with pytest.raises(ValueError, match=f"{field} 'no' is not supported; supported: "):
        CONFIG.replace(**{field: "no"})
