"""From a run's folder to a model that transformers and peft load, with a card that says how it was made."""

import json
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import call, create_autospec

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from huggingface_hub import HfApi
from transformers import AutoTokenizer

from egrsd_jax.config import (
    Config,
    EvaluationSettings,
    LoraSettings,
    ModelSettings,
    PromptSettings,
    RunSettings,
    TrainSettings,
)
from egrsd_jax.evaluate.scores import Scores
from egrsd_jax.export import export_run
from egrsd_jax.model.decoder import forward, output_head
from egrsd_jax.model.hf.hub import load_pretrained, resolve_folder
from egrsd_jax.model.hf.peft import load_adapter
from egrsd_jax.model.lora import merge_lora
from egrsd_jax.model.sharding import make_mesh
from egrsd_jax.objective.methods import method_settings
from egrsd_jax.policy import student
from egrsd_jax.runs import fingerprint
from egrsd_jax.runs.folder import RunFolder
from egrsd_jax.train.checkpoint import Checkpoints
from egrsd_jax.train.state import init_state, make_optimizer
from tests.commands import command_line, environment
from tests.evaluate.examples import held_out

LAUNCHER = Path(__file__).resolve().parents[1] / "launch/export.py"
TOKENS = np.arange(1, 25).reshape(2, 12)


def configuration(folder: Path, rank: int) -> Config:
    return Config(
        seed=3,
        run=RunSettings(dir=str(folder), name=f"rank{rank}"),
        model=ModelSettings(path="arithmetic", dtype="float32", param_dtype="float32"),
        lora=LoraSettings(rank=rank, alpha=8.0, dropout=0.05 if rank else 0.0),
        prompt=PromptSettings(
            student="{problem}",
            teacher="{problem} reference {solution}",
            student_thinking=True,
            teacher_thinking=True,
        ),
        method=method_settings("cl_egrsd", gamma=0.4, window=2),
        train=TrainSettings(steps=4, batch_size=8),
        evaluation=EvaluationSettings(path="arithmetic", problems=3, samples=2, max_new_tokens=8),
    )


def evaluation(correct: int, length: int) -> Scores:
    return held_out([[0, 0], [1, correct], [1, 1]], [length, 8], cut_off=0.5, max_new_tokens=8)


def make_run(folder: Path, rank: int):
    """A run's folder as training leaves it, with checkpoints of steps 2 and 4, and the policies in them by step."""
    config = configuration(folder, rank)
    model, base = load_pretrained("arithmetic", dtype="float32")
    mesh = make_mesh(devices=jax.devices()[:1])
    state = init_state(jax.random.key(0), base, model, config.lora, make_optimizer(config.train), mesh)
    run = RunFolder(config)
    run.open(0, ["cpu"])
    run.close()
    checkpoints = Checkpoints(run.checkpoints, config)
    policies = {}
    source = np.random.default_rng(0)
    for step in (2, 4):
        trainable = jax.tree.map(
            lambda leaf: leaf + jnp.asarray(0.1 * source.standard_normal(leaf.shape, np.float32)), state.trainable
        )
        checkpoints.save(state._replace(trainable=trainable, step=jnp.int32(step)))
        policies[step] = student(trainable, base, config.lora)
    checkpoints.close()
    run.write_json("evaluation_step0.json", evaluation(0, 20).to_json())
    run.write_json("evaluation_step4.json", evaluation(1, 10).to_json())
    return run.path, model, policies


@pytest.fixture(scope="module")
def adapted(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs"), rank=4)


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs"), rank=0)


def logits(params, model, lora=None):
    return forward(params, model, jnp.asarray(TOKENS), lora=lora) @ output_head(params, model)


def files(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


TOKENIZER = {"tokenizer.json", "tokenizer_config.json"}


def test_the_merged_model_gives_the_logits_of_the_policy(adapted, tmp_path):
    run, model, policies = adapted
    made = export_run(run, tmp_path / "model")
    assert (made.step, made.dtype) == (4, "float32")
    assert files(tmp_path / "model") == {
        *TOKENIZER,
        *("README.md", "config.json", "generation_config.json", "model.safetensors"),
    }
    back, merged = load_pretrained(tmp_path / "model", dtype="float32")
    assert back == model
    policy = policies[4]
    expected = logits(policy.params, model, policy.lora)
    np.testing.assert_allclose(logits(merged, model), expected, rtol=0, atol=1e-5 * jnp.abs(expected).max())
    assert jnp.abs(logits(policy.params, model) - expected).max() > 0.1
    fields = json.loads((tmp_path / "model/config.json").read_text())
    assert (fields["eos_token_id"], fields["pad_token_id"], fields["dtype"]) == (2, 0, "float32")
    assert json.loads((tmp_path / "model/generation_config.json").read_text()) == {"eos_token_id": 2, "pad_token_id": 0}


def test_an_earlier_step_in_another_dtype(adapted, tmp_path):
    run, _, policies = adapted
    made = export_run(run, tmp_path / "model", step=2, dtype="bfloat16")
    assert (made.step, made.dtype) == (2, "bfloat16")
    merged = merge_lora(*policies[2])
    _, back = load_pretrained(tmp_path / "model", dtype="bfloat16")
    chex.assert_trees_all_equal(back, jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), merged))


