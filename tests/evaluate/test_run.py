"""Whole evaluations: killed and resumed, repeated, on one device and on eight, graded again, and with mistakes."""

import json
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egrsd_jax.data.prompts import CHAIN_OF_DRAFT_TEMPLATE
from egrsd_jax.evaluate.policies import built_in_model, load_policy
from egrsd_jax.evaluate.run import benchmark_keys, default_folder, evaluate, regrade
from egrsd_jax.evaluate.samples import RESULTS, EvaluationFolder
from egrsd_jax.evaluate.settings import Settings
from egrsd_jax.model.hf.hub import BUILT_IN, load_pretrained
from egrsd_jax.model.hf.peft import save_adapter
from egrsd_jax.model.lora import init_lora
from egrsd_jax.model.sharding import make_mesh
from egrsd_jax.report.comparison import overview
from egrsd_jax.report.entries import read_entries
from egrsd_jax.report.evaluation import write_report
from egrsd_jax.runs.files import SettingsMismatch
from tests.commands import refused, start
from tests.test_export import make_run

SMALL = {"problems": 12, "samples": 2, "max_new_tokens": 40, "max_rows": 8}


def samples(folder: Path) -> list:
    """All samples but for the seconds they took, which no two runs share."""
    found = EvaluationFolder(folder).samples("arithmetic").values()
    return sorted((each.problem, each.sample, each.tokens, each.stopped, each.text) for each in found)


