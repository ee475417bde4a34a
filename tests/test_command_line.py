"""Configuration: presets, overrides, and mistakes that are named in one line."""

import json
import math
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from egrsd_jax.command_line import field_types, load_config, parse_config, with_new_names
from egrsd_jax.config import (
    Config,
    LoraSettings,
    ModelSettings,
    RewardSettings,
    RolloutSettings,
    RunSettings,
    TrainSettings,
    binding,
)
from egrsd_jax.data.tasks.registry import BUILT_IN_TASKS
from egrsd_jax.objective.methods import METHODS, method_settings
from egrsd_jax.probes.settings import ProbeSettings
from egrsd_jax.ranges import BELOW_ONE, SHARE, UNIT, Range, at_least, over
from egrsd_jax.runs.files import differences

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


def test_the_presets_of_words_are_one_chain():
    warmup, egrsd = (parse(f"--config={CONFIGS / name}.yaml") for name in ("words_warmup", "words_egrsd"))
    assert (warmup.method.name, egrsd.method.name) == ("sft", "egrsd")
    assert warmup.data.path == f"{egrsd.data.path}-rechecked"
    assert (warmup.prompt, warmup.lora, warmup.evaluation) == (egrsd.prompt, egrsd.lora, egrsd.evaluation)
    assert warmup.rollout.max_new_tokens == egrsd.rollout.max_new_tokens == warmup.evaluation.max_new_tokens
    assert warmup.rollout.max_new_tokens >= BUILT_IN_TASKS[warmup.data.path].max_new_tokens
    assert not warmup.prompt.teacher_thinking  # the model's template has no such mode


@pytest.mark.parametrize("name", PAPER)
def test_presets_are_the_papers_settings(name):
    config = parse(f"--config={CONFIGS / name}.yaml")
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
    config = parse("--method.name=cl_egrsd", "--method.gamma=null")
    assert (config.method.gamma, config.method.window) == (0.3, 3)
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(asdict(config)))
    assert parse(f"--config={file}") == config


def test_every_field_is_explained(capsys):
    with pytest.raises(SystemExit):
        parse("--help")
    text = " ".join(capsys.readouterr().out.split())
    for field in field_types():
        explanation = text.rpartition(f"--{field} ")[2][:300]
        assert len(explanation.split()) > 4, field


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
        ("--method.window=3", "method.window is 3, and egrsd has it fixed at 0; cl_egrsd can set it"),
        ("--method.beta=0.5", "method.beta is 0.5, and egrsd has no use for it; opsd, pw_opsd"),
        ("--rollout.max_rows=0", "rollout.max_rows is 0; it must be at least 1"),
        ("--rollout.ahead=-1", "rollout.ahead is -1; it must be at least 0 (0 is on-policy)"),
        ("--method.importance=all", "method.importance: 'all' is not one of sequence, token, none"),
        ("--method.importance_cap=0.5", "method.importance_cap is 0.5; it must be at least 1"),
        (
            "--rollout.server=localhost:8000",
            "rollout.server has 'localhost:8000'; it must be an address such as http://",
        ),
        ("--rollout.server=http://a,http://a", "rollout.server http://a,http://a names a server twice"),
        ("--rollout.served=qwen", "rollout.served is for a rollout.server, and there is none"),
        ("--rollout.in_flight=0", "rollout.in_flight is 0; it must be at least 1"),
        ("--rollout.server_timeout=0", "rollout.server_timeout is 0.0; it must be over 0"),
        ("--rollout.gap_stops=0.01", "rollout.gap_stops is 0.01; it must be at least rollout.gap_warns, 0.02"),
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
        ("--run=folder", "--run is a section; give a field of it, such as --run.dir"),
        ("--train=3", "--train is a section; give a field of it, such as --train."),
        ("--print_config", "there is no option --print_config"),
        ("--model.fsdp=-5", "model.fsdp is -5; it must be at least 1, or -1 for what the other two leave"),
        ("--model.tensor=0", "model.tensor is 0; it must be at least 1"),
        ("--train.micro_batch_size=0", "train.micro_batch_size is 0; it must be at least 1"),
    ],
)
def test_mistakes_say_how_to_fix_them(argument, message, capsys):
    assert message in refused(capsys, argument)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("method:\n  gama: 1\n", "there is no field method.gama; the nearest is method.gamma"),
        (
            "seed: 1\nmethod: [",
            "bad.yaml is not valid YAML: line 2: expected the node content, but found '<stream end>'\n",
        ),
        ("train: 3\n", "bad.yaml: train is 3; it must be a mapping of fields, such as train: {"),
        ("method:\n", "bad.yaml: method is empty; it must be a mapping of fields, such as method: {name: egrsd}"),
        ("run: []\n", "bad.yaml: run is []; it must be a mapping of fields, such as run: {dir: "),
        ("- 1\n", "is a YAML mapping"),
        ("train:\n  steps: many\n", "bad.yaml: train.steps: 'many' is not a whole number"),
    ],
)
def test_mistakes_in_a_file_are_named_too(content, message, capsys, tmp_path):
    file = tmp_path / "bad.yaml"
    file.write_text(content)
    error = refused(capsys, f"--config={file}")
    assert message in error
    assert "Parser key" not in error


