"""Files that a kill leaves whole, JSON Lines that are resumed, and settings that bind them."""

import math

import pytest

from egrsd_jax.runs.files import (
    SettingsMismatch,
    append_rows,
    check_settings,
    differences,
    numbered_rows,
    read_json,
    read_rows,
    resumed_rows,
    write_json,
    write_rows,
    write_whole,
)
from egrsd_jax.runs.layout import evaluation_file, evaluation_files


def test_a_file_is_replaced_whole_and_nothing_else_is_left(tmp_path):
    file = tmp_path / "a.json"
    write_json(file, {"a": 1})
    write_json(file, {"a": 2}, indent=1)
    assert read_json(file) == {"a": 2}
    assert list(tmp_path.iterdir()) == [file]


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    file = tmp_path / "a.txt"
    write_whole(file, "old")
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        write_whole(file, "new")
    assert file.read_text() == "old"


def test_json_that_is_none_is_refused_on_both_sides(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"a": math.nan})
    assert not list(tmp_path.iterdir())
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(ValueError, match=r"a\.json cannot be read"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("only_ascii", [True, False])
def test_rows_are_read_as_they_were_written(tmp_path, only_ascii):
    rows = [{"text": "\u2028\r\n π \ud800"}, {"text": ""}]
    append_rows(tmp_path / "a.jsonl", rows[:1], only_ascii=only_ascii)
    append_rows(tmp_path / "a.jsonl", rows[1:], only_ascii=only_ascii, to_disk=True)
    assert list(numbered_rows(tmp_path / "a.jsonl")) == [(1, rows[0]), (2, rows[1])]
    assert read_rows(tmp_path / "a.jsonl") == rows
    write_rows(tmp_path / "b.jsonl", rows[1:], only_ascii=only_ascii)
    assert read_rows(tmp_path / "b.jsonl") == rows[1:]


def test_a_row_cut_short_is_taken_off_before_rows_are_added(tmp_path):
    file = tmp_path / "a.jsonl"
    assert list(resumed_rows(file)) == read_rows(file) == []
    file.write_text('{"a": 1}\n{"a": 2')
    assert read_rows(file) == [{"a": 1}]
    assert list(resumed_rows(file)) == [(1, {"a": 1})]
    append_rows(file, [{"a": 2}])
    assert list(numbered_rows(file)) == [(1, {"a": 1}), (2, {"a": 2})]


@pytest.mark.parametrize(("line", "message"), [("{", "line 3, is not JSON"), ("[1]", "line 3, is a list")])
def test_a_whole_line_that_is_no_row_is_named(tmp_path, line, message):
    (tmp_path / "a.jsonl").write_text(f'{{"a": 1}}\n\n{line}\n')
    with pytest.raises(ValueError, match=message):
        list(resumed_rows(tmp_path / "a.jsonl"))


def test_differences_are_named_with_their_path_and_what_is_free_is_not():
    was = {"a": {"b": 1, "free": 3}, "c": [1], "free": {"d": 1}}
    now = {"a": {"b": 2, "free": 4}, "c": [1], "e": None, "free": {"d": 2}}
    assert differences(was, now) == ["a.b was 1 and is 2"]
    assert differences(1, 2, "x") == ["x was 1 and is 2"]
    check_settings("the samples", was, {**was, "free": 0})
    with pytest.raises(SettingsMismatch, match=r"^the samples were sampled with other settings: a\.b was 1 and is 2; "):
        check_settings("the samples", was, now)


def test_evaluations_are_found_by_step_in_order(tmp_path):
    for step in (10, 9, 100):
        (tmp_path / evaluation_file(step)).touch()
    assert list(evaluation_files(tmp_path)) == [9, 10, 100]
