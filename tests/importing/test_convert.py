"""Every mapping from GGUF to a model folder: tensors, shapes, rotary scaling, what is refused, and the note."""

import hashlib
import json
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egrsd_jax.importing.convert import import_model
from egrsd_jax.importing.gguf_file import GgufFile
from egrsd_jax.model.config import read_config
from egrsd_jax.model.hf.hub import load_pretrained
from egrsd_jax.model.rope_scaling import Linear, Llama3, Yarn
from tests.commands import refused
from tests.importing.examples import gguf, gguf_tensors, write_gguf
from tests.model.examples import CONFIG, LLAMA, QWEN2, SMOLLM3, logits

SIZES = {"vocab_size": 288, "num_layers": 2}
MODELS = {
    "llama": LLAMA.replace(**SIZES, rms_norm_eps=1e-5),
    "llama, biases, llama 3.2's rope, untied, wide heads": LLAMA.replace(
        **SIZES,
        attention_bias=True,
        mlp_bias=True,
        tie_embeddings=False,
        head_dim=16,
        rope_theta=500_000.0,
        rope_scaling=Llama3(32.0, 1.0, 4.0, 8192),
    ),
    "llama, linear rope": LLAMA.replace(**SIZES, rope_scaling=Linear(4.0)),
    "smollm3": SMOLLM3.replace(vocab_size=288, num_layers=5, nope_layers=(False, False, False, True, False)),
    "smollm3, less deep than the first layer without positions": SMOLLM3.replace(**SIZES, nope_layers=()),
    "qwen2": QWEN2.replace(**SIZES),
    "qwen3": CONFIG.replace(**SIZES),
    "qwen3, yarn": CONFIG.replace(**SIZES, rope_scaling=Yarn(4.0, 64, 1.1386294361119891)),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_comes_back_as_it_was(name, tmp_path):
    config = MODELS[name]
    params = write_gguf(tmp_path / "model.gguf", config)
    made = import_model(str(tmp_path / "model.gguf"), tmp_path / "folder")
    assert made.config == config
    loaded, back = load_pretrained(tmp_path / "folder", dtype="float32")
    assert loaded == config
    chex.assert_trees_all_equal(back, params)


@pytest.mark.parametrize("name", ["llama", "llama, linear rope", "qwen2"])
@pytest.mark.parametrize("kind", ["Q8_0", "Q4_1"])
def test_logits_are_those_of_transformers_own_loader(name, kind, tmp_path):
    torch = pytest.importorskip("torch", reason="needs torch==2.13.0 for transformers' own loader")
    from transformers import AutoModelForCausalLM

    # That loader reads a head's size from rope.dimension_count, and no rope scaling.
    config = MODELS[name].replace(rope_scaling=None, intermediate_size=64, head_dim=8)
    write_gguf(
        tmp_path / "model.gguf", config, kind=kind, **{f"{config.model_type}.rope.dimension_count": config.head_dim}
    )
    import_model(str(tmp_path / "model.gguf"), tmp_path / "folder")
    config, params = load_pretrained(tmp_path / "folder", dtype="float32")
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (2, 17))
    model = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf", dtype=torch.float32)
    with torch.no_grad():
        expected = model(torch.from_numpy(tokens)).logits.numpy()
    ours = logits(params, config, jnp.asarray(tokens))
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("kind", [kind.name for kind in gguf.quants._type_traits])
def test_every_type_that_the_package_dequantises_is_read(kind, tmp_path):
    number = gguf.GGMLQuantizationType[kind]
    shape = gguf.quants.quant_shape_to_byte_shape((4, 256), number)
    stored = np.random.default_rng(0).integers(0, 100, shape, np.uint8)  # scales of such bytes are finite
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    writer.add_tensor("x", stored, raw_dtype=number)
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
    file = GgufFile(tmp_path / "model.gguf", "model.gguf")
    assert (file.shape("x"), file.kinds()) == ((4, 256), {kind: 1})
    np.testing.assert_array_equal(file.tensor("x"), gguf.quants.dequantize(stored, number))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_are_rounded_once(dtype, tmp_path):
    params = write_gguf(tmp_path / "model.gguf", MODELS["llama"])
    import_model(str(tmp_path / "model.gguf"), tmp_path / "folder", dtype=dtype)
    _, back = load_pretrained(tmp_path / "folder", dtype=dtype)
    chex.assert_trees_all_equal(back, jax.tree.map(lambda leaf: leaf.astype(dtype), params))


