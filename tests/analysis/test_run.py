"""Analyses of a run that training really left, of new completions, and what is refused."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from egrsd_jax.analysis.completions import sampled_step
from egrsd_jax.analysis.mechanism import Study
from egrsd_jax.analysis.run import Analysis, analyse
from egrsd_jax.analysis.settings import Settings
from egrsd_jax.analysis.write import is_papers, write_analysis
from egrsd_jax.cli.analyze import main
from egrsd_jax.command_line import load_config, parse_config
from egrsd_jax.config import Config, DataSettings, ModelSettings
from egrsd_jax.model.hf.hub import resolve_folder
from egrsd_jax.report.published import MECHANISM_MODEL as MODEL
from egrsd_jax.report.published import PAPERS_DATA as DATA
from egrsd_jax.rollout import engine
from egrsd_jax.rollout.requests import Completion
from egrsd_jax.runs.files import read_rows
from egrsd_jax.viewer.scored import read_scored
from tests.analysis.restated import agrees, restated
from tests.commands import ROOT, finish, refused, start

PLOTS = ("deciles", "regimes", "plane", "positions", "trace", "window", "peaks", "gradient_norm", "dynamics")

pytestmark = pytest.mark.slow


def configured(*options: str) -> Config:
    return parse_config(options, program="", description="", default=ROOT / "configs/arithmetic.yaml")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """Two steps of CL-EGRSD on one device, each recorded, and the checkpoint after the first."""
    folder = tmp_path_factory.mktemp("runs")
    size = (
        "--data.train_problems=64",
        "--train.steps=2",
        "--train.batch_size=8",
        "--train.micro_batch_size=8",
        "--rollout.max_new_tokens=64",
    )
    kept = ("--train.sample_every=1", "--train.checkpoint_every=1", f"--run.dir={folder}", "--run.name=small")
    evaluated = ("--evaluation.problems=2", "--evaluation.samples=1", "--evaluation.every=0")
    shared = ("--evaluation.max_new_tokens=64",)  # one sampler is compiled for both
    finish(start("train.py", "--method.name=cl_egrsd", *size, *kept, *evaluated, *shared))
    return folder / "small"


@pytest.fixture(scope="module")
def analysis(run) -> Analysis:
    return analyse(Settings(run=run), load_config(run / "config.yaml"))


def test_the_newest_step_whose_weights_are_there_is_looked_at(run, analysis):
    assert sampled_step(run, None) == (1, True)
    assert sampled_step(run, 0) == (0, True)
    assert (analysis.label, analysis.step) == ("small step 1", 1)


def test_weights_on_disk_give_the_logged_scores(analysis):
    assert analysis.logged_gap is not None
    assert max(analysis.logged_gap.values()) < 1e-5  # the log has five decimals


def test_weights_and_gates_are_those_of_the_update(run, analysis):
    rows = [row for row in read_rows(run / "samples.jsonl") if row["step"] == 1]
    for row, found in zip(rows, analysis.scored, strict=True):
        assert (found.problem, found.tokens, found.advantage) == (row["problem"], row["tokens"], row["advantage"])
        np.testing.assert_allclose(found.weight, row["weight"], atol=2.5e-5)  # scores are rounded to 1e-5
        np.testing.assert_allclose(found.gate_lookahead, row["gate"], atol=2e-5)
        assert all(after >= before for before, after in zip(found.gate, found.gate_lookahead, strict=True))


def test_the_means_are_those_that_training_logged(run, analysis):
    logged, means = read_rows(run / "metrics.jsonl")[1], analysis.mechanism.means
    assert means.regimes["restored_weight"] == pytest.approx(logged["restored_weight"], abs=1e-5)
    profiles = read_rows(run / "profiles.jsonl")[1]
    np.testing.assert_allclose(means.positions.entropy_mean, profiles["positions"]["entropy_mean"], atol=1e-5)
    np.testing.assert_allclose(means.positions.weight_mean, profiles["positions"]["weight_mean"], atol=3e-5)


def test_a_saved_run_agrees_with_numpy(run):
    """What the analysis makes of a run's records, against the definitions restated over the same records."""
    study, names = Study(gamma=0.3, window=3, looks_ahead=True), ("student_logp", "teacher_logp", "teacher_entropy")
    found = analyse(Settings(run=run, step=1, logged_only=True), load_config(run / "config.yaml"))
    rows = [row for row in read_rows(run / "samples.jsonl") if row["step"] == 1]
    scores = [[row[name] for row in rows] for name in (*names, "advantage")]
    agrees(found.mechanism, restated(*scores, study, vocabulary=29))


