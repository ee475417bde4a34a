"""The whole command on the built-in model behind another model's chat template, and what it refuses."""

import json
import shutil

import numpy as np
import pytest

from egrsd_jax.cli.main import main
from egrsd_jax.model.hf.hub import resolve_folder
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