def test_the_same_file_gives_the_same_folder_with_a_note_of_its_origin(tmp_path):
    write_gguf(tmp_path / "model.gguf", MODELS["llama"], kind="F16")
    for name in ("first", "second"):
        import_model(str(tmp_path / "model.gguf"), tmp_path / name, default_system=False)
    first, second = (contents(tmp_path / name) for name in ("first", "second"))
    assert first == second
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md", "generation_config.json"} <= set(first)
    note = first["README.md"].decode()
    digest = hashlib.sha256((tmp_path / "model.gguf").read_bytes()).hexdigest()
    assert note.startswith("---\nlicense: apache-2.0\n---\n\n# A small model\n")
    for line in (
        f"- source: model.gguf, SHA-256 {digest}",
        "licence: apache-2.0",
        "15 F16",
        "default system turn is left out",
    ):
        assert line in note, line
    assert str(tmp_path) not in note
    fields = json.loads(first["config.json"])
    assert [fields[f"{role}_token_id"] for role in ("bos", "eos", "pad")] == [1, 2, 0]


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_the_end_of_a_turn_ends_a_completion_too(tmp_path):
    write_gguf(tmp_path / "model.gguf", MODELS["qwen3"], **{"tokenizer.ggml.eot_token_id": 0})
    import_model(str(tmp_path / "model.gguf"), tmp_path / "folder")
    assert json.loads((tmp_path / "folder" / "generation_config.json").read_text())["eos_token_id"] == [0, 2]


