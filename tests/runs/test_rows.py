"""JSON Lines that heal: what is damaged is named and kept aside, what is whole stays, and nothing is written twice."""

import errno
import os
from pathlib import Path

import pytest

from egrsd_jax.runs import files, rows
from egrsd_jax.runs.files import read_rows, write_rows
from egrsd_jax.runs.rows import append_rows, heal, read_checked, write_checked

ROWS = [{"step": step, "loss": step / 2 + 0.25, "seconds_update": 1.5} for step in range(5)]


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "a.jsonl"
    append_rows(file, ROWS[:2])
    append_rows(file, ROWS[2:], to_disk=True)
    return file


def lines(file) -> list[bytes]:
    return file.read_bytes().splitlines(keepends=True)


def aside(file) -> list[bytes]:
    damaged = file.with_name(file.name + ".damaged")
    return lines(damaged) if damaged.exists() else []


@pytest.mark.parametrize("only_ascii", [True, False])
def test_rows_are_read_as_they_were_written(tmp_path, only_ascii):
    rows = [{"text": "\u2028\r\n π \ud800"}, {"text": ""}]
    append_rows(tmp_path / "a.jsonl", rows[:1], only_ascii=only_ascii)
    append_rows(tmp_path / "a.jsonl", rows[1:], only_ascii=only_ascii, to_disk=True)
    assert read_rows(tmp_path / "a.jsonl") == rows
    write_rows(tmp_path / "b.jsonl", rows[1:], only_ascii=only_ascii)
    assert read_rows(tmp_path / "b.jsonl") == rows[1:]


def test_a_whole_file_stays_as_it_is_and_a_line_that_a_kill_cut_short_is_taken_off(file):
    before = file.read_bytes()
    assert heal(file).rows == ROWS
    file.write_bytes(before + b'{"step": 5, "lo')
    healed = heal(file)
    assert (healed.rows, healed.notes, file.read_bytes()) == (ROWS, [], before)


def test_a_row_without_its_checksum_is_what_a_kill_leaves_and_is_whole(file):
    sums = file.with_name(".a.jsonl.crc")
    sums.write_bytes(b"".join(lines(sums)[:-1]) + b"0123")
    healed = heal(file, ("step",))
    assert (healed.rows, healed.notes) == (ROWS, [])
    assert heal(file).rows == ROWS


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda kept: [*kept[:1], b"{\n", *kept[2:]], "line 2, is not what was written"),
        (lambda kept: [*kept[:1], kept[1].replace(b"0.75", b"0.85"), *kept[2:]], "line 2, is not what was written"),
        (lambda kept: [*kept[:1], b"\0" * 20 + b"\n", *kept[2:]], "line 2, is not what was written"),
    ],
)
def test_a_changed_line_is_named_and_kept_aside_and_those_after_it_stay(file, damage, expected):
    changed = damage(lines(file))
    file.write_bytes(b"".join(changed))
    healed = heal(file, ("step",))
    assert healed.rows == ROWS[:1] + ROWS[2:]
    assert expected in healed.notes[0]
    assert "1 of the rows that were written is missing" in healed.notes[1]
    assert aside(file) == changed[1:2]
    again = heal(file, ("step",))
    assert (again.rows, again.notes) == (healed.rows, [])


def test_a_line_that_is_gone_is_missed_and_one_that_is_there_twice_counts_once(file):
    kept = lines(file)
    file.write_bytes(b"".join([kept[0], *kept[2:], kept[4]]))
    healed = heal(file)
    assert healed.rows == ROWS[:1] + ROWS[2:]
    assert [note.partition(", ")[2].partition(";")[0] for note in healed.notes[:1]] == ["line 5, is there twice"]
    assert "1 of the rows that were written is missing" in healed.notes[1]
    assert aside(file) == [kept[4]]


def test_a_file_that_is_gone_is_missed(file):
    file.unlink()
    assert "its rows stay missing" in heal(file).notes[0]
    assert heal(file).notes == []


def test_files_of_earlier_versions_get_checksums_and_their_bad_lines_are_found(tmp_path):
    file = tmp_path / "a.jsonl"
    write_rows(file, [*ROWS, ROWS[1]])
    file.write_bytes(file.read_bytes().replace(b'{"step": 3', b'["step": 3'))
    append_rows(file, [{"step": 9}])
    assert not file.with_name(".a.jsonl.crc").exists()
    healed = heal(file, ("step",), one_of=("step",))
    assert [row["step"] for row in healed.rows] == [0, 1, 2, 4, 9]
    assert [note.split(", ")[1:] for note in healed.notes] == [
        ["line 4", "is no row; it is kept in a.jsonl.damaged"],
        ["line 6", "is there twice; it is kept in a.jsonl.damaged"],
    ]
    assert heal(file).notes == []
    append_rows(file, [{"step": 10}])
    assert heal(file).rows[-1] == {"step": 10}


def test_of_two_rows_that_contradict_none_is_believed(tmp_path):
    file = tmp_path / "a.jsonl"
    append_rows(file, [ROWS[0], ROWS[1], {**ROWS[0], "seconds_update": 9.0}, {**ROWS[1], "loss": 7.0}])
    healed = heal(file, one_of=("step",))
    assert healed.rows == ROWS[:1]
    assert sum("with other content" in note for note in healed.notes) == 2


def test_damaged_checksums_do_not_take_rows_away(file):
    file.with_name(".a.jsonl.crc").write_bytes(b"\xff\0\n")
    healed = heal(file)
    assert healed.rows == ROWS
    assert "is damaged; the rows of a.jsonl are taken as they are" in healed.notes[0]
    assert heal(file).notes == []


def test_an_addition_that_failed_is_not_there_and_the_next_is_there_once(file, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        with pytest.raises(OSError, match=r"a\.jsonl"):
            append_rows(file, [{"step": 5}], to_disk=True)
    append_rows(file, [{"step": 5}])
    assert heal(file).rows == [*ROWS, {"step": 5}]


@pytest.mark.parametrize("writes", [1, 2], ids=["before the content", "after the content"])
@pytest.mark.parametrize("has_before", [False, True])
def test_a_json_file_has_a_checksum_at_every_moment(writes, has_before, tmp_path, monkeypatch):
    file, done = tmp_path / "evaluation.json", []
    if has_before:
        write_checked(file, {"accuracy": 0.5})

    def write_or_end(place: Path, content: bytes) -> None:
        if len(done) == writes:
            raise KeyboardInterrupt
        done.append(place)
        files.write_whole_bytes(place, content)

    monkeypatch.setattr(rows, "write_whole_bytes", write_or_end)
    with pytest.raises(KeyboardInterrupt):
        write_checked(file, {"accuracy": 0.25})
    if writes == 1 and not has_before:
        assert not file.exists()
        return
    assert read_checked(file) == {"accuracy": 0.5 if writes == 1 else 0.25}
    file.write_bytes(file.read_bytes().replace(b"0.", b"9."))
    with pytest.raises(ValueError, match="is not what was written: its checksum is another"):
        read_checked(file)