def test_a_file_that_is_no_text_and_a_folder_are_named(capsys, tmp_path):
    (tmp_path / "bad.yaml").write_bytes(b"\xff\xfe\x00")
    assert "bad.yaml is not UTF-8 text" in refused(capsys, f"--config={tmp_path / 'bad.yaml'}")
    assert f"{tmp_path} is a folder; give a file or the name of a preset" in refused(capsys, "--config", str(tmp_path))


def test_of_two_files_the_one_with_the_mistake_is_named(capsys, tmp_path):
    for name, steps in (("first", "3"), ("second", "many")):
        (tmp_path / f"{name}.yaml").write_text(f"train: {{steps: {steps}}}\n")
    error = refused(capsys, *(f"--config={tmp_path / name}.yaml" for name in ("first", "second")))
    assert "second.yaml: train.steps: 'many' is not a whole number" in error
    assert "first.yaml" not in refused(capsys, f"--config={tmp_path / 'first.yaml'}", "--train.steps=x")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("train: 3\n", "train is 3; it must be a mapping of fields"),
        ("method:\n", "method is empty; it must be a mapping of fields"),
        ("train: {step: 3}\n", "there is no field train.step; the nearest is train.steps"),
        ("train: {steps: many}\n", "train.steps: 'many' is not a whole number"),
        ("3\n", "it holds no fields"),
    ],
)
def test_mistakes_in_a_runs_configuration_are_one_line_as_well(content, message, tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(content)
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z") as mistake:
        load_config(file)
    assert str(mistake.value).startswith(f"{file} is not a run's configuration: {message}")


def test_help_offers_what_is_accepted(capsys):
    with pytest.raises(SystemExit):
        parse("--help")
    text = capsys.readouterr().out
    assert "--print_config" not in text
    assert "--run CONFIG" not in text


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Config(reward=RewardSettings(advantage="group")), "samples_per_problem must be at least 2"),
        (lambda: Config(rollout=RolloutSettings(samples_per_problem=5)), "it must divide train.batch_size, 32"),
        (lambda: Config(rollout=RolloutSettings(samples_per_problem=0)), "it must divide train.batch_size, 32"),
        (
            lambda: Config(method=method_settings("dapo"), rollout=RolloutSettings(samples_per_problem=1)),
            "samples_per_problem must be at least 2",
        ),
        (
            lambda: Config(method=method_settings("gates"), rollout=RolloutSettings(samples_per_problem=4)),
            "gates lets the teacher write half of a problem's 4 completions, and 4 of these are to agree",
        ),
        (
            lambda: Config(method=method_settings("egrsd", pace_right=1.0)),
            "pass rate of a problem's completions; rollout.samples_per_problem must be at least 2",
        ),
        (lambda: TrainSettings(steps=0), "train.steps is 0; it must be at least 1"),
        (lambda: LoraSettings(rank=0, dropout=0.1), "lora.dropout needs an adapter"),
        (lambda: LoraSettings(rank=-1), "lora.rank is -1; it must be at least 0"),
        (lambda: ProbeSettings(style=("a", " ")), "probes.style has an empty phrase"),
        (lambda: ProbeSettings(length_fall=1.5), "probes.length_fall is 1.5; it must be between 0 and 1"),
        (lambda: Config(seed=-1), "seed is -1; it must be at least 0"),
    ],
)
def test_contradictions_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_tilde_that_no_shell_saw_is_the_home(monkeypatch):
    """`--model.path=~/models/a`, and YAML; a folder that is called ~ would be made in the current one."""
    monkeypatch.setenv("HOME", "/home/me")
    config = Config(
        run=RunSettings(dir="~/runs"),
        model=ModelSettings(path="~/models/a"),
        lora=LoraSettings(path="~"),
        rollout=RolloutSettings(stored="~/stored"),
    )
    assert (config.run.dir, config.model.path, config.lora.path) == ("/home/me/runs", "/home/me/models/a", "/home/me")
    assert config.rollout.stored == "/home/me/stored"
    served = Config(rollout=RolloutSettings(server="http://there:80", shared="~of_nobody/shared"))
    assert served.rollout.shared == "~of_nobody/shared"


