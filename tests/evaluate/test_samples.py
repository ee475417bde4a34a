"""What an evaluation's folder keeps, drops and refuses."""

import json

import pytest

from egrsd_jax.data.problems import Problem
from egrsd_jax.evaluate.samples import EvaluationFolder, Sample
from egrsd_jax.runs.files import SettingsMismatch


def sample(problem: str, number: int, **other) -> Sample:
    fields = {"seed": 0, "tokens": 3, "stopped": True, "seconds": 0.5, "text": "</think> \\boxed{1}\u2028\r\n"}
    return Sample(problem=problem, sample=number, **{**fields, **other})


def regime(*names: str, **other) -> dict:
    benchmarks = {name: {"data": "d", "temperature": 1.0, "free": {"samples": 4}} for name in names}
    return {"model": "m", "seed": 0, "free": {"label": "a"}, "benchmarks": benchmarks, **other}


def test_samples_are_read_as_they_were_appended(tmp_path):
    folder = EvaluationFolder(tmp_path)
    assert folder.samples("gsm8k") == {}
    folder.append("gsm8k", [sample("a", 0), sample("a", 1)])
    folder.append("gsm8k", [sample("b", 0)])
    assert folder.samples("gsm8k") == {(each.problem, each.sample): each for each in map(sample, "aab", (0, 1, 0))}
    assert folder.samples("math500") == {}


@pytest.mark.parametrize("left", [1, 40, -1])
def test_a_line_that_a_kill_cut_short_is_dropped_and_written_again(tmp_path, left):
    folder = EvaluationFolder(tmp_path)
    folder.append("gsm8k", [sample("a", 0), sample("b", 0)])
    file = tmp_path / "samples_gsm8k.jsonl"
    first, second, _ = file.read_bytes().split(b"\n")
    file.write_bytes(first + b"\n" + second[:left])
    assert list(folder.samples("gsm8k")) == [("a", 0)]
    folder.append("gsm8k", [sample("b", 0)])
    assert list(folder.samples("gsm8k")) == [("a", 0), ("b", 0)]


def test_damaged_lines_and_doubles_are_set_aside_and_what_contradicts_is_sampled_again(tmp_path):
    folder, notes = EvaluationFolder(tmp_path), []
    folder.append("gsm8k", [sample("a", 0), sample("b", 0), sample("a", 0, seconds=9.0), sample("b", 0, text="other")])
    with (tmp_path / "samples_gsm8k.jsonl").open("a") as file:
        file.write('{"problem": "a"}\n')
    assert folder.samples("gsm8k", notes) == {("a", 0): sample("a", 0)}
    assert [note.split(", ", 1)[1].split(";")[0] for note in notes[:4]] == [
        "line 2, is there twice, with other content",
        "line 3, is there twice",
        "line 4, is there twice, with other content",
        "line 5, is no row",
    ]
    assert len((tmp_path / "samples_gsm8k.jsonl.damaged").read_bytes().splitlines()) == 4
    again: list[str] = []
    assert folder.samples("gsm8k", again) == {("a", 0): sample("a", 0)}
    assert again == []


def test_samples_of_other_settings_are_refused_in_one_line_that_names_them(tmp_path):
    folder = EvaluationFolder(tmp_path / "new")
    folder.bind(regime("gsm8k"))
    folder.bind(regime("gsm8k"))
    other = regime("gsm8k", seed=3)
    other["benchmarks"]["gsm8k"]["temperature"] = 0.6
    with pytest.raises(SettingsMismatch) as refused:
        folder.bind(other)
    assert "benchmarks.gsm8k.temperature was 1.0 and is 0.6; seed was 0 and is 3" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert folder.regime() == regime("gsm8k")


def test_what_a_sample_does_not_depend_on_may_change(tmp_path):
    folder = EvaluationFolder(tmp_path)
    folder.bind(regime("gsm8k"))
    more = regime("gsm8k", free={"label": "b"})
    more["benchmarks"]["gsm8k"]["free"] = {"samples": 8}
    folder.bind(more)
    assert folder.regime() == more


def test_benchmarks_join_those_that_are_there_but_never_another_model(tmp_path):
    folder = EvaluationFolder(tmp_path)
    folder.bind(regime("gsm8k"))
    folder.bind(regime("math500"))
    assert set(folder.regime()["benchmarks"]) == {"gsm8k", "math500"}
    with pytest.raises(SettingsMismatch, match="model was 'm' and is 'n'"):
        folder.bind(regime("aime24", model="n"))


def test_a_regime_that_was_edited_to_nonsense_is_named(tmp_path):
    (tmp_path / "regime.json").write_text("{")
    with pytest.raises(ValueError, match=r"regime\.json cannot be read"):
        EvaluationFolder(tmp_path).regime()


def test_problems_go_with_their_samples(tmp_path):
    folder = EvaluationFolder(tmp_path)
    folder.write_problems("gsm8k", [Problem("1", "1 + 1 \u2028", "two", "2")])
    assert folder.problems("gsm8k") == [Problem("1", "1 + 1 \u2028", "", "2")]
    assert json.loads((tmp_path / "problems_gsm8k.jsonl").read_text())["answer"] == "2"
