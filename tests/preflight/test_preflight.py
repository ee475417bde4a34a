"""The whole command on the built-in model behind another model's chat template, and what it refuses."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egrsd_jax.analysis.completions import Written
from egrsd_jax.analysis.models import load_models
from egrsd_jax.cli.main import main
from egrsd_jax.config import Config, ModelSettings, RolloutSettings, TrainSettings
from egrsd_jax.data.problems import Problem
from egrsd_jax.model.decoder import forward, output_head
from egrsd_jax.model.hf.hub import resolve_folder
from egrsd_jax.model.sharding import make_mesh
from egrsd_jax.objective.methods import method_settings
from egrsd_jax.preflight.entry_clip import entry_clip
from tests.commands import refused
from tests.model_folders import change
from tests.preflight.test_templates import OTHER_MODELS

SMALL = ("--problems=4", "--samples=2", "--data.train_problems=128", "--rollout.max_new_tokens=24")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "mismatched"
    shutil.copytree(resolve_folder("arithmetic"), folder)
    change(folder / "tokenizer_config.json", chat_template=OTHER_MODELS)
    return folder


def test_a_mismatched_template_stops_the_run(folder, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["preflight", f"--model.path={folder}", f"--run.dir={tmp_path}", *SMALL])
    assert stop.value.code == 1
    shown = capsys.readouterr().out
    table = json.loads((tmp_path / "preflight-mismatched-egrsd-seed0.json").read_text())
    judged = {line["name"]: line for line in table["lines"]}
    assert table["verdict"] == "stop"
    assert judged["end_of_turn"]["judgement"] == "stop"
    assert judged["end_of_turn"]["reason"].split(":")[0] in " ".join(shown.split())
    assert shown.splitlines()[-2].startswith("stop: ")

    plain, privileged = (np.array(table[name]["correct"]) for name in ("without_privilege", "with_privilege"))
    assert plain.shape == (4, 2)
    assert judged["gap"]["numbers"]["gap"] == pytest.approx(privileged.mean() - plain.mean())
    assert judged["cut_off"]["numbers"]["share"] == table["without_privilege"]["cut_off"]
    noise = judged["noise"]["numbers"]
    assert 0 <= noise["twice"] < 1e-5 < noise["signal"]  # scored twice it is the same to rounding, and not privileged
    assert noise["unprivileged"] < 1e-5  # the teacher's weights are the student's, and without privilege its prompt too
    assert judged["sampler_gap"]["numbers"]["mean"] < 1e-4
    assert sum(judged["regimes"]["numbers"].values()) == pytest.approx(1, abs=1e-5)
    assert not any(path.name != "preflight-mismatched-egrsd-seed0.json" for path in tmp_path.iterdir())


def test_the_entries_at_a_clip_are_those_of_the_first_step():
    """Counted a second time from dense distributions."""
    config = Config(
        model=ModelSettings(dtype="float32", param_dtype="float32"),
        method=method_settings("opsd", score_temperature=1.1, entry_clip=0.02),
        rollout=RolloutSettings(max_new_tokens=24),
        train=TrainSettings(batch_size=4, micro_batch_size=3),
    )
    models = load_models(config, make_mesh(devices=jax.devices()[:1]), run=None, step=0)
    draw = np.random.default_rng(0)

    def tokens(length: int) -> list[int]:
        return draw.integers(4, models.config.vocab_size, length).tolist()

    texts = [(tokens(5), tokens(9), tokens(length)) for length in (7, 3, 12, 1)]
    written = [
        Written(Problem("0", "", "", ""), *text, "", None, correct=False, stopped=True, reward=0, advantage=0, step=0)
        for text in texts
    ]
    entries = masses = bound = 0.0
    for student, teacher, text in texts:
        q, p = (
            dense(models, policy, prompt, text)
            for policy, prompt in ((models.student, student), (models.teacher, teacher))
        )
        clipped = p * np.log(p / q) > 0.02
        entries, masses, bound = entries + clipped.sum(), masses + p[clipped].sum(), bound + clipped.any(1).sum()
    count = sum(len(text) for *_, text in texts)
    found = entry_clip(config.method, models, written, rows=3)
    assert found == pytest.approx((entries / count / models.config.vocab_size, masses / count, bound / count), rel=1e-5)
    assert found is not None
    assert 0 < found.mass < 1
    assert entry_clip(method_settings("opsd", entry_clip=0.0), models, written, rows=3) is None
    assert entry_clip(method_settings("egrsd"), models, written, rows=3) is None


def dense(models, policy, prompt: list[int], text: list[int]) -> np.ndarray:
    """The distributions that a completion's tokens are from, [T, V]."""
    hidden = forward(policy.params, models.config, jnp.array([[*prompt, *text]], jnp.int32), lora=policy.lora)
    logits = (hidden @ output_head(policy.params, models.config))[0, len(prompt) - 1 : -1] / 1.1
    return np.asarray(jax.nn.softmax(logits), float)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--problems=1",), "--problems is 1"),
        (("--privileged_cap=0",), "--privileged_cap is 0"),
        (("--samples=1", "--method.name=grpo_group"), "--samples is 1"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(capsys, options, message):
    assert message in refused(capsys, "preflight.py", *options)