@pytest.mark.parametrize("name", METHODS)
def test_a_configuration_has_no_open_field(name):
    """What follows from other fields is filled in when it is made, whoever makes it."""
    config = Config(method=method_settings(name), train=TrainSettings(batch_size=16, steps=7, micro_batch_size=64))
    assert config.rollout.samples_per_problem == METHODS[name].samples_per_problem
    assert config.reward.advantage == METHODS[name].advantage
    assert (config.rollout.max_rows, config.train.micro_batch_size) == (16, 16)
    assert None not in asdict(config.method).values()
    assert config.rollout.temperature == METHODS[name].sampling.temperature
    assert (config.rollout.top_p, config.rollout.top_k) == METHODS[name].sampling[1:]
    assert parse(f"--method.name={name}").method == config.method


OLD_FIELDS_OF_METHODS = (
    *("gamma", "window", "epsilon", "epsilon_high", "floor", "scope", "denominator", "gate", "teacher"),
    *("teacher_decay", "teacher_every", "privilege", "kl", "mixing", "mixing_steps", "beta", "entry_clip", "top_k"),
    *("entropy_threshold", "mixture", "exploration_steps", "kept_share", "consensus", "policy_weight", "delta_clip"),
)
EVERY = {"pace_right": 0.0, "pace_wrong": 0.0, "reduction": "token", "score_temperature": 1.0}
TEACHER = {"teacher": "frozen", "teacher_decay": 0.99, "teacher_every": 50, "privilege": "reference"}
GATED = {"epsilon": 0.2, "floor": 0.1, "scope": "batch", "denominator": "raw", "gate": "entropy", **TEACHER}
OLD_METHODS = {
    "egrsd": {"gamma": 0.3, "window": 0, **GATED},
    "direction": {"gamma": 0.0, "window": 0, **GATED},
    "opsd": {"beta": 0.0, "entry_clip": 0.05, "score_temperature": 1.1, **TEACHER},
    "rlsd": {"epsilon": 0.2, "mixing": 1.0, "mixing_steps": 100, **TEACHER},
    "sft": {},
}


# That version's defaults of a method, where they were others than today's.
OLD_DEFAULTS = {"rlsd": {"mixing": 1.0, "mixing_steps": 100, "teacher": "frozen", "privilege": "reference"}}
OLD_ROLLOUT = RolloutSettings(temperature=1.1, top_p=0.95, top_k=20, samples_per_problem=1)


