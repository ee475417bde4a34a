"""The token viewer's page as Python makes it: what is in it, what is escaped, what is refused."""

import json
import shutil
import subprocess
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import yaml

from egrsd_jax.config import Config, TrainSettings
from egrsd_jax.data.tokenizer import FILES_BESIDE_WEIGHTS
from egrsd_jax.model.hf.hub import resolve_folder
from egrsd_jax.objective.methods import method_settings
from egrsd_jax.runs import fingerprint
from egrsd_jax.viewer.page import viewer_html
from egrsd_jax.viewer.rows import read_completions
from tests.commands import command_line, refused

NASTY = ["<script>alert(1)</script>", "</div>", "<!--", "&amp;", "\u2028", "\x00\x07", "שלום", "\ud83d", "\u202e"]


def row(**changes) -> dict:
    made = {
        "problem": "p1",
        "tokens": [5, 6, 7],
        "token_texts": ["a", " b", "\n"],
        "correct": True,
        "advantage": -0.5,
        "teacher_entropy": [0.1, 2.0, 0.0],
        "delta": [0.1, -0.3, 0.0],
        "weight": [1.1, 0.8, 1.0],
        "gate": [0.9, 0.7, 1.0],
        "gate_lookahead": [1.0, 1.0, 1.0],
    }
    return made | changes


class Scripts(HTMLParser):
    """The elements of a page, and the JSON of its data elements."""

    def __init__(self, page: str):
        super().__init__()
        self.data, self.tags, self._id = {}, [], None
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self._id = dict(attrs).get("id") if dict(attrs).get("type") == "application/json" else None

    def handle_data(self, data):
        if self._id is not None:
            self.data[self._id] = json.loads(data)
            self._id = None


def data_of(rows, **settings) -> dict:
    return Scripts(viewer_html(rows, title="t", **settings)).data


def test_what_a_model_wrote_is_data_and_comes_back_as_it_was():
    page = viewer_html(
        [
            row(
                tokens=list(range(len(NASTY))),
                token_texts=NASTY,
                problem=NASTY[0],
                answer="</script>",
                teacher_entropy=None,
                delta=None,
                weight=None,
                gate=None,
                gate_lookahead=None,
                teacher_top=[[[text, -0.5]] for text in NASTY],
            )
        ],
        title="<b>&",
    )
    index = Scripts(page).data["index"]
    strings = index["strings"]
    assert [strings[text] for text in index["rows"][0]["texts"]] == NASTY
    assert [strings[pair[0]] for pair in Scripts(page).data["tokens-0"]["teacher_top"]] == NASTY
    assert index["rows"][0]["problem"] == NASTY[0]
    assert Scripts(page).tags.count("script") == 3  # index, one completion, the page's own
    assert "<title>&lt;b&gt;&amp;</title>" in page
    page.encode("utf-8")  # lone surrogates and all


def test_nothing_is_loaded_from_anywhere():
    page = viewer_html([row()], title="t")
    assert "default-src 'none'" in page
    assert not any(word in page for word in ("http:", "https:", "src=", "href=", "url(", "@import"))


def test_numbers_are_kept_to_a_ten_thousandth_and_what_lacks_is_left_out():
    data = data_of([row(student_logp=[-0.12345678, -13.5, 0.0])])
    assert np.allclose(np.array(data["tokens-0"]["student_logp"]) / data["index"]["unit"], [-0.1235, -13.5, 0.0])
    assert "teacher_logp" not in data["tokens-0"]
    assert "student_entropy" not in data["tokens-0"]
    assert data["index"]["rows"][0]["reward"] is None
    assert "regime" not in data["tokens-0"]
    assert data["index"]["has"]["teacher_top"] is False