def test_alternatives_and_entropies_belong_together(analysis):
    for each in analysis.scored:
        assert "".join(each.token_texts).replace("<|im_end|>", "").strip() == each.text.strip()
        assert each.student_top is not None
        assert each.student_entropy is not None
        for text, logp, top in zip(each.token_texts, each.student_logp, each.student_top, strict=True):
            assert top[0][1] >= logp - 2e-5
            assert [chance for _, chance in top] == sorted((chance for _, chance in top), reverse=True)
            for other, chance in top:
                assert other.strip() != text.strip() or abs(chance - logp) < 2e-5


def test_one_folder_holds_numbers_and_pictures(run, tmp_path, capsys):
    folder = write_analysis(Settings(run=run, logged_only=True, to=tmp_path / "out"), load_config(run / "config.yaml"))
    for name in PLOTS:
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "</svg>" in (folder / f"{name}.svg").read_text()[-20:]
    found = json.loads((folder / "analysis.json").read_text())
    assert sum(row["share"] for row in found["regimes"]) == pytest.approx(1, abs=1e-6)
    assert found["gate"] == {**found["gate"], "gamma": 0.3, "window": 3, "looks_ahead": True}
    with (folder / "deciles.csv").open() as stream:
        deciles = list(csv.DictReader(stream))
    assert [float(row["delta_abs_mean"]) for row in deciles] == [row["delta_abs_mean"] for row in found["deciles"]]
    with (folder / "dynamics.csv").open() as stream:
        dynamics = list(csv.DictReader(stream))
    assert [row["step"] for row in dynamics] == ["0", "1", "2"]  # after the last step there is an evaluation
    assert [bool(row["held_out_accuracy"]) for row in dynamics] == [True, False, True]
    scored = read_scored(folder / "scored.jsonl")
    assert len(scored) == 8
    assert scored[0].teacher_top is None
    assert scored[0].student_entropy is None
    page = (folder / "probes.md").read_text()
    assert "hesitation_rise 2" in page
    assert "completions without an end earn nothing" in page
    assert found["placebos"] == []
    assert found["viability"] is None
    shown = capsys.readouterr().out
    assert "pivot" in shown
    assert "paper" not in shown


def test_probes_stand_beside_the_untrained_models(analysis):
    found = analysis.probing
    assert found.untrained is not None
    assert found.untrained["length"]["all"].count == 8
    assert {each.name for each in found.placebos} == {"wrong", "other", "reference_only", "none"}
    assert all(each.completions == 8 and each.true_delta > 0 for each in found.placebos)
    viable = found.viability
    right = [each for each in analysis.scored if each.correct]
    assert (viable is None) == (not right)
    if viable is not None:
        assert len(viable.reached) == len(viable.branches) == 96
        assert all(0 <= branch.completion < len(right) for branch in viable.branches)


def test_without_the_reference_an_untrained_student_is_its_own_teacher(run):
    first = analyse(Settings(run=run, step=0), load_config(run / "config.yaml")).probing
    [none] = [each for each in first.placebos if each.name == "none"]
    assert none.ratio < 1e-3
    assert abs(none.beyond) < 1e-3


class Parrot:
    """An engine that has one completion for every request, and ends them in another order than it was asked."""

    def __init__(self, *_, **limits):
        assert limits["max_prompt_tokens"] > 0
        assert limits["max_new_tokens"] == 96

    def update_params(self, params, lora=None) -> int:
        assert params
        assert lora is None
        return 1

    def generate(self, requests, *, on_tokens=None):
        assert len({request.key.tobytes() for request in requests}) == len(requests)
        for number in reversed(range(len(requests))):
            tokens = [*list(requests[number].prompt)[1:4], 2]  # words of its own prompt, and the end of the turn
            yield number, Completion(tokens, np.zeros(4), "stop")

    def close(self) -> None:
        pass


