"""Fingerprints: any change of content counts, a place does not."""

import pytest

from egrsd_jax.runs import fingerprint
from egrsd_jax.runs.fingerprint import InputsChanged, begin_of_files, check, of_files, of_rows, record


def test_every_byte_of_every_file_counts_and_where_they_are_does_not(tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprint, "PIECE", 8)
    monkeypatch.setattr(fingerprint, "AT_A_TIME", 3)
    content = bytes(range(30))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "w").write_bytes(content)
    whole = of_files([tmp_path / "a/w", tmp_path / "a/none"])
    assert of_files([tmp_path / "b/w"]) == whole
    for place in range(30):
        changed = bytearray(content)
        changed[place] ^= 1
        (tmp_path / "b/w").write_bytes(changed)
        assert of_files([tmp_path / "b/w"]) != whole
    for other in (content[:-1], content[8:16] + content[:8] + content[16:], b""):
        (tmp_path / "b/w").write_bytes(other)
        assert of_files([tmp_path / "b/w"]) != whole


def test_a_fingerprint_that_was_begun_is_that_of_the_files_and_what_cannot_be_read_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprint, "PIECE", 8)
    (tmp_path / "w").write_bytes(bytes(range(100)))
    # What run folders have that were begun before threads did this.
    assert begin_of_files([tmp_path / "w"])() == "04032475a1c6ff3909c08fcb19cbb14ee31d698df6815f7c85239076687870b0"
    result = begin_of_files([tmp_path / "w"])
    assert result() == result()
    monkeypatch.setattr(fingerprint, "_of_piece", fails)
    with pytest.raises(OSError, match="Input/output error"):
        begin_of_files([tmp_path / "w"])()


def fails(*_) -> bytes:
    raise OSError(5, "Input/output error")


def test_rows_count_in_their_order_and_by_their_columns():
    rows = [("1", "a", "b"), ("2", "", "c")]
    assert of_rows(rows) == of_rows(iter(rows))
    assert len({of_rows(rows), of_rows(rows[::-1]), of_rows(rows[:1]), of_rows([("1", "ab", ""), rows[1]])}) == 4


def test_what_changed_is_named_and_what_an_older_run_lacks_is_returned(tmp_path):
    file = tmp_path / "run/fingerprints.json"
    file.parent.mkdir()
    now = {"data": "a" * 64, "weights": "b" * 64}
    places = {"data": "the rows of train.jsonl", "weights": "the weights in model"}
    assert check(file, now, places, "") == ["data", "weights"]
    record(file, {"data": now["data"]})
    assert check(file, now, places, "") == ["weights"]
    record(file, now)
    assert check(file, now, places, "") == []
    with pytest.raises(InputsChanged) as refusal:
        check(file, {**now, "data": "c" * 64}, places, "put it back")
    assert str(refusal.value) == (
        f"since {file.parent} began this has changed: the rows of train.jsonl (fingerprint aaaaaaaaaaaa, now "
        "cccccccccccc); put it back"
    )