def test_a_colouring_has_a_scale_exactly_where_some_completion_has_its_numbers():
    bare = row(teacher_entropy=None, delta=None, weight=None, gate=None, gate_lookahead=None)
    assert set(data_of([bare])["index"]["scales"]) == set()
    assert set(data_of([bare, row(delta=None)])["index"]["scales"]) == {
        "teacher_entropy",
        "weight",
        "gate",
        "gate_lookahead",
        "token_advantage",
    }


def test_scales_are_centred_and_both_gates_share_one():
    scales = data_of([row()])["index"]["scales"]
    assert scales["delta"]["shown"][0] == -scales["delta"]["shown"][1] < 0
    assert sum(scales["weight"]["shown"]) == pytest.approx(2.0)
    assert scales["gate"]["shown"] == scales["gate_lookahead"]["shown"]
    assert 0.69 <= scales["gate"]["shown"][0] <= 0.71
    assert scales["gate_lookahead"]["seen"] == [1.0, 1.0]


def test_token_advantage_takes_the_methods_gate():
    plain, ahead = (data_of([row()], lookahead=each)["index"] for each in (False, True))
    assert plain["scales"]["token_advantage"]["seen"] == pytest.approx([-0.5, -0.28])
    assert ahead["scales"]["token_advantage"]["seen"] == pytest.approx([-0.55, -0.4])
    assert (plain["gate"], ahead["gate"]) == ("gate", "gate_lookahead")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"delta": [0.1, 0.2]}, r"row 2 \(problem p1\): delta has 2 entries and tokens 3"),
        ({"regime": ["lock"]}, r"row 2 .* regime has 1 entries"),
        ({"teacher_top": [[]]}, r"row 2 .* teacher_top has 1 entries"),
        ({"regime": ["lock", "mid", "knife"]}, "row 2 .* no regime 'knife'; they are lock, mid, pivot, fork"),
        ({"token_texts": None}, "row 2 .* has no token_texts; give the run's folder"),
        ({"problem": None}, "row 2 .* has no problem"),
        ({"weight": [1.0, float("nan"), 1.0]}, "row 2 .* weight of token 2 is nan; it has to be a finite number"),
        ({"weight": [1.0, None, 1.0]}, "row 2 .* weight of token 2 is None"),
        ({"weight": ["x", 1.0, 1.0]}, "row 2 .* weight holds something else than numbers"),
        ({"student_top": [[["a"]], [], []]}, "row 2 .* student_top holds something else than pairs"),
        ({"student_top": [[["a", float("-inf")]], [], []]}, "row 2 .* student_top holds something else than pairs"),
    ],
)
def test_a_row_that_cannot_be_shown_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        viewer_html([row(), row(**changes)], title="t")


def test_no_completions_are_an_error_and_an_empty_one_is_not():
    with pytest.raises(ValueError, match="no completions"):
        viewer_html([], title="t")
    empty = {name: [] if isinstance(value, list) else value for name, value in row().items()}
    assert data_of([empty])["tokens-0"]["ids"] == []


def test_a_token_that_ends_within_a_character_is_shown():
    data = data_of([row(token_texts=["", *row()["token_texts"][1:]])])
    assert "\ufffd" in json.dumps(data, ensure_ascii=False)


@pytest.fixture
def run(tmp_path) -> Path:
    """A CL-EGRSD run's folder: the batch of docs' example, H_max = 3, gamma 0.3, W = 1."""
    config = Config(
        method=method_settings(name="cl_egrsd", gamma=0.3, window=1), train=TrainSettings(batch_size=2, steps=1)
    )
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(asdict(config)))
    entropy = [[2.0, 0.1, 0.5, 1.5], [0.3, 3.0, 2.5]]
    gate = [[0.99, 0.99, 0.95, 0.85], [0.97, 0.75, 0.75]]
    rows = [
        {"step": 0, "problem": "p", "tokens": [4, 14, 17, 9][: len(numbers)], "teacher_entropy": numbers, "gate": omega}
        for numbers, omega in zip(entropy, gate, strict=True)
    ]
    lines = [json.dumps(each | {"step": step}) for step in (0, 10) for each in rows]
    (tmp_path / "samples.jsonl").write_text("\n".join(lines[:3]) + "\n")  # the second step lacks a completion
    return tmp_path