def test_the_adapter_alone(adapted, tmp_path):
    run, model, policies = adapted
    export_run(run, tmp_path / "adapter", what="adapter")
    assert files(tmp_path / "adapter") == {
        *TOKENIZER,
        *("README.md", "adapter_config.json", "adapter_model.safetensors"),
    }
    back = load_adapter(tmp_path / "adapter", model)
    assert (back.scale, back.dropout) == (policies[4].lora.scale, policies[4].lora.dropout) == (2.0, 0.05)
    chex.assert_trees_all_equal(back.layers, policies[4].lora.layers)


def test_fields_that_describe_the_bases_files_stay_behind(adapted, tmp_path, monkeypatch):
    base = Path(shutil.copytree(resolve_folder("arithmetic"), tmp_path / "base"))
    old = {
        "quantization_config": {"load_in_4bit": True, "quant_method": "bitsandbytes"},
        "auto_map": {"AutoModelForCausalLM": "modeling.Model"},
        "unsloth_version": "2024.1",
        "_attn_implementation_autoset": True,
        "torch_dtype": "float16",
    }
    kept = {"use_cache": True, "initializer_range": 0.02}
    content = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(content | old | kept))
    (base / "generation_config.json").write_text(
        json.dumps({"eos_token_id": [2], "_from_model_config": True, "transformers_version": "4.1"})
    )
    monkeypatch.setattr("egrsd_jax.export.base_folder", lambda *_: base)
    monkeypatch.setattr("egrsd_jax.export.cuts_otherwise", lambda folder: folder == base)
    export_run(adapted[0], tmp_path / "model")
    fields = json.loads((tmp_path / "model/config.json").read_text())
    assert not old.keys() & fields.keys()
    assert {name: fields[name] for name in kept} == kept
    assert json.loads((tmp_path / "model/generation_config.json").read_text()) == {"eos_token_id": [2]}
    tokenizer = json.loads((base / "tokenizer_config.json").read_text())
    as_stored = json.loads((tmp_path / "model/tokenizer_config.json").read_text())
    assert as_stored == tokenizer | {"tokenizer_class": "PreTrainedTokenizerFast"}


def test_a_model_that_was_moved_is_recognised_and_its_licence_comes_along(adapted, tmp_path):
    moved = Path(shutil.copytree(resolve_folder("arithmetic"), tmp_path / "moved"))
    (moved / "LICENSE.txt").write_text("of the weights")
    (moved / "additional_chat_templates").mkdir()
    (moved / "additional_chat_templates/tool_use.jinja").write_text("{{ messages[0].content }} with tools")
    (moved / "README.md").write_text("where they are from")
    run = Path(shutil.copytree(adapted[0], tmp_path / "run"))
    (run / "config.yaml").write_text((run / "config.yaml").read_text().replace("path: arithmetic", "path: gone"))
    with pytest.raises(FileNotFoundError, match=r"folder 'gone'.*say where it is now: --base of export"):
        export_run(run, tmp_path / "to")
    (run / "fingerprints.json").write_text(json.dumps({"weights": fingerprint.of_weights(moved)}))
    export_run(run, tmp_path / "to", base=str(moved))
    assert AutoTokenizer.from_pretrained(tmp_path / "to").chat_template["tool_use"].endswith(" with tools")
    assert (tmp_path / "to/LICENSE.txt").read_text() == "of the weights"
    assert (tmp_path / "to/BASE_README.md").read_text() == "where they are from"
    (run / "fingerprints.json").write_text(json.dumps({"weights": "those of another model"}))
    with pytest.raises(ValueError, match=r"model\.path is '.*moved', but it was 'arithmetic' in training"):
        export_run(run, tmp_path / "again", base=str(moved))