def test_new_completions_of_a_model_are_scored_under_both(monkeypatch):
    monkeypatch.setattr(engine, "Engine", Parrot)
    found = analyse(Settings(completions=5), configured("--data.train_problems=64"))
    assert (found.label, found.step, found.dynamics, found.logged_gap) == ("arithmetic", 0, None, None)
    problems = [each.problem for each in found.scored]
    for problem, each in zip(problems, found.scored, strict=True):
        assert each.text.split() == ["user", *problem[:2]]  # each repeats the beginning of its own prompt
        assert (each.correct, each.advantage) == (False, -0.5)
        assert each.delta == pytest.approx(np.subtract(each.teacher_logp, each.student_logp), abs=2e-5)
    assert np.abs(found.mechanism.delta_BT).max() > 0.01  # the reference in the prompt makes the difference


def test_the_papers_figures_stand_beside_its_own_model_and_regime_alone():
    papers = Config(model=ModelSettings(path=f"Qwen/{MODEL}"), data=DataSettings(path=DATA))
    assert is_papers(papers, Study())
    assert not is_papers(papers, Study(window=3))
    assert not is_papers(configured(), Study())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"step": 3}, "there is no run"),
        ({"logged_only": True}, "samples nothing"),
        ({"window": 0}, "at least 1"),
        ({"gamma": 1.5}, "between 0 and 1"),
        ({"run": Path("x"), "adapter": Path("y")}, "give --adapter or a run"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Settings(**settings)


def test_a_run_whose_model_was_moved(run, analysis, tmp_path):
    moved = shutil.copytree(resolve_folder("arithmetic"), tmp_path / "moved")
    copy = Path(shutil.copytree(run, tmp_path / "small"))
    config = yaml.safe_load((copy / "config.yaml").read_text())
    config["model"]["path"] = "gone"
    (copy / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(FileNotFoundError, match=r"'gone'.*say where it is now"):
        analyse(Settings(run=copy, logged_only=True), load_config(copy / "config.yaml"))
    main([str(copy), f"--base={moved}", f"--to={tmp_path / 'out'}"], "analyze.py")
    again = read_scored(tmp_path / "out/scored.jsonl")
    assert [row.student_entropy for row in again] == [row.student_entropy for row in analysis.scored]


def test_what_a_run_does_not_have_is_named(run, tmp_path):
    config = load_config(run / "config.yaml")
    with pytest.raises(ValueError, match="recorded no completions at step 7; it did at 0, 1"):
        analyse(Settings(run=run, step=7), config)
    with pytest.raises(ValueError, match=r"has no metrics\.jsonl"):
        analyse(Settings(run=tmp_path), config)
    with pytest.raises(ValueError, match="there are 8 completions"):
        write_analysis(Settings(run=run, logged_only=True, show=8, to=tmp_path), config)


def test_completions_that_were_not_in_the_loss_are_left_out_and_counted(run, tmp_path):
    copied = tmp_path / "small"
    copied.mkdir()
    for name in ("config.yaml", "metrics.jsonl", "profiles.jsonl"):
        (copied / name).write_bytes((run / name).read_bytes())
    rows = read_rows(run / "samples.jsonl")
    unscored = [{name: value for name, value in row.items() if not name.endswith(("_logp", "entropy"))} for row in rows]
    config = load_config(run / "config.yaml")

    def analysed(rows: list[dict]) -> Analysis:
        (copied / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return analyse(Settings(run=copied, step=1, logged_only=True), config)

    found = analysed([*rows[:-3], *unscored[-3:]])
    assert [each.tokens for each in found.scored] == [row["tokens"] for row in rows[8:-3]]
    assert "3 completions are left out: they were not in the loss, so training did not score them" in found.notes
    with pytest.raises(ValueError, match="no completion was in the loss"):
        analysed(unscored)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--base", "somewhere"], "--base says where a run's model is now, and there is no run"),
        (["nowhere"], "nowhere is not a run's folder"),
        (["--completions", "0"], "--completions is 0"),
        (["nowhere", "--run", "elsewhere"], "give a run's folder alone"),
        (["--method.gama=1"], "the nearest is --method.gamma"),
    ],
)
def test_mistakes_end_in_one_line(arguments, message, capsys):
    assert message in refused(capsys, "analyze.py", *arguments)


def test_an_options_value_is_not_taken_for_the_runs_folder(run, capsys):
    message = refused(capsys, "analyze.py", "--data.solution", "reference", run)
    assert "--data.solution=reference would change what the run recorded" in message
