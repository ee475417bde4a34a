"""Checkpoints in and out: exact numbers, any mesh, bounded host memory, and mistakes that are named."""

import json
import mmap
import tracemalloc
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from egrsd_jax.model.config import ModelConfig, read_config
from egrsd_jax.model.decoder import abstract_params
from egrsd_jax.model.hf import save
from egrsd_jax.model.hf.checkpoint_files import write_tensors
from egrsd_jax.model.hf.hub import load_pretrained, resolve_folder, save_pretrained
from egrsd_jax.model.hf.save import new_folder
from egrsd_jax.model.lora import Lora, merge_lora, projection_shapes
from egrsd_jax.model.sharding import make_mesh
from tests.model.examples import CONFIG as TINY

CONFIG = TINY.replace(vocab_size=96, tie_embeddings=False)
INDEX = "model.safetensors.index.json"


def random_params(config: ModelConfig, dtype: str = "float32", seed: int = 0):
    source = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.asarray(source.standard_normal(leaf.shape, np.float32), dtype), abstract_params(config)
    )


def random_adapter(config: ModelConfig, rank: int = 3) -> Lora:
    source, L = np.random.default_rng(7), config.num_layers

    def array(*shape: int):
        return jnp.asarray(source.standard_normal((L, *shape), np.float32))

    layers = {
        block: {
            name: {"a": array(rank, in_size), "b": array(out_size, rank)}
            for name, (out_size, in_size) in shapes.items()
        }
        for block, shapes in projection_shapes(config).items()
    }
    return Lora(layers, scale=2.0)


