"""Whole runs through `launch/train.py`, as a user starts them: killed and resumed, on real input, and with mistakes."""

import json
import re
import signal
import time
from pathlib import Path

import chex
import pytest
from orbax.checkpoint import v1 as ocp

from tests.commands import ROOT, finish, refused, start

SMALL = [
    "--train.steps=8",
    "--train.batch_size=8",
    "--train.checkpoint_every=1",
    "--train.sample_every=2",
    "--rollout.max_new_tokens=24",
    "--rollout.samples_per_problem=4",
    "--evaluation.problems=8",
    "--evaluation.samples=1",
    "--evaluation.max_new_tokens=24",
]

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("compiled_programs")]


def metrics(folder: Path) -> list[dict]:
    """The rows of metrics.jsonl without seconds and compiled programs, which no two runs share."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [
        {name: value for name, value in row.items() if not name.startswith(("seconds", "programs"))} for row in rows
    ]


def final_state(folder: Path):
    with ocp.training.Checkpointer(folder / "checkpoints") as checkpoints:
        return checkpoints.load(8)


@pytest.mark.parametrize("adapter", ["--lora.rank=4", "--lora.rank=0"], ids=["lora", "full"])
def test_a_killed_run_ends_where_an_uninterrupted_one_ends(adapter, tmp_path, capsys):
    def start_run(name: str):
        return start("train.py", f"--run.dir={tmp_path}", *SMALL, adapter, f"--run.name={name}")

    finish(start_run("whole"))

    killed = start_run("killed")
    deadline = time.monotonic() + 300
    while not (tmp_path / "killed/checkpoints/2").exists():
        assert killed.poll() is None, killed.communicate()[0]
        assert time.monotonic() < deadline, "no checkpoint of step 2 after 300 s"
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    [output] = finish(start_run("killed"))

    assert re.search(r"resuming from the checkpoint of step [2-7]", output)
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "whole")
    assert [row["step"] for row in metrics(tmp_path / "whole")] == list(range(8))
    chex.assert_trees_all_equal(final_state(tmp_path / "killed"), final_state(tmp_path / "whole"))
    samples = [(tmp_path / name / "samples.jsonl").read_text() for name in ("killed", "whole")]
    assert samples[0] == samples[1]

    for left in ("config.yaml", "environment.json", "evaluation_step0.json", "evaluation_step8.json", "frontier.png"):
        assert (tmp_path / "whole" / left).stat().st_size > 100
    assert list((tmp_path / "whole/tensorboard").iterdir())

    evaluation = (tmp_path / "whole/evaluation_step0.json").read_bytes()
    assert (tmp_path / "killed/evaluation_step0.json").read_bytes() == evaluation

    other = [f"--run.dir={tmp_path}", *SMALL, adapter, "--run.name=whole", "--train.learning_rate=0.5"]
    assert "train.learning_rate was 0.0003 and is 0.5" in refused(capsys, "train.py", *other)


def test_qwen3_tokenizer_templates_and_gsm8k_run_to_the_end(tmp_path, shared_data):
    """Compiled as a user's run is."""
    torch = pytest.importorskip("torch", reason="needs torch==2.13.0: transformers itself writes the checkpoint")
    from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    shape = Qwen3Config(
        vocab_size=151_936,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        tie_word_embeddings=True,
    )
    Qwen3ForCausalLM(shape).save_pretrained(tmp_path / "model")
    AutoTokenizer.from_pretrained(shared_data / "qwen3_tokenizer").save_pretrained(tmp_path / "model")
    [output] = finish(
        start(
            "train.py",
            f"--run.dir={tmp_path}",
            f"--config={ROOT / 'configs/qwen3_4b_egrsd.yaml'}",
            f"--model.path={tmp_path / 'model'}",
            f"--data.path={shared_data / 'gsm8k/train.jsonl'}",
            *("--data.problem=question", "--data.solution=answer", "--data.answer=answer"),
            *("--prompt.student_thinking=true", "--rollout.max_new_tokens=16", "--data.max_prompt_tokens=512"),
            *("--train.steps=2", "--train.batch_size=2", "--train.micro_batch_size=1", "--run.name=real"),
            flags="",
        )
    )
    assert "100% of the completions reached rollout.max_new_tokens 16" in output
    rows = metrics(tmp_path / "real")
    assert [row["reward_mean"] for row in rows] == [0, 0]
    assert all(row["advantage_negative"] == 1 and row["entropy_mean"] > 5 for row in rows)
    assert all(row["sampler_logp_gap_max"] < 0.05 for row in rows)  # bfloat16, logits near 0
    assert (tmp_path / "real/checkpoints/2").is_dir()


def test_mistakes_are_one_line_with_exit_code_2_and_nothing_is_written(tmp_path, capsys):
    broken = tmp_path / "broken.jsonl"
    good = json.dumps({"problem": "1 + 1", "solution": r"1 + 1 = 2 ; \boxed{2}", "answer": "2"})
    broken.write_text("\n".join([good] * 16 + ["{not json"] + [good] * 3))
    broken_data = [f"--data.path={broken}"]
    unknown = tmp_path / "unknown.yaml"
    unknown.write_text("method:\n  gama: 0.5\n")
    for arguments, expected in (
        (["--method.gamma=abc"], "method.gamma: 'abc' is not a number"),
        (["--method.gama=1"], "the nearest is --method.gamma"),
        (["--method.gamma=1.5"], "method.gamma is 1.5; it must be between 0 and 1"),
        ([f"--config={unknown}"], "there is no field method.gama; the nearest is method.gamma"),
        (["--model.path=no/such/folder"], "there is no model folder 'no/such/folder'"),
        (broken_data, "line 17"),
    ):
        assert expected in refused(capsys, "train.py", f"--run.dir={tmp_path / 'runs'}", *arguments)
    process = start("train.py", f"--run.dir={tmp_path / 'runs'}", *broken_data)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 2, output
    assert output.count("\n") == 1, output
    assert "line 17" in output
    assert not (tmp_path / "runs").exists()