REFUSED = {
    "another architecture": ({"general.architecture": "gemma"}, "'gemma'; imported are llama, smollm3, qwen2, qwen3"),
    "experts": ({"llama.expert_count": 8}, "llama.expert_count is 8"),
    "a window": ({"llama.attention.sliding_window": 64}, "llama.attention.sliding_window is 64"),
    "part of a head": ({"llama.rope.dimension_count": 4}, "rope.dimension_count is 4 and a head's size 8"),
    "a missing size": ({"llama.block_count": None}, "has no llama.block_count"),
    "too few layers": ({"llama.block_count": 1}, "has 9 tensors without a place in this model, .* blk.1.attn_k"),
    "too many layers": ({"llama.block_count": 3}, "lacks 9 tensors of this model, the first is blk.2.attn_k"),
    "another width": ({"llama.feed_forward_length": 40}, r"ffn_down.weight has shape \[32, 48\].*says \[32, 40\]"),
    "another rope": ({"llama.rope.scaling.type": "longrope"}, "rope.scaling.type 'longrope' is not supported"),
    "one of several parts": ({"split.count": 3}, "one of 3 parts; join them first"),
    "an unknown cut of text": ({"tokenizer.ggml.pre": "tekken"}, "pre-tokenizer 'tekken'; known are gpt-2, smollm"),
    "no cut of text": ({"tokenizer.ggml.pre": None}, "names no pre-tokenizer.*--pre-tokenizer chooses one"),
    "another kind of tokenizer": ({"tokenizer.ggml.model": "t5"}, "of the kind 't5' are not imported"),
    "an id without a token": ({"tokenizer.ggml.eos_token_id": 999}, "eos_token is 999, and there are 288 tokens"),
    "an end without a token": ({"tokenizer.ggml.eot_token_id": 999}, "eot_token is 999, and there are 288 tokens"),
    "layers that differ": ({"llama.feed_forward_length": [48, 32]}, r"\[48, 32\]; one number for all layers"),
    "a rope that shrinks": (
        {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 0.5},
        "rope.scaling.factor is 0.5; it stretches",
    ),
    "a merge of no tokens": (
        {"tokenizer.ggml.merges": ["zz yy"]},
        "no tokenizer can be made of its tokens and merges .*`zz` out of vocabulary",
    ),
    "half a merge": ({"tokenizer.ggml.merges": ["at"]}, "no tokenizer can be made of its tokens and merges"),
    "too few kinds of tokens": ({"tokenizer.ggml.token_type": [1]}, "288 tokens and 1 entries of tokenizer.ggml.token"),
    "several templates in one": ({"tokenizer.chat_template": ["a", "b"]}, "tokenizer.chat_template is .* it is a text"),
    "an adapter": (
        {"general.type": "adapter", "llama.block_count": None},
        "holds an adapter; give the model's file, and to `egrsd train` as --lora.path",
    ),
    "what sees images": (
        {"general.type": "mmproj", "general.architecture": "clip"},
        "the file with the language model",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_imported_is_one_line(case, tmp_path):
    values, message = REFUSED[case]
    write_gguf(tmp_path / "model.gguf", MODELS["llama"], **values)
    with pytest.raises(ValueError, match=message) as error:
        import_model(str(tmp_path / "model.gguf"), tmp_path / "folder")
    assert "\n" not in str(error.value)
    assert [file.name for file in tmp_path.iterdir()] == ["model.gguf"]  # nothing is left behind


def test_a_number_that_is_repeated_for_every_layer_is_one(tmp_path):
    write_gguf(tmp_path / "model.gguf", MODELS["llama"], **{"llama.feed_forward_length": [48, 48]})
    assert import_model(str(tmp_path / "model.gguf"), tmp_path / "folder").config == MODELS["llama"]


def test_a_type_that_the_package_does_not_know_asks_for_another_file_and_not_for_the_same(tmp_path):
    """Q4_0_4_4 was type 31 until llama.cpp gave it up."""
    write_tensor(tmp_path / "model.gguf", kind=31)
    with pytest.raises(
        ValueError, match=r"a type that this gguf package does not know .*31.*; update the package, or take"
    ):
        GgufFile(tmp_path / "model.gguf", "model.gguf")


def test_numbers_in_the_other_order_of_bytes_are_refused(tmp_path):
    """The reader of gguf 0.19 turns them around, and its dequantize() takes them for this machine's all the same."""
    write_tensor(tmp_path / "model.gguf", endianess=gguf.GGUFEndian.BIG)
    with pytest.raises(ValueError, match=r"model\.gguf is a file for machines of the other byte order"):
        GgufFile(tmp_path / "model.gguf", "model.gguf")


def write_tensor(file: Path, *, kind: int = 0, **options) -> None:
    """A file with one tensor of 32 numbers."""
    writer = gguf.GGUFWriter(file, "llama", **options)
    writer.add_tensor("x", np.zeros(32, np.float32), raw_dtype=gguf.GGMLQuantizationType.F32)
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
    whole = file.read_bytes()
    named = whole.index(b"x", whole.index(b"general.architecture") + 40)
    at = named + 1 + 4 + 8  # its name, how many dimensions, the one
    assert int.from_bytes(whole[at : at + 4], "little") == 0
    file.write_bytes(whole[:at] + kind.to_bytes(4, "little") + whole[at + 4 :])


def test_factors_that_no_configuration_states_are_refused(tmp_path):
    config = MODELS["llama"].replace(rope_scaling=Llama3(16.0, 1.0, 4.0, 8192))
    write_gguf(tmp_path / "model.gguf", config)
    with pytest.raises(ValueError, match=r"factors up to .* that are not those of Llama 3\.1 or 3\.2"):
        import_model(str(tmp_path / "model.gguf"), tmp_path / "folder")


@pytest.mark.parametrize("kept", [0, 3, 200, -1])
def test_a_file_that_is_cut_short_is_named(kept, tmp_path):
    write_gguf(tmp_path / "model.gguf", MODELS["llama"])
    whole = (tmp_path / "model.gguf").read_bytes()
    (tmp_path / "model.gguf").write_bytes(whole[:kept])
    with pytest.raises(ValueError, match=r"model\.gguf is no GGUF file, or is cut short"):
        import_model(str(tmp_path / "model.gguf"), tmp_path / "folder")


def test_a_folder_with_something_in_it_stays_as_it_is(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="is not empty"):
        import_model(str(tmp_path / "model.gguf"), tmp_path / "folder")
    assert contents(tmp_path / "folder") == {"notes.txt": b"mine"}


def test_a_link_to_an_empty_folder_is_followed(tmp_path):
    write_gguf(tmp_path / "model.gguf", MODELS["llama"])
    (tmp_path / "large disk").mkdir()
    (tmp_path / "folder").symlink_to(tmp_path / "large disk")
    import_model(str(tmp_path / "model.gguf"), tmp_path / "folder")
    assert read_config(tmp_path / "large disk").model_type == "llama"
    assert (tmp_path / "folder").is_symlink()


def test_the_command_says_what_it_made(tmp_path, capsys):
    from egrsd_jax.cli.main import main

    write_gguf(tmp_path / "model.gguf", MODELS["qwen2"])
    main(["import", str(tmp_path / "model.gguf"), "--to", str(tmp_path / "folder"), "--no-default-system"])
    printed = capsys.readouterr().out
    count = sum(
        tensor.size for tensor in gguf_tensors(MODELS["qwen2"], load_pretrained(tmp_path / "folder")[1]).values()
    )
    assert f"qwen2, {count:,} parameters in float32" in printed
    assert read_config(tmp_path / "folder").model_type == "qwen2"


def test_a_mistake_on_the_command_line_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert "there is no file nothing.gguf; give a GGUF file" in refused(capsys, "import.py", "nothing.gguf")
