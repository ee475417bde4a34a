"""Fingerprints: any change of content counts, a place does not."""

import json
from functools import partial

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from egrsd_jax.runs import checksums, fingerprint
from egrsd_jax.runs.fingerprint import (
    InputsChanged,
    begin_of_files,
    check,
    is_of,
    of_files,
    of_rows,
    of_weights,
    record,
)


@pytest.mark.parametrize("quick", [False, True])
def test_every_byte_of_every_file_counts_and_where_they_are_does_not(quick, tmp_path, monkeypatch):
    of_files = partial(fingerprint.of_files, quick=quick)
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
    (tmp_path / "b/w").write_bytes(content)
    assert is_of(whole, [tmp_path / "b/w"])
    assert len(whole) == 64 + 2 * quick
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
    monkeypatch.setattr(fingerprint, "_sha256", fails)
    with pytest.raises(OSError, match="Input/output error"):
        begin_of_files([tmp_path / "w"])()


@given(st.binary(min_size=1, max_size=4096), st.integers(0), st.integers(1, 2**32 - 1))
def test_no_change_within_32_bits_leaves_a_piece_as_it_was(content, place, change):
    """One flipped bit, and any four bytes in a row, among them. Bits are in the order in which the CRC takes them."""
    bits, flip = int.from_bytes(content, "little"), change << place % (8 * len(content))
    changed = (bits ^ flip) % 2 ** (8 * len(content))
    assume(changed != bits)
    assert crc(changed.to_bytes(len(content), "little")) != crc(content)


@given(st.binary(min_size=16, max_size=1024), st.integers(0, 127), st.integers(0, 127))
def test_swapped_words_are_another_piece(content, first, second):
    words = [content[start : start + 8] for start in range(0, len(content), 8)]
    first, second = first % len(words), second % len(words)
    swapped = [*words]
    swapped[first], swapped[second] = words[second], words[first]
    assume(swapped != words)
    assert crc(b"".join(swapped)) != crc(content)


@given(st.binary(max_size=300), st.integers(1, 50))
def test_a_piece_is_the_same_however_it_is_read(content, size):
    blocks = [memoryview(content[start : start + size]) for start in range(0, len(content), size)]
    assert fingerprint._crc32(blocks) == crc(content)


def crc(content: bytes) -> bytes:
    return fingerprint._crc32([memoryview(content)])


def test_fingerprints_of_weights_that_earlier_versions_made_still_count(tmp_path):
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(bytes(range(100)))
    file, places = tmp_path / "run/fingerprints.json", {"weights": "the weights in model"}
    file.parent.mkdir()
    record(file, {"weights": of_files([weights])})
    now, is_of_weights = of_weights(tmp_path), {"weights": partial(fingerprint.is_of_weights, tmp_path)}
    assert now != of_files([weights])
    assert check(file, {"weights": now}, places, "", is_of_weights) == []
    weights.write_bytes(bytes(range(1, 101)))
    with pytest.raises(InputsChanged, match="the weights in model"):
        check(file, {"weights": of_weights(tmp_path)}, places, "", is_of_weights)
    record(file, {"weights": now})
    with pytest.raises(InputsChanged, match="fingerprint 02"):
        check(file, {"weights": of_weights(tmp_path)}, places, "", is_of_weights)


def test_checksums_of_checkpoints_that_earlier_versions_made_still_count(tmp_path):
    checkpoint, listed = tmp_path / "1", tmp_path / "checksums/1.json"
    checkpoint.mkdir()
    (checkpoint / checksums.MARKER).touch()
    (checkpoint / "array").write_bytes(b"abc")
    checksums.record(tmp_path, 1)
    assert checksums.damage(tmp_path, 1) is None
    earlier = {file.name: {"bytes": file.stat().st_size, "sha256": of_files([file])} for file in checkpoint.iterdir()}
    for kept in (listed.read_text(), json.dumps({"files": earlier})):
        listed.write_text(kept)
        assert checksums.damage(tmp_path, 1) is None
        (checkpoint / "array").write_bytes(b"abd")
        assert checksums.damage(tmp_path, 1) == f"{checkpoint / 'array'} has other bytes than when it was written"
        (checkpoint / "array").write_bytes(b"abc")


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
    assert check(file, now, places, "", {}) == ["data", "weights"]
    record(file, {"data": now["data"]})
    assert check(file, now, places, "", {}) == ["weights"]
    record(file, now)
    assert check(file, now, places, "", {}) == []
    with pytest.raises(InputsChanged) as refusal:
        check(file, {**now, "data": "c" * 64}, places, "put it back", {})
    assert str(refusal.value) == (
        f"since {file.parent} began this has changed: the rows of train.jsonl (fingerprint aaaaaaaaaaaa, now "
        "cccccccccccc); put it back"
    )
