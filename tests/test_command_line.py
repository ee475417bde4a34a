"""Configuration: presets, overrides, and mistakes that are told in one line."""

from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from egrsd_jax.command_line import parse_config
from egrsd_jax.config import Config, MethodSettings, RewardSettings, RolloutSettings, TrainSettings

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
PAPER = {
    "qwen3_4b_egrsd": (0.3, 0),
    "qwen3_4b_cl_egrsd": (0.3, 3),
    "qwen3_8b_egrsd": (0.3, 0),
    "qwen3_8b_cl_egrsd": (1.0, 5),
}


def parse(*argv: str) -> Config:
    return parse_config(argv, program="train.py", description="", default=CONFIGS / "arithmetic.yaml")


def refused(capsys, *argv: str) -> str:
    with pytest.raises(SystemExit) as stop:
        parse(*argv)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_without_a_configuration_the_default_one_is_read():
    assert parse().model.path == "arithmetic"
    assert parse() == parse("--config", str(CONFIGS / "arithmetic.yaml"))


def test_the_command_line_wins_over_the_file():
    config = parse("--seed=3", "--train.steps", "7", "--method.name", "cl_egrsd", "--method.window=5", "--run.name=x")
    assert (config.seed, config.train.steps, config.method.name, config.method.window) == (3, 7, "cl_egrsd", 5)
    assert config.run.name == "x"


@pytest.mark.parametrize("name", PAPER)
def test_presets_are_the_papers_settings(name):
    config = parse(f"--config={CONFIGS / name}.yaml").resolved()
    assert (config.method.gamma, config.method.window) == PAPER[name]
    assert (config.rollout.temperature, config.rollout.top_p, config.rollout.top_k) == (1.1, 0.95, 20)
    assert (config.rollout.max_new_tokens, config.rollout.samples_per_problem) == (1024, 1)
    assert (config.lora.rank, config.lora.alpha) == (64, 128)
    train = config.train
    assert (train.batch_size, train.steps, train.checkpoint_every) == (32, 100, 25)
    assert (train.learning_rate, train.max_grad_norm, train.weight_decay) == (5e-6, 0.1, 0)
    assert (train.adam_b1, train.adam_b2, train.adam_eps) == (0.9, 0.999, 1e-8)
    assert config.reward == RewardSettings(0.5, "running", 10, 0.5, 1e-6, 0)
    assert config.data.max_prompt_tokens + config.rollout.max_new_tokens == 20_000


def test_a_resolved_configuration_reads_back_as_itself(tmp_path):
    config = parse("--method.name=cl_egrsd", "--method.gamma=null").resolved()
    assert (config.method.gamma, config.method.window) == (0.3, 3)
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(asdict(config)))
    assert parse(f"--config={file}") == config


def test_every_field_is_explained(capsys):
    with pytest.raises(SystemExit):
        parse("--help")
    text = " ".join(capsys.readouterr().out.split())
    for section, fields in asdict(Config()).items():
        for field in fields if isinstance(fields, dict) else [section]:
            name = f"--{section}.{field} " if isinstance(fields, dict) else f"--{section} "
            explanation = text.rpartition(name)[2][:300]
            assert len(explanation.split()) > 4, name


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--method.gamma=abc", "method.gamma: 'abc' is not a number or null"),
        ("--train.steps=1.5", "train.steps: '1.5' is not a whole number"),
        ("--method.name=egrs", "method.name: 'egrs' is not one of egrsd, cl_egrsd"),
        ("--method.gama=1", "there is no option --method.gama; the nearest is --method.gamma"),
        ("--gamma=1", "there is no option --gamma; the nearest is --method.gamma"),
        ("--zzz=1", "there is no option --zzz; --help lists them all"),
        ("--config=no.yaml", "--config no.yaml: there is no such file"),
        ("--method.gamma=2", "method.gamma is 2.0; it must be between 0 and 1"),
        ("--method.window=3", "egrsd looks at no later token; use cl_egrsd"),
        ("--rollout.top_p=1.5", "rollout.top_p is 1.5; it must be over 0 and at most 1"),
        ("--rollout.temperature=-1", "rollout.temperature is -1.0; it must be at least 0"),
        ("--evaluation.max_new_tokens=0", "evaluation.max_new_tokens is 0; it must be at least 1"),
        ("--evaluation.problems=0", "evaluation.problems is 0; it must be at least 2"),
        ("--train.warmup_steps=-1", "train.warmup_steps is -1; it must be at least 0"),
        ("--train.learning_rate=.inf", "train.learning_rate is inf; it must be over 0 and finite"),
        ("--train.adam_b1=2", "train.adam_b1 is 2.0; it must be at least 0 and under 1"),
        ("--lora.alpha=.nan", "lora.alpha is nan; it must be over 0 and finite"),
        ("--reward.length_bonus=-1", "reward.length_bonus is -1.0; it must be at least 0"),
        ("--data.train_problems=0", "data.train_problems is 0; it must be at least 1"),
        ("--train.micro_batch_size=0", "train.micro_batch_size is 0; it must be at least 1"),
    ],
)
def test_mistakes_say_what_would_be_right(argument, message, capsys):
    assert message in refused(capsys, argument)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("method:\n  gama: 1\n", "there is no field method.gama; the nearest is method.gamma"),
        ("method: [", "is not valid YAML"),
        ("- 1\n", "is a YAML mapping"),
        ("train:\n  steps: many\n", "train.steps: 'many' is not a whole number"),
    ],
)
def test_mistakes_in_a_file_are_told_too(content, message, capsys, tmp_path):
    file = tmp_path / "bad.yaml"
    file.write_text(content)
    assert message in refused(capsys, f"--config={file}")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": MethodSettings("direction", gamma=0.5)}, "direction has no gate"),
        ({"method": MethodSettings("cl_egrsd", window=0)}, "use egrsd"),
        ({"reward": RewardSettings(advantage="group")}, "samples_per_problem must be at least 2"),
        ({"rollout": RolloutSettings(samples_per_problem=5)}, "it must divide train.batch_size, 32"),
        ({"train": TrainSettings(steps=0)}, "train.steps is 0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_contradictions_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Config(**settings)