def test_all_weights(full, tmp_path):
    run, _, policies = full
    export_run(run, tmp_path / "model", step=2)
    chex.assert_trees_all_equal(load_pretrained(tmp_path / "model", dtype="float32")[1], policies[2].params)
    assert "all of its weights were trained" in (tmp_path / "model/README.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("what", ["merged", "adapter"])
def test_transformers_and_peft_load_it_give_our_logits_and_run_the_snippet_of_the_card(
    what, adapted, tmp_path, monkeypatch, capsys
):
    torch = pytest.importorskip("torch", reason="needs torch==2.13.0 for transformers' own model")
    peft = pytest.importorskip("peft", reason="needs peft>=0.18, which reads the adapter")
    from transformers import AutoModelForCausalLM

    run, model, policies = adapted
    export_run(run, tmp_path / "export", what=what)
    loads = AutoModelForCausalLM if what == "merged" else peft.AutoPeftModelForCausalLM
    theirs = loads.from_pretrained(tmp_path / "export", dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        found = theirs(torch.from_numpy(TOKENS)).logits.numpy()
    expected = logits(policies[4].params, model, policies[4].lora)
    np.testing.assert_allclose(expected, found, rtol=0, atol=1e-5 * np.abs(found).max())

    card = (tmp_path / "export/README.md").read_text()
    (snippet,) = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(snippet, {})
    assert capsys.readouterr().out.strip()


def test_the_card_says_how_it_was_made_and_how_it_did(adapted, tmp_path):
    run, *_ = adapted
    export_run(run, tmp_path / "model")
    card = (tmp_path / "model/README.md").read_text()
    _, front, body = card.split("---\n", 2)
    fields = yaml.safe_load(front)
    assert fields["library_name"] == "transformers"
    assert "base_model" not in fields  # the built-in model is no repository
    assert "# model\n" in body
    for line in (
        "| base model | `arithmetic` |",
        "| method | `cl_egrsd`, γ 0.4, W 2, ε 0.2, gate floor 0.1, teacher frozen |",
        "| trained | LoRA r 4, α 8, on all projections; written as float32 |",
        "| steps | 4 of 4, 8 completions each, 1 a problem |",
        "| seed | 3 |",
        "| step 0 (base model) | 50.0 ± 28.9 | 14.0 ± 0.0 | | 50.0 | 0.0 |",
        "| step 4 | 66.7 ± 33.3 | 9.0 ± 0.0 | | 50.0 | 0.0 |",
        "| change | +16.7 ± 16.7 | -5.0 ± 0.0 | | | |",
    ):
        assert line in body
    assert re.search(r"\| versions \| egrsd-jax \S+.*, jax \d", body)
    (settings,) = re.findall(r"```yaml\n(.*?)```", body, flags=re.DOTALL)
    assert yaml.safe_load(settings)["train"]["batch_size"] == 8
    assert str(run.parent) not in card


def test_a_checkpoint_that_is_older_than_a_setting_is_exported(adapted, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(adapted[0], run)
    file = run / "checkpoints/4/_CHECKPOINT_METADATA"
    content = json.loads(file.read_text())
    del content["custom_metadata"]["lora"]["dropout"]
    (run / "checkpoints/checksums/4.json").unlink()
    file.write_text(json.dumps(content))
    assert export_run(run, tmp_path / "adapter", what="adapter").step == 4


def test_an_evaluation_after_the_exported_step_is_not_its_own(adapted, tmp_path):
    made = export_run(adapted[0], tmp_path / "model", step=2)
    assert [step for step, _ in made.evaluations] == [0]
    assert "| step 4 |" not in (tmp_path / "model/README.md").read_text()


def test_mistakes_say_what_would_be_right_and_write_nothing(adapted, full, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    run, to = adapted[0], tmp_path / "to"
    taken, empty = tmp_path / "taken", tmp_path / "empty"
    taken.mkdir()
    (taken / "kept.txt").write_text("mine")
    empty.mkdir()
    (empty / "config.yaml").write_text((run / "config.yaml").read_text())
    edited = tmp_path / "edited"
    edited.mkdir()
    (edited / "config.yaml").write_text((run / "config.yaml").read_text().replace("alpha: 8.0", "alpha: 9.0"))
    (edited / "checkpoints").symlink_to(run / "checkpoints")
    older = tmp_path / "older"
    older.mkdir()
    (older / "config.yaml").write_text("train:\n  stepz: 3\n")
    for arguments, options, message in (
        ((tmp_path / "no_run", to), {}, "no_run is not a run's folder: it has no config.yaml"),
        ((empty, to), {}, "empty has no checkpoints"),
        ((run, to), {"step": 3}, "has no checkpoint of step 3; it has 2, 4"),
        ((run, taken), {}, "taken is not empty"),
        ((run, taken / "kept.txt"), {}, "kept.txt is a file"),
        ((full[0], to), {"what": "adapter"}, r"trained all weights \(lora.rank 0\) and has no adapter"),
        ((run, to), {"dtype": "int8"}, "dtype 'int8' is not supported"),
        ((run, to), {"push": "name"}, "--push 'name' is not a repository of the hub; give OWNER/NAME"),
        ((run, to), {"push": "owner/name"}, "not logged in to the Hugging Face hub"),
        (
            (older, to),
            {},
            "config.yaml is not a run's configuration: there is no field train.stepz; the nearest is train.steps",
        ),
        ((edited, to), {}, "lora.alpha is 9.0, but it was 8.0 in training"),
    ):
        with pytest.raises((ValueError, OSError), match=message):
            export_run(*arguments, **options)
    assert files(tmp_path) == {"taken", "empty", "edited", "older"}
    assert files(taken) == {"kept.txt"}


def test_a_failure_on_the_way_leaves_no_folder(adapted, tmp_path, monkeypatch):
    def fails(*arguments, **options):
        raise OSError("the disk is full")

    monkeypatch.setattr("egrsd_jax.export.save_pretrained", fails)
    with pytest.raises(OSError, match="the disk is full"):
        export_run(adapted[0], tmp_path / "model")
    assert files(tmp_path) == set()


@pytest.fixture
def hub(monkeypatch):
    """huggingface_hub's own calls, with its own signatures, that go nowhere."""
    api = create_autospec(HfApi, instance=True)
    api.uploaded = None
    api.upload_folder.side_effect = lambda **options: setattr(api, "uploaded", files(options["folder_path"]))
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "a token")
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: api)
    return api


def run_launcher(monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["export.py", *arguments])
    runpy.run_path(str(LAUNCHER), run_name="__main__")


def test_push_uploads_the_whole_folder_to_a_private_repository(adapted, hub, tmp_path, monkeypatch, capsys):
    to = tmp_path / "adapter"
    run_launcher(monkeypatch, str(adapted[0]), f"--to={to}", "--what=adapter", "--push=owner/name")
    assert hub.mock_calls == [
        call.create_repo("owner/name", private=True, exist_ok=True),
        call.upload_folder(repo_id="owner/name", folder_path=to),
    ]
    assert hub.uploaded == files(to) == {*TOKENIZER, "README.md", "adapter_config.json", "adapter_model.safetensors"}
    assert '.from_pretrained("owner/name"' in (to / "README.md").read_text()
    assert capsys.readouterr().out.endswith("pushed to https://huggingface.co/owner/name (private, if it is new)\n")


@pytest.mark.parametrize("fails", ["create_repo", "upload_folder"])
@pytest.mark.parametrize(
    ("error", "reason"),
    [(RuntimeError("403 Forbidden\nand more"), "403 Forbidden"), (TimeoutError(), "TimeoutError()")],
    ids=["refused", "an error without words"],
)
def test_a_push_that_fails_keeps_the_folder_and_says_so(
    error, reason, fails, adapted, hub, tmp_path, monkeypatch, capsys
):
    getattr(hub, fails).side_effect = error
    to = tmp_path / "adapter"
    with pytest.raises(SystemExit) as stop:
        run_launcher(monkeypatch, str(adapted[0]), f"--to={to}", "--what=adapter", "--push=owner/name")
    assert stop.value.code == 2
    assert capsys.readouterr().err == (
        f"export.py: error: {to} is complete, but it could not be pushed to owner/name: {reason} "
        f"(to try again: hf upload --private owner/name {to})\n"
    )
    assert files(to) == {*TOKENIZER, "README.md", "adapter_config.json", "adapter_model.safetensors"}
    assert load_adapter(to, adapted[1]).scale == 2.0


def test_without_a_network_the_folder_is_kept_and_without_a_login_nothing_is_begun(
    adapted, tmp_path, monkeypatch, capsys
):
    """Through huggingface_hub itself, set to offline."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name, token, message in (
        ("offline", "a token", "offline is complete, but it could not be pushed to owner/name: Cannot reach https://"),
        ("anonymous", None, "not logged in to the Hugging Face hub: run `hf auth login`, or set HF_TOKEN"),
    ):
        monkeypatch.setattr("huggingface_hub.get_token", lambda token=token: token)
        with pytest.raises(SystemExit) as stop:
            run_launcher(monkeypatch, str(adapted[0]), f"--to={tmp_path / name}", "--push=owner/name")
        error = capsys.readouterr().err
        assert stop.value.code == 2
        assert error.count("\n") == 1
        assert message in error
    assert files(tmp_path) == {"offline"}
    assert {"config.json", "model.safetensors"} <= files(tmp_path / "offline")


@pytest.mark.slow
def test_the_command_exports(adapted, tmp_path):
    command = command_line("export.py", adapted[0], "--to", tmp_path / "model", "--step=2")
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(rf"{tmp_path}/model: merged, float32, step 2; 6 files, 1\.\d MB\n", done.stdout)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["runs/nowhere", "--to", "model"], "nowhere is not a run's folder: it has no config.yaml"),
        (["runs/nowhere"], "the following arguments are required: --to"),
        (["runs/nowhere", "--to", "model", "--what=weights"], "argument --what: invalid choice: 'weights'"),
    ],
)
def test_the_command_tells_mistakes_in_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        run_launcher(monkeypatch, *arguments)
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert error.startswith("export.py: error: ")
    assert error.count("\n") == 1
    assert message in error
    assert files(tmp_path) == set()