def today_of(name: str) -> Config:
    """Today's configuration of a run that an earlier version made with the method's name alone."""
    method = method_settings(name, **OLD_DEFAULTS.get(name, {}))
    return Config(method=method, rollout=OLD_ROLLOUT, reward=RewardSettings(advantage="running"))


def old_settings(name: str) -> dict:
    """What a run of the version with one flat section for all methods left: nulls, and its own name for max_rows."""
    settings = asdict(today_of(name))
    settings["method"] = dict.fromkeys(OLD_FIELDS_OF_METHODS) | EVERY | OLD_METHODS[name] | {"name": name}
    settings["rollout"]["slots"] = settings["rollout"].pop("max_rows")
    return settings


@pytest.mark.parametrize("name", OLD_METHODS)
def test_a_run_of_an_earlier_version_can_be_read_and_resumed(name, tmp_path):
    file, today = tmp_path / "config.yaml", today_of(name)
    file.write_text(yaml.safe_dump(old_settings(name)))
    assert load_config(file) == today
    assert parse(f"--config={file}") == today
    assert differences(binding(with_new_names(old_settings(name))), binding(asdict(today))) == []


def test_turns_before_a_problem_bind_a_checkpoint_through_json(capsys):
    config = parse("--prompt.system", "Be brief.", "--prompt.examples", '[["1 + 1", "2"], ["2", "3"]]')
    assert config.prompt.examples == (("1 + 1", "2"), ("2", "3"))
    bound = json.loads(json.dumps(binding(asdict(config))))
    assert differences(bound, binding(asdict(config))) == []
    without = binding(asdict(parse()))
    assert differences(without, bound) == [
        "prompt.examples was None and is [['1 + 1', '2'], ['2', '3']]",
        "prompt.system was None and is 'Be brief.'",
    ]
    assert "is not a list of pairs of texts" in refused(capsys, "--prompt.examples", '[["1 + 1"]]')
    assert "prompt.examples has an empty text" in refused(capsys, "--prompt.examples", '[["1 + 1", " "]]')


def test_a_checkpoint_of_another_method_differs_by_name():
    today = asdict(Config(method=method_settings("egrsd", gamma=1.0)))
    lines = differences(binding(with_new_names(old_settings("egrsd"))), binding(today))
    assert lines == ["method.gamma was 0.3 and is 1.0"]


def test_old_names_are_read_everywhere_and_once(capsys, tmp_path):
    assert parse("--rollout.slots=8").rollout.max_rows == 8
    file = tmp_path / "old.yaml"
    file.write_text("rollout: {slots: 8, max_rows: 9}\n")
    assert "rollout.max_rows is given twice" in refused(capsys, f"--config={file}")


def test_reading_a_configuration_needs_no_jax():
    code = (
        "import sys; from pathlib import Path; from egrsd_jax.command_line import parse_config\n"
        f"parse_config([], program='', description='', default=Path({str(CONFIGS / 'arithmetic.yaml')!r}))\n"
        "assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=CONFIGS.parent, check=True, timeout=60)


@pytest.mark.parametrize(
    ("allowed", "inside", "outside", "words"),
    [
        (at_least(0), [0, 1e9], [-1, math.inf, math.nan], "at least 0"),
        (over(0), [1e-9], [0, -1, math.inf], "over 0"),
        (UNIT, [0, 0.5, 1], [-0.1, 1.1, math.nan], "between 0 and 1"),
        (BELOW_ONE, [0, 0.99], [1, -0.1], "at least 0 and under 1"),
        (SHARE.noted("1 is no limit"), [0.1, 1], [0, 1.1], "over 0 and at most 1 (1 is no limit)"),
        (Range(), [-1e9, 0], [math.inf], "a finite number"),
    ],
)
def test_ranges_hold_and_say_what_they_hold(allowed, inside, outside, words):
    assert all(map(allowed.holds, inside))
    assert not any(map(allowed.holds, outside))
    assert allowed.words() == words