def test_a_runs_samples_get_their_texts_and_the_other_gate(run):
    found = read_completions(run)
    first, second, part = found.rows
    assert found.lookahead
    assert first["token_texts"] == ["<think>", " 8", " -", " 3"]
    np.testing.assert_allclose(first["gate"] + second["gate"], [0.8, 0.99, 0.95, 0.85, 0.97, 0.7, 0.75], atol=1e-5)
    assert second["gate_lookahead"] == [0.97, 0.75, 0.75]
    np.testing.assert_allclose(first["entropy_lookahead"], [0.1, 0.1, 0.5, 1.5], atol=1e-5)
    assert first["regime"] == ["mid", "lock", "lock", "lock"]  # the 70th percentile is 2.1 nats
    assert second["regime"] == ["lock", "fork", "fork"]
    assert "regime" not in part
    assert "gate" not in part
    assert part["gate_lookahead"] == first["gate_lookahead"]


def test_a_completion_that_was_not_in_the_loss_has_no_part_in_the_regimes(run):
    before = read_completions(run, step=0).rows
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["train"] |= {"batch_size": 3, "micro_batch_size": 3}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    first, second, *_ = (run / "samples.jsonl").read_text().splitlines()
    left_out = json.dumps({"step": 0, "problem": "p", "tokens": [4, 14]})
    (run / "samples.jsonl").write_text("\n".join([first, left_out, second]) + "\n")
    found = read_completions(run).rows
    assert [found[0], found[2]] == before
    assert found[1].keys() == {"step", "problem", "tokens", "token_texts"}


def test_a_runs_model_may_be_elsewhere_but_not_another(run, tmp_path):
    before = read_completions(run).rows
    moved = Path(shutil.copytree(resolve_folder("arithmetic"), tmp_path / "moved"))
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["model"]["path"] = "gone"
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(FileNotFoundError, match=r"'gone'.*--base of export, evaluate, sample, analyze and view"):
        read_completions(run)
    now = fingerprint.of_files(moved / name for name in FILES_BESIDE_WEIGHTS)
    (run / "fingerprints.json").write_text(json.dumps({"tokenizer": now}))
    assert read_completions(run, base=str(moved)).rows == before
    content = json.loads((moved / "config.json").read_text())
    (moved / "config.json").write_text(json.dumps(content | {"vocab_size": 1}))
    with pytest.raises(ValueError, match=r"is not what it was when .* began"):
        read_completions(run, base=str(moved))


def test_a_step_is_picked_and_one_that_is_not_there_is_told(run):
    assert len(read_completions(run, step=10).rows) == 1
    with pytest.raises(ValueError, match="no completions of step 5; it has those of 0, 10"):
        read_completions(run, step=5)


def test_a_broken_line_and_a_missing_file_are_told(tmp_path):
    file = tmp_path / "scored.jsonl"
    with pytest.raises(FileNotFoundError, match="there is no"):
        read_completions(file)
    file.write_text('{"problem": "p"}\n{"prob')
    with pytest.raises(ValueError, match=r"line 2, is not JSON"):
        read_completions(file)
    file.write_text("")
    with pytest.raises(ValueError, match="holds no completions"):
        read_completions(file)


def test_the_launcher_writes_the_page_beside_the_file(tmp_path, capsys):
    file = tmp_path / "scored.jsonl"
    file.write_text(json.dumps(row()) + "\n")
    message = subprocess.run(command_line("view.py", file), capture_output=True, text=True, check=True)
    assert "1 completions, 3 tokens" in message.stdout
    assert Scripts((tmp_path / "scored.html").read_text()).data["index"]["rows"][0]["problem"] == "p1"
    file.write_text(json.dumps(row(delta=[0.0])) + "\n")
    refused(capsys, "view.py", file)
