"""Files that a kill leaves whole, additions that are whole or none, and settings that bind them."""

import errno
import math
import os

import pytest

from egrsd_jax.runs.files import (
    SettingsMismatch,
    append_bytes,
    check_settings,
    differences,
    numbered_rows,
    read_json,
    read_rows,
    write_json,
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


def test_bytes_are_added_whole_or_not_at_all(tmp_path, monkeypatch):
    file = tmp_path / "a.jsonl"
    append_bytes(file, b"one\n", to_disk=True)
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(OSError, match=r"a\.jsonl") as full:
        append_bytes(file, b"two\n", to_disk=True)
    assert full.value.filename == str(file)
    append_bytes(file, b"three\n", to_disk=False)
    assert file.read_bytes() == b"one\nthree\n"


@pytest.mark.parametrize("torn", [b"x", b"y" * 5000, b"z" * 4096])
def test_an_unfinished_line_is_taken_off_before_more_is_added(tmp_path, torn):
    file = tmp_path / "a.jsonl"
    file.write_bytes(b"one\n" + torn)
    append_bytes(file, b"two\n", to_disk=False)
    assert file.read_bytes() == b"one\ntwo\n"
    file.write_bytes(torn)
    append_bytes(file, b"two\n", to_disk=False)
    assert file.read_bytes() == b"two\n"


@pytest.mark.parametrize(("line", "message"), [("{", "line 3, is not JSON"), ("[1]", "line 3, is a list")])
def test_a_whole_line_that_is_no_row_is_named_and_an_unfinished_one_is_not_read(tmp_path, line, message):
    file = tmp_path / "a.jsonl"
    assert read_rows(file) == []
    file.write_text('{"a": 1}\n{"a"')
    assert read_rows(file) == [{"a": 1}]
    file.write_text(f'{{"a": 1}}\n\n{line}\n{{"a": 2}}\n')
    for read in (numbered_rows, read_rows):
        with pytest.raises(ValueError, match=message):
            list(read(file))


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
    (tmp_path / "evaluation_step9 (copy).json").touch()
    assert list(evaluation_files(tmp_path)) == [9, 10, 100]