def files(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("limit", [2**30, 20_000, 1], ids=["one file", "shards", "a shard a tensor"])
def test_what_was_saved_is_loaded_to_the_last_bit(dtype, limit, tmp_path):
    params = random_params(CONFIG, dtype)
    save_pretrained(tmp_path, CONFIG, params, max_shard_bytes=limit, eos_token_id=5)
    config, back = load_pretrained(tmp_path, dtype=dtype)
    chex.assert_trees_all_equal(back, params)
    assert config == CONFIG.replace(dtype=dtype)
    fields = json.loads((tmp_path / "config.json").read_text())
    assert (fields["dtype"], fields["eos_token_id"]) == (dtype, 5)
    if limit == 2**30:
        assert files(tmp_path) == ["config.json", "model.safetensors"]
        return
    index = json.loads((tmp_path / INDEX).read_text())
    shards = sorted(set(index["weight_map"].values()))
    assert files(tmp_path) == sorted(["config.json", INDEX, *shards])
    assert shards[0] == f"model-00001-of-{len(shards):05d}.safetensors"
    assert index["metadata"]["total_size"] == sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    for shard in shards:
        held = load_file(tmp_path / shard)
        assert set(held) == {name for name, file in index["weight_map"].items() if file == shard}
        assert len(held) == 1 or sum(tensor.nbytes for tensor in held.values()) <= limit


@pytest.mark.parametrize("axes", [(8, 1, 1), (1, 8, 1), (1, 1, 2), (2, 2, 2)], ids=str)
def test_any_mesh_loads_and_saves_the_same_numbers(axes, tmp_path):
    params = random_params(CONFIG)
    save_pretrained(tmp_path / "plain", CONFIG, params, max_shard_bytes=20_000)
    mesh = make_mesh(*axes, devices=jax.devices()[: int(np.prod(axes))])
    _, sharded = load_pretrained(tmp_path / "plain", mesh=mesh, dtype="float32")
    chex.assert_trees_all_equal(sharded, params)
    down = sharded["layers"]["mlp"]["down_proj"]["weight"]
    assert down.sharding.spec == jax.P(None, "fsdp", "tensor")
    assert down.addressable_shards[0].data.shape == (3, 32 // axes[1], 48 // axes[2])
    save_pretrained(tmp_path / "sharded", CONFIG, sharded, max_shard_bytes=20_000)
    for file in files(tmp_path / "plain"):
        assert (tmp_path / "sharded" / file).read_bytes() == (tmp_path / "plain" / file).read_bytes()


def test_the_cast_on_the_way_in_and_out_rounds_once_to_nearest(tmp_path):
    params = random_params(CONFIG)
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    save_pretrained(tmp_path / "wide", CONFIG, params)
    save_pretrained(tmp_path / "narrow", CONFIG, params, dtype="bfloat16")
    chex.assert_trees_all_equal(load_pretrained(tmp_path / "wide", dtype="bfloat16")[1], narrow)
    with safe_open(tmp_path / "narrow/model.safetensors", framework="np") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"BF16"}  # noqa: SIM118
    _, widened = load_pretrained(tmp_path / "narrow", dtype="float32")
    chex.assert_trees_all_equal(widened, jax.tree.map(lambda leaf: leaf.astype(jnp.float32), narrow))


@pytest.mark.parametrize("dtype", [None, "float32"])
def test_an_adapter_is_merged_on_the_way_out_as_merge_lora_merges_it(dtype, tmp_path):
    params, lora = random_params(CONFIG, "bfloat16"), random_adapter(CONFIG)
    save_pretrained(tmp_path, CONFIG, params, lora=lora, dtype=dtype, max_shard_bytes=20_000)
    wide = params if dtype is None else jax.tree.map(lambda leaf: leaf.astype(dtype), params)
    merged = merge_lora(wide, lora)
    chex.assert_trees_all_equal(load_pretrained(tmp_path, dtype=dtype or "bfloat16")[1], merged)
    assert not np.array_equal(merged["layers"]["mlp"]["up_proj"]["weight"], wide["layers"]["mlp"]["up_proj"]["weight"])


def test_a_model_of_one_layer_keeps_the_layers_axis(tmp_path):
    config = CONFIG.replace(num_layers=1)
    params = random_params(config)
    save_pretrained(tmp_path, config, params)
    chex.assert_trees_all_equal(load_pretrained(tmp_path, dtype="float32")[1], params)


def test_a_tied_head_that_is_stored_as_well_is_the_embedding(tmp_path):
    config = CONFIG.replace(tie_embeddings=True)
    params = random_params(config)
    save_pretrained(tmp_path, config, params)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file({**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"]}, tmp_path / "model.safetensors")
    chex.assert_trees_all_equal(load_pretrained(tmp_path, dtype="float32")[1], params)


def tied(folder: Path, change) -> tuple[dict, dict]:
    """A tied model's folder whose tensors are changed in place by `change`; its parameters and tensors as they were."""
    config = CONFIG.replace(tie_embeddings=True)
    params = random_params(config)
    save_pretrained(folder, config, params)
    before = load_file(folder / "model.safetensors")
    edit(folder, change)
    return params, before


@pytest.mark.parametrize("rows", [slice(None), slice(95, 96)])
def test_a_tied_models_head_of_its_own_unties_it(rows, tmp_path):
    def change(tensors):
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
        tensors["lm_head.weight"][rows] += 1

    params, before = tied(tmp_path, change)
    config, loaded = load_pretrained(tmp_path, dtype="float32")
    assert not config.tie_embeddings
    assert not read_config(tmp_path).tie_embeddings
    head = before["model.embed_tokens.weight"].copy()
    head[rows] += 1
    chex.assert_trees_all_equal(loaded, {**params, "lm_head": {"weight": jnp.asarray(head)}})
    save_pretrained(tmp_path / "again", config, loaded)
    assert json.loads((tmp_path / "again/config.json").read_text())["tie_word_embeddings"] is False
    chex.assert_trees_all_equal(load_pretrained(tmp_path / "again", dtype="float32")[1], loaded)


def test_a_tied_model_may_keep_its_head_in_the_embeddings_place(tmp_path):
    params, _ = tied(tmp_path, lambda t: t.update({"lm_head.weight": t.pop("model.embed_tokens.weight")}))
    config, loaded = load_pretrained(tmp_path, dtype="float32")
    assert config.tie_embeddings
    chex.assert_trees_all_equal(loaded, params)


@pytest.mark.parametrize("with_head", [False, True])
def test_names_of_the_decoder_alone_and_old_buffers(with_head, tmp_path):
    def change(tensors):
        names = {name: name.removeprefix("model.") for name in tensors}
        for name, short in names.items():
            tensors[short] = tensors.pop(name)
        tensors["layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(8, np.float32)
        if with_head:
            tensors["lm_head.weight"] = tensors["embed_tokens.weight"]

    params, _ = tied(tmp_path, change)
    chex.assert_trees_all_equal(load_pretrained(tmp_path, dtype="float32")[1], params)


class TestHostMemory:
    """numpy's memory, as tracemalloc sees it; the parts of a loaded array are in pages that it does not see."""

    config = CONFIG.replace(num_layers=12, hidden_size=128, intermediate_size=512)
    slack = 100_000  # bytes: file headers and the names of everything

    @pytest.mark.parametrize("axes", [(1, 8, 1), (4, 2, 1)], ids=["eight parts", "two parts, four replicas"])
    def test_loading_holds_what_is_read_at_once_and_the_arrays_take_their_parts_over(self, axes, tmp_path):
        params = random_params(self.config)
        save_pretrained(tmp_path, self.config, params, max_shard_bytes=2_000_000)
        mesh = make_mesh(*axes)
        load_pretrained(tmp_path, mesh=mesh, dtype="float32")  # what is imported and compiled once
        tracemalloc.start()
        _, loaded = load_pretrained(tmp_path, mesh=mesh, dtype="float32")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        parts = [shard.data for leaf in jax.tree.leaves(loaded) for shard in leaf.addressable_shards]
        assert all(part.unsafe_buffer_pointer() % mmap.PAGESIZE == 0 for part in parts)
        read_at_once = max(leaf.nbytes for leaf in jax.tree.leaves(loaded)) // self.config.num_layers
        assert peak <= read_at_once + 2 * self.slack

    def test_saving_holds_one_shard_and_one_layer(self, tmp_path):
        params, limit = random_params(self.config), 1_000_000
        save_pretrained(tmp_path / "plain", self.config, params)
        _, params = load_pretrained(tmp_path / "plain", mesh=make_mesh(1, 8, 1), dtype="float32")
        save_pretrained(tmp_path / "again", self.config, params, max_shard_bytes=limit)
        tracemalloc.start()
        save_pretrained(tmp_path / "again", self.config, params, max_shard_bytes=limit)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        layer = sum(leaf.nbytes for leaf in jax.tree.leaves(params["layers"])) // self.config.num_layers
        assert limit + layer + self.slack < sum(leaf.nbytes for leaf in jax.tree.leaves(params)) / 3
        assert peak <= limit + layer + self.slack


class TestInterruptedSave:
    @pytest.fixture
    def kept(self, tmp_path):
        params = random_params(CONFIG)
        save_pretrained(tmp_path, CONFIG, params, max_shard_bytes=20_000)
        return params

    def test_while_weights_are_written_the_earlier_checkpoint_stays(self, kept, tmp_path, monkeypatch):
        before, calls = files(tmp_path), []

        def fails_at_the_second(*arguments, **options):
            calls.append(arguments)
            if len(calls) == 2:
                raise OSError("the disk is full")
            write_tensors(*arguments, **options)

        monkeypatch.setattr(save, "write_tensors", fails_at_the_second)
        with pytest.raises(OSError, match="the disk is full"):
            save_pretrained(tmp_path, CONFIG, random_params(CONFIG, seed=1), max_shard_bytes=20_000)
        assert files(tmp_path) == before
        chex.assert_trees_all_equal(load_pretrained(tmp_path, dtype="float32")[1], kept)

    def test_after_that_the_folder_does_not_look_whole(self, kept, tmp_path, monkeypatch):
        def fails(*arguments):
            raise KeyboardInterrupt

        monkeypatch.setattr(save, "write_json", fails)
        with pytest.raises(KeyboardInterrupt):
            save_pretrained(tmp_path, CONFIG, random_params(CONFIG, seed=1), max_shard_bytes=20_000)
        with pytest.raises(FileNotFoundError, match=r"no config\.json"):
            load_pretrained(tmp_path)

    def test_what_a_killed_save_left_and_an_earlier_checkpoint_are_cleared(self, kept, tmp_path):
        (tmp_path / ".unfinished-1/").mkdir()
        (tmp_path / ".unfinished-1/0").write_bytes(b"half a shard")
        (tmp_path / "tokenizer.json").write_text("{}")
        params = random_params(CONFIG, seed=1)
        save_pretrained(tmp_path, CONFIG, params)
        assert files(tmp_path) == ["config.json", "model.safetensors", "tokenizer.json"]
        chex.assert_trees_all_equal(load_pretrained(tmp_path, dtype="float32")[1], params)


def edit(folder: Path, change):
    """Rewrites the single file with its tensors changed in place by `change`."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def edit_json(file: Path, change):
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def move_config(folder: Path, to: str) -> Path:
    return (folder / "config.json").rename(folder / to)


def truncate(file: Path):
    file.write_bytes(file.read_bytes()[:-100])


Q1 = "model.layers.1.self_attn.q_proj.weight"
BROKEN = {
    "a missing tensor": (lambda folder: edit(folder, lambda t: t.pop(Q1)), f"1 tensor is missing, the first is {Q1}"),
    "a wrapped model": (
        lambda folder: edit(folder, lambda t: t.update({f"_orig_mod.{name}": t.pop(name) for name in list(t)})),
        "the first is lm_head.weight; _orig_mod.lm_head.weight looks like it: save the model without",
    ),
    "an untied model without its head": (
        lambda folder: edit(folder, lambda t: t.pop("lm_head.weight")),
        "the first is lm_head.weight; where the head is the embedding, config.json has tie_word_embeddings true",
    ),
    "a classifier": (
        lambda folder: edit(folder, lambda t: t.update({"score.0.weight": t.pop("lm_head.weight")})),
        "the first is lm_head.weight; score.0.weight is of the head of a classifier",
    ),
    "an adapter in the model's place": (
        lambda folder: (folder / "config.json").rename(folder / "adapter_config.json"),
        "is an adapter's folder and no model's; give the model that it was trained over",
    ),
    "a run in the model's place": (
        lambda folder: (folder / "config.json").rename(folder / "config.yaml"),
        "is a run's folder and no model's; give it as --run",
    ),
    "a trainer's folder": (
        lambda folder: (folder / "checkpoint-10").mkdir() or move_config(folder, "checkpoint-10/config.json"),
        "it has no config.json; give a folder in it that has one: checkpoint-10$",
    ),
    "the hub's cache": (
        lambda folder: (
            (folder / "snapshots/0a1b").mkdir(parents=True) or move_config(folder, "snapshots/0a1b/config.json")
        ),
        "it has no config.json; give a folder in it that has one: snapshots/0a1b$",
    ),
    "a GGUF file": (
        lambda folder: move_config(folder, "a.gguf"),
        "it has no config.json; `egrsd import .*a.gguf --to DIR` makes one of it",
    ),
    "a copy of links": (
        lambda folder: move_config(folder, "../blob").unlink() or (folder / "config.json").symlink_to("../blob"),
        r"config.json is a link to \.\./blob, which is not there.*cp -rL",
    ),
    "a Git LFS pointer": (
        lambda folder: (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n"),
        "model.safetensors is a Git LFS pointer",
    ),
    "a surplus tensor": (
        lambda folder: edit(folder, lambda t: t.update({"model.layers.3.mlp.up_proj.weight": np.ones(2, np.float32)})),
        "1 tensor is without a place in this model, the first is model.layers.3.mlp.up_proj.weight",
    ),
    "a transposed tensor": (
        lambda folder: edit(folder, lambda t: t.update({Q1: np.ascontiguousarray(t[Q1].T)})),
        f"{Q1} has shape \\[32, 64\\]; its configuration says \\[64, 32\\]",
    ),
    "an integer tensor": (
        lambda folder: edit(folder, lambda t: t.update({Q1: t[Q1].astype(np.int8)})),
        f"{Q1} has dtype I8.*in 16 bits",
    ),
    "a quantised tensor and its scale": (
        lambda folder: edit(
            folder,
            lambda t: t.update({Q1: t[Q1].astype(ml_dtypes.float8_e4m3fn), Q1 + "_scale_inv": np.ones(1, np.float32)}),
        ),
        f"{Q1} has dtype F8_E4M3",
    ),
    "a truncated file": (lambda folder: truncate(folder / "model.safetensors"), "model.safetensors is cut short"),
    "an empty file": (lambda folder: (folder / "model.safetensors").write_bytes(b""), "model.safetensors is cut short"),
    "no weights": (
        lambda folder: (folder / "model.safetensors").unlink(),
        "neither model.safetensors nor .*config.json",
    ),
    "a trainer's pickles and a link to nothing": (
        lambda folder: (
            (folder / "model.safetensors").rename(folder / "training_args.bin"),
            (folder / "model.safetensors").symlink_to("../blob"),
        ),
        r"neither model.safetensors nor .*: config.json, model.safetensors \(a link to nothing\), training_args.bin",
    ),
    "a pickle": (
        lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
        "pytorch_model.bin, a pickle.*convert it to safetensors",
    ),
    "another architecture": (
        lambda folder: edit_json(folder / "config.json", lambda c: c.update(model_type="mamba2")),
        "model_type 'mamba2' is not supported",
    ),
    "no configuration": (lambda folder: (folder / "config.json").unlink(), "it has no config.json"),
    "a broken configuration": (
        lambda folder: (folder / "config.json").write_text("{"),
        "config.json is not valid JSON",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_checkpoint_is_an_error_that_names_what_is_broken(name, tmp_path):
    break_it, message = BROKEN[name]
    save_pretrained(tmp_path, CONFIG, random_params(CONFIG))
    load_pretrained(tmp_path)
    break_it(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        load_pretrained(tmp_path)
    assert str(tmp_path) in str(caught.value)


def move_tensor_map(folder: Path, to):
    edit_json(folder / INDEX, lambda index: index["weight_map"].update({Q1: to}))


BROKEN_SHARDS = {
    "a missing shard": (
        lambda folder: (folder / "model-00002-of-00005.safetensors").unlink(),
        "has no model-00002-of-00005.safetensors, one of the 5 shards",
    ),
    "a truncated shard": (
        lambda folder: truncate(folder / "model-00003-of-00005.safetensors"),
        "model-00003-of-00005.safetensors is cut short",
    ),
    "an index that is no JSON": (lambda folder: truncate(folder / INDEX), f"{INDEX} is broken"),
    "an index without a map": (
        lambda folder: edit_json(folder / INDEX, lambda index: index.pop("weight_map")),
        f"{INDEX} is broken",
    ),
    "an empty map": (
        lambda folder: edit_json(folder / INDEX, lambda index: index["weight_map"].clear()),
        f"{INDEX} is broken",
    ),
    "a map out of the folder": (lambda folder: move_tensor_map(folder, "../x.safetensors"), f"{INDEX} is broken"),
    "a map to no name": (lambda folder: move_tensor_map(folder, 3), f"{INDEX} is broken"),
    "a shard twice": (
        lambda folder: (
            (folder / "copy.safetensors").write_bytes((folder / "model-00001-of-00005.safetensors").read_bytes()),
            move_tensor_map(folder, "copy.safetensors"),
        ),
        "holds model.embed_tokens.weight, which another file of the same checkpoint holds too",
    ),
}


@pytest.mark.parametrize("name", BROKEN_SHARDS)
def test_a_broken_set_of_shards_is_an_error_that_names_what_is_broken(name, tmp_path):
    break_it, message = BROKEN_SHARDS[name]
    save_pretrained(tmp_path, CONFIG, random_params(CONFIG), max_shard_bytes=36_000)
    break_it(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        load_pretrained(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_bad_arguments_are_named(tmp_path):
    params = random_params(CONFIG)
    for call, message in (
        (lambda: load_pretrained(tmp_path, dtype="int8"), "dtype 'int8' is not supported"),
        (lambda: save_pretrained(tmp_path, CONFIG, params, dtype="int8"), "dtype 'int8' is not supported"),
        (lambda: save_pretrained(tmp_path, CONFIG, params, max_shard_bytes=0), "max_shard_bytes is 0"),
        (
            lambda: save_pretrained(tmp_path, CONFIG.replace(tie_embeddings=True), params),
            "lm_head/weight is not a parameter of the model",
        ),
        (
            lambda: save_pretrained(tmp_path, CONFIG, {"embed_tokens": params["embed_tokens"]}),
            "layers/input_layernorm/weight is missing from the parameters",
        ),
        (
            lambda: save_pretrained(tmp_path, CONFIG.replace(vocab_size=95), params),
            r"embed_tokens/weight has shape \(96, 32\); the model's configuration says \(95, 32\)",
        ),
        (
            lambda: save_pretrained(tmp_path, CONFIG, jax.tree.map(lambda leaf: leaf.astype(jnp.int32), params)),
            "embed_tokens/weight has dtype int32",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert files(tmp_path) == []


def test_numbers_that_float16_does_not_reach_are_no_weights(tmp_path):
    params = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 7e4), abstract_params(TINY))
    with pytest.raises(ValueError, match=r"has numbers beyond float16's largest, 65,504; write bfloat16 or float32"):
        save_pretrained(tmp_path, TINY, params, dtype="float16")
    assert not (tmp_path / "config.json").exists()
    save_pretrained(tmp_path, TINY, params, dtype="bfloat16")


def test_what_the_disk_does_not_take_is_an_error_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        write_tensors({"a": np.zeros(2, np.float32)}, tmp_path / "gone" / "model.safetensors")
    assert caught.value.filename == str(tmp_path / "gone" / "model.safetensors")


def test_a_name_that_is_no_folder_and_no_repository_says_what_would_be_right(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"no model folder './nowhere'.*Qwen/Qwen3-4B"):
        resolve_folder("./nowhere")
    assert (resolve_folder("arithmetic") / "config.json").is_file()
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "config.json").write_text("{}")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve_folder("~/a") == tmp_path / "a"
    (tmp_path / "a.gguf").touch()
    with pytest.raises(
        FileNotFoundError, match=r"a\.gguf is a file; give the folder of a model; `egrsd import .*a\.gguf"
    ):
        resolve_folder(tmp_path / "a.gguf")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_not_finite_is_named(tmp_path, dtype, value, monkeypatch):
    monkeypatch.setattr(save, "check_reached", lambda *_: None)  # as other programs write files
    params = random_params(TINY)
    up = params["layers"]["mlp"]["up_proj"]
    [name] = up
    up[name] = jnp.asarray(up[name]).at[1, 2, 3].set(value)
    save_pretrained(tmp_path / "bad", TINY, params, dtype=dtype)
    with pytest.raises(ValueError, match=r"model\.safetensors: model\.layers\.1\.mlp\.up_proj\.weight has values that"):
        load_pretrained(tmp_path / "bad", dtype="float32")


def test_a_folder_that_cannot_be_replaced_is_refused_before_anything_is_made(tmp_path, monkeypatch):
    assert new_folder(tmp_path / "new") == tmp_path / "new"
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    assert new_folder(tmp_path / "link") == tmp_path / "elsewhere"
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(FileExistsError, match=r"is the current folder, .*; give one in it: .*empty/model"):
        new_folder(Path())
    monkeypatch.setattr(Path, "is_mount", lambda _: True)
    with pytest.raises(FileExistsError, match="is a place where something is mounted"):
        new_folder(tmp_path / "new")