@pytest.fixture(autouse=True, scope="module")
def one_device():
    """Evaluations of this module run on the first device, where a program compiles fastest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("egrsd_jax.evaluate.run.make_mesh", lambda *_: make_mesh(devices=jax.devices()[:1]))
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "evaluation"
    write_report(evaluate(Settings(to=folder, **SMALL)))
    return folder


def test_what_an_evaluation_leaves(whole):
    assert {file.name for file in whole.iterdir()} == {
        "regime.json",
        "problems_arithmetic.jsonl",
        "samples_arithmetic.jsonl",
        ".samples_arithmetic.jsonl.crc",
        "grades_arithmetic.jsonl",
        RESULTS,
        "results.md",
        "frontier.png",
        "budgets.png",
        "lengths.png",
    }
    content = json.loads((whole / RESULTS).read_text())
    regime, found = content["regime"], content["benchmarks"]["arithmetic"]
    assert (regime["dtype"], regime["seed"], len(regime["model"])) == ("float32", 0, 64)
    asked = regime["benchmarks"]["arithmetic"]
    assert (asked["temperature"], asked["top_p"], asked["max_new_tokens"], asked["thinking"]) == (1.0, 1.0, 40, True)
    assert len(asked["data"]) == 64
    assert regime["free"]["versions"]["jax"] == jax.__version__
    assert np.shape(found["scores"]["correct"]) == (12, 2)
    assert 0 < found["metrics"]["accuracy"]["value"] < 1
    assert 0 < found["metrics"]["cut_off"] < 1  # the cap is low, so both ends are seen
    assert "| arithmetic | 12 |" in (whole / "results.md").read_text()
    cut_off = [grade for grade in _grades(whole) if grade["reason"] == "no answer: cut off"]
    assert cut_off
    assert all(grade["outcome"] == "wrong" for grade in cut_off)
    unanswered = [grade for grade in _grades(whole) if grade["missing"] is not None]
    assert found["metrics"]["no_answer"] == len(unanswered) / 24 >= found["metrics"]["cut_off"] == len(cut_off) / 24


def test_the_same_seed_gives_the_same_results(whole, tmp_path):
    evaluate(Settings(to=tmp_path, **SMALL))
    assert samples(tmp_path) == samples(whole)
    assert (tmp_path / RESULTS).read_bytes() == (whole / RESULTS).read_bytes()


@pytest.mark.slow
def test_eight_devices_give_the_same_results_as_one(whole, tmp_path, monkeypatch):
    """Byte by byte: the default mesh shares the model and the rows over all devices."""
    monkeypatch.setattr("egrsd_jax.evaluate.run.make_mesh", make_mesh)
    assert jax.device_count() == 8
    evaluate(Settings(to=tmp_path, **SMALL))
    assert samples(tmp_path) == samples(whole)
    assert (tmp_path / RESULTS).read_bytes() == (whole / RESULTS).read_bytes()


@pytest.mark.slow
def test_a_killed_evaluation_ends_with_the_same_numbers(whole, tmp_path):
    folder = tmp_path / "killed"
    options = [f"--{name}={value}" for name, value in SMALL.items()]
    killed = start("evaluate.py", f"--to={folder}", *options)
    file, deadline = folder / "samples_arithmetic.jsonl", time.monotonic() + 300
    while not (file.is_file() and file.stat().st_size):
        assert killed.poll() is None, killed.communicate()[0]
        assert time.monotonic() < deadline, "no sample after 300 s"
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    file.write_bytes(file.read_bytes()[:-20])  # as if the kill had come in the middle of a line
    evaluate(Settings(to=folder, **SMALL))
    assert samples(folder) == samples(whole)
    assert (folder / RESULTS).read_bytes() == (whole / RESULTS).read_bytes()


def test_more_samples_and_problems_leave_the_old_ones_as_they_are(whole, tmp_path):
    evaluate(Settings(to=tmp_path, problems=6, samples=1, max_new_tokens=40, max_rows=8))
    first = samples(tmp_path)
    assert len(first) == 6
    evaluate(Settings(to=tmp_path, **SMALL))
    assert samples(tmp_path) == samples(whole)
    assert set(first) <= set(samples(whole))


def test_old_samples_are_graded_again_without_their_model(whole, tmp_path):
    folder = EvaluationFolder(tmp_path)
    for name in ("regime.json", "problems_arithmetic.jsonl", "samples_arithmetic.jsonl"):
        (tmp_path / name).write_bytes((whole / name).read_bytes())
    again = regrade(tmp_path)
    assert (tmp_path / RESULTS).read_bytes() == (whole / RESULTS).read_bytes()
    rows = [{"id": problem.id, "problem": problem.problem, "answer": "11"} for problem in folder.problems("arithmetic")]
    folder.write_rows("problems_arithmetic.jsonl", rows)
    assert again.results[0].metrics.accuracy.value > 0
    assert regrade(tmp_path).results[0].metrics.accuracy.value == 0  # answers are 0 to 9
    lines = (tmp_path / "samples_arithmetic.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "samples_arithmetic.jsonl").write_bytes(b"".join(lines[:20]))
    with pytest.raises(ValueError, match="has 20 of 24 samples of arithmetic"):
        regrade(tmp_path)


def test_other_settings_are_refused(whole):
    for other in ({"temperature": 0.5}, {"seed": 1}, {"thinking": False}, {"prompt": "{problem} ="}):
        with pytest.raises(SettingsMismatch, match=next(iter(other))):
            evaluate(Settings(to=whole, **{**SMALL, **other}))


def test_answers_are_read_where_the_settings_say(whole, tmp_path):
    """Samples of before, graded by another format: no completion says these words."""
    for name in ("regime.json", "problems_arithmetic.jsonl", "samples_arithmetic.jsonl"):
        (tmp_path / name).write_bytes((whole / name).read_bytes())
    with pytest.raises(SettingsMismatch, match="answer_format"):
        evaluate(Settings(to=tmp_path, **SMALL, answer_format="The answer is"))
    other = evaluate(
        Settings(to=tmp_path / "other", **{**SMALL, "problems": 2, "samples": 1}, answer_format="The answer is")
    )
    assert other.regime["answer_format"] == "The answer is"
    assert other.results[0].metrics.accuracy.value == 0
    assert regrade(tmp_path / "other").results[0].metrics.accuracy.value == 0


def test_a_named_prompt_is_in_the_regime_and_a_row_of_its_own(whole, tmp_path):
    small = {**SMALL, "problems": 2, "samples": 1}
    drafted = evaluate(Settings(to=tmp_path / "drafted", prompt="chain_of_draft", **small))
    write_report(drafted)
    assert drafted.regime["free"]["label"] == "arithmetic prompt chain_of_draft"
    asked = drafted.regime["benchmarks"]["arithmetic"]["prompt"]
    assert asked == CHAIN_OF_DRAFT_TEMPLATE
    assert "five words at most" in asked
    with pytest.raises(SettingsMismatch, match="prompt was"):
        evaluate(Settings(to=tmp_path / "drafted", prompt="concise", **small))
    policy = SimpleNamespace(label="m")
    assert default_folder(Settings(prompt="chain_of_draft"), policy).name == "evaluation-m-prompt-chain_of_draft-seed0"
    assert default_folder(Settings(prompt="{problem}"), policy).name == "evaluation-m-seed0"
    means, *_ = overview(read_entries([whole, tmp_path / "drafted"]))
    assert [row[0] for row in means.rows] == ["arithmetic", "arithmetic prompt chain_of_draft"]


def test_an_adapter_is_another_model(whole, tmp_path):
    model, _ = load_pretrained("arithmetic", dtype="float32")
    lora = init_lora(jax.random.key(1), model, rank=2, alpha=4.0)
    lora = jax.tree.map(lambda leaf: leaf + jnp.float32(0.05), lora)
    save_adapter(tmp_path / "adapter", lora, base_model=str(BUILT_IN["arithmetic"]))
    with pytest.raises(SettingsMismatch, match="model was '"):
        evaluate(Settings(to=whole, adapter=tmp_path / "adapter", **SMALL))
    loaded = load_policy(Settings(adapter=tmp_path / "adapter"), make_mesh(devices=jax.devices()[:1]))
    assert loaded.label == "arithmetic with adapter"
    assert loaded.policy.lora is not None
    chex.assert_trees_all_equal(loaded.policy.lora.layers, lora.layers)


@pytest.mark.parametrize("rank", [4, 0], ids=["adapter", "all weights"])
def test_a_checkpoint_of_a_run_is_the_policy_that_was_trained(rank, tmp_path):
    path, _, policies = make_run(tmp_path, rank=rank)
    mesh = make_mesh(devices=jax.devices()[:1])
    newest, earlier = (load_policy(Settings(run=path, step=step), mesh) for step in (None, 2))
    for loaded, step in ((newest, 4), (earlier, 2)):
        chex.assert_trees_all_equal(loaded.policy, policies[step])
        assert (loaded.label, loaded.base, loaded.prompt.student) == (
            f"rank{rank} step {step}",
            "arithmetic",
            "{problem}",
        )
    assert newest.hash != earlier.hash
    assert built_in_model(Settings(run=path)) == "arithmetic"


def test_a_sample_has_a_key_of_its_own_whatever_is_drawn_beside_it():
    places = [("a", 0), ("a", 1), ("b", 0)]
    data = benchmark_keys(0, "gsm8k", places)
    assert len({tuple(row) for row in data.tolist()}) == 3
    alone = benchmark_keys(0, "gsm8k", [("b", 0)])
    np.testing.assert_array_equal(data[2:], alone)
    for seed, name in ((1, "gsm8k"), (0, "math500")):
        assert not np.array_equal(benchmark_keys(seed, name, [("b", 0)]), alone)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"step": 3}, "there is no --run"),
        ({"base": "x"}, "--base is where a --run's model is, and there is no --run"),
        ({"run": Path("x"), "model": "y"}, "give --model or --run"),
        ({"run": Path("x"), "adapter": Path("y")}, "give --adapter or --run"),
        ({"run": Path("x"), "dtype": "float32"}, "leave out --dtype"),
        ({"server": "http://x", "weights_dtype": "bfloat16"}, "--weights_dtype is not for a --server"),
        ({"problems": 1}, "--problems is 1; it must be at least 2"),
        ({"samples": 0}, "--samples is 0; it must be at least 1"),
        ({"top_p": 0.0}, "--top_p is 0.0; it must be over 0"),
        ({"temperature": float("nan")}, "--temperature is nan"),
        ({"files": {"own": Path("x")}, "benchmarks": ("gsm8k",)}, "--file own=... is not among the benchmarks gsm8k"),
        ({"benchmarks": ("gsm8k", "gsm8k")}, "names one twice"),
        ({"answer_column": "a"}, "--answer_column is for a --file NAME=FILE, and there is none"),
        ({"prompt": "concisely"}, "'concisely' is neither a template with {problem} nor one of default, problem, conc"),
    ],
)
def test_contradictions_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Settings(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_new_tokens": 600}, r"take 6\d\d positions, and the model has 512"),
        ({"problems": 513}, "--problems is 513, and arithmetic has 512"),
        ({"prompt": "{problem} {name}"}, r"has the placeholder \{name\}"),
        ({"run": Path("no/such/run")}, "is not a run's folder"),
        ({"benchmarks": ("gsm",)}, "there is no benchmark 'gsm'"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(settings, message, tmp_path):
    with pytest.raises((ValueError, OSError), match=message):
        evaluate(Settings(to=tmp_path / "none", **settings))
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--top_p", "2"], "--top_p is 2.0; it must be over 0 and at most 1"),
        (["--file", "gsm8k"], "--file gsm8k: give NAME=FILE"),
        (["--sample", "2"], "unrecognized arguments: --sample 2"),
        (["--regrade", "x", "--seed", "1"], "--regrade samples nothing"),
    ],
)
def test_mistakes_on_the_command_line_are_one_line_and_exit_code_2(arguments, message, capsys):
    assert message in refused(capsys, "evaluate.py", *arguments)


def _grades(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "grades_arithmetic.jsonl").read_text().splitlines()]
