"""Compiled programs: where they are kept, what becomes of half-written ones, and how they are counted and announced."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import jax
import pytest

from egrsd_jax import compilation
from egrsd_jax.cli.main import main
from egrsd_jax.compilation import CompilationNotices, Listener, count_programs, keep_programs, listening, user_cache
from tests.commands import ROOT, refused

CONFIG: Any = jax.config
SETTINGS = (
    "jax_compilation_cache_dir",
    "jax_compilation_cache_max_size",
    "jax_persistent_cache_min_compile_time_secs",
)
SQUARES = """
import sys
import jax, numpy as np
from egrsd_jax.compilation import count_programs, keep_programs
print(keep_programs())
result = jax.jit(lambda x: (x * x).sum())(np.arange(1000, dtype=np.float32) / 7)
print(result.tobytes().hex(), *count_programs()[:2])
"""


@pytest.fixture(autouse=True)
def settings(monkeypatch):
    """jax's settings as they were; and the environment says nothing about a cache."""
    before = {name: getattr(CONFIG, name) for name in SETTINGS}
    for name in (compilation.VARIABLE, "XDG_CACHE_HOME", "NPROC"):
        monkeypatch.delenv(name, raising=False)
    yield
    for name, value in before.items():
        CONFIG.update(name, value)


def kept(folder: Path, key: str, used: int | None, content: bytes = b"program") -> None:
    """A program as jax writes it: first what it is, then when it was last used."""
    (folder / f"{key}-cache").write_bytes(content)
    if used is not None:
        (folder / f"{key}-atime").write_bytes(used.to_bytes(8, "little"))


def keys(folder: Path) -> set[str]:
    return {file.name.removesuffix("-cache") for file in folder.glob("*-cache")}


class TestWhere:
    def test_in_the_users_cache_folder(self, monkeypatch, tmp_path):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        line = keep_programs()
        folder = tmp_path / "egrsd_jax" / "compiled" / f"{compilation.processors()}-processors"
        assert line == f"compilation cache: 0 programs, 0.0 MB, in {folder}"
        assert folder.stat().st_mode & 0o777 == 0o700
        assert CONFIG.jax_compilation_cache_dir == str(folder)
        assert CONFIG.jax_compilation_cache_max_size == compilation.MAX_BYTES
        assert CONFIG.jax_persistent_cache_min_compile_time_secs == 0

    def test_the_folder_of_a_platform(self, monkeypatch):
        monkeypatch.setenv("HOME", "/home/someone")
        monkeypatch.setenv("XDG_CACHE_HOME", "relative")
        monkeypatch.setattr(sys, "platform", "linux")
        assert user_cache() == Path("/home/someone/.cache/egrsd_jax/compiled")
        monkeypatch.setattr(sys, "platform", "darwin")
        assert user_cache() == Path("/home/someone/Library/Caches/egrsd_jax/compiled")

    def test_a_setting_goes_before_the_variable_and_that_before_jaxs_own(self, monkeypatch, tmp_path):
        CONFIG.update("jax_compilation_cache_dir", str(tmp_path / "jax"))
        CONFIG.update("jax_compilation_cache_max_size", 123)
        assert keep_programs() == f"compilation cache: {tmp_path / 'jax'} (JAX_COMPILATION_CACHE_DIR)"
        assert CONFIG.jax_compilation_cache_max_size == 123  # as jax has it
        monkeypatch.setenv(compilation.VARIABLE, str(tmp_path / "variable"))
        assert str(tmp_path / "variable") in keep_programs()
        assert str(tmp_path / "setting") in keep_programs(str(tmp_path / "setting"))
        assert not (tmp_path / "jax").exists()

    @pytest.mark.parametrize("said_by", ["setting", "variable"])
    def test_off(self, said_by, monkeypatch):
        CONFIG.update("jax_compilation_cache_dir", "/of/jax")
        monkeypatch.setenv(compilation.VARIABLE, "off" if said_by == "variable" else "/nowhere")
        assert keep_programs("off" if said_by == "setting" else "auto") == "compilation cache: off"
        assert CONFIG.jax_compilation_cache_dir is None

    def test_a_number_of_processors_has_its_own_folder(self, monkeypatch, tmp_path):
        monkeypatch.setenv("NPROC", "3")  # as XLA reads it
        assert keep_programs(str(tmp_path)).endswith("3-processors")

    def test_a_folder_that_was_asked_for_and_cannot_be_written_is_a_mistake(self, capsys, tmp_path):
        (tmp_path / "file").touch()
        error = refused(capsys, "train.py", f"--run.compilation_cache={tmp_path}/file", f"--run.dir={tmp_path}/runs")
        assert f"cannot be kept in {tmp_path}/file" in error
        assert "EGRSD_COMPILATION_CACHE, or `off`" in error
        assert "JAX_COMPILATION_CACHE_DIR" in refused(capsys, "train.py", "--run.compilation_cache=gs://bucket/x")
        assert "run.compilation_cache is empty" in refused(capsys, "train.py", "--run.compilation_cache=")

    def test_without_a_writable_cache_folder_a_run_goes_without(self, monkeypatch, tmp_path):
        (tmp_path / "file").touch()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        assert keep_programs().startswith("compilation cache: none, every start compiles anew: ")
        assert CONFIG.jax_compilation_cache_dir is None

    def test_a_folder_of_another_user_is_not_trusted(self, monkeypatch, tmp_path):
        monkeypatch.setattr(os, "getuid", lambda: 12345)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert "belongs to another user" in keep_programs()

    def test_plan_keeps_nothing(self, capsys, tmp_path):
        CONFIG.update("jax_compilation_cache_dir", str(tmp_path / "cache"))
        with pytest.raises(SystemExit):
            main(["plan", "--topology", "v0:1"])
        assert "there is no topology" in capsys.readouterr().err
        assert CONFIG.jax_compilation_cache_dir is None


class TestWhatIsKept:
    def test_a_second_process_reads_what_the_first_compiled(self, tmp_path):
        environment = {**os.environ, compilation.VARIABLE: str(tmp_path), "PYTHONPATH": str(ROOT)}
        outputs = [
            subprocess.run([sys.executable, "-c", SQUARES], env=environment, capture_output=True, text=True, check=True)
            for _ in range(2)
        ]
        (first, (bits, *counts)), (second, (again, *counts_again)) = (
            (line, result.split()) for line, result in (output.stdout.splitlines() for output in outputs)
        )
        assert "cache: 0 programs" in first
        assert "cache: 1 programs" in second
        assert (counts, counts_again) == (["1", "0"], ["0", "1"])
        assert bits == again
        assert [output.stderr for output in outputs] == ["", ""]  # nor a warning that the processor is another

    def test_what_a_killed_process_left_half_written_is_removed(self, tmp_path):
        keep_programs(str(tmp_path))
        [folder] = tmp_path.iterdir()
        kept(folder, "whole", used=5)
        kept(folder, "half", used=None)
        (folder / "gone-atime").write_bytes(b"12345678")
        (folder / "no-program").write_bytes(b"someone's")
        assert keep_programs(str(tmp_path)).startswith("compilation cache: 1 programs")
        assert {file.name for file in folder.iterdir()} == {"whole-cache", "whole-atime", "no-program", ".lockfile"}

    def test_the_least_recently_used_programs_go(self, monkeypatch, tmp_path):
        monkeypatch.setattr(compilation, "MAX_PROGRAMS", 2)
        keep_programs(str(tmp_path))
        [folder] = tmp_path.iterdir()
        for key, used in (("b", 256), ("c", 3), ("a", 257), ("d", 2)):
            kept(folder, key, used)
        keep_programs(str(tmp_path))
        assert keys(folder) == {"a", "b"}

    def test_a_folder_that_another_process_has_locked_is_left_as_it_is(self, monkeypatch, tmp_path):
        from filelock import FileLock

        monkeypatch.setattr(compilation, "LOCK_SECONDS", 0)
        keep_programs(str(tmp_path))
        [folder] = tmp_path.iterdir()
        kept(folder, "half", used=None)
        with FileLock(folder / ".lockfile"):
            assert "1 programs" in keep_programs(str(tmp_path))
        assert keys(folder) == {"half"}


class FakeTimer:
    """A `threading.Timer` whose time comes when a test says so."""

    made: ClassVar[list[Any]] = []

    def __init__(self, seconds: float, function: Any):
        self.seconds, self.function, self.state = seconds, function, "made"
        FakeTimer.made.append(self)

    def start(self) -> None:
        self.state = "started"

    def cancel(self) -> None:
        self.state = "cancelled"


class TestNotices:
    def test_only_a_long_compilation_is_announced(self):
        lines: list[str] = []
        notices = CompilationNotices(lines.append, after=5.0, timer=FakeTimer)
        notices.begins("insert")
        notices.ends("insert", 0.2)
        assert (FakeTimer.made[-1].state, lines) == ("cancelled", [])
        notices.begins("update")
        assert (FakeTimer.made[-1].state, FakeTimer.made[-1].seconds) == ("started", 5.0)
        FakeTimer.made[-1].function()
        assert lines == ["compiling update"]
        notices.ends("update", 23.4)
        assert lines == ["compiling update", "compiled update in 23 s"]
        notices.begins("insert")
        notices.ends("insert", 0.2)
        assert len(lines) == 2

    def test_programs_are_counted_and_listeners_called_by_name(self):
        calls: list[tuple] = []

        class Recorder(Listener):
            def begins(self, name: str) -> None:
                calls.append(("begins", name))

            def ends(self, name: str, seconds: float) -> None:
                calls.append(("ends", name, seconds > 0))

        def triple(x):
            return 3 * x

        program, before = jax.jit(triple), count_programs()
        with listening(Recorder()):
            program(jax.numpy.zeros(3))
            program(jax.numpy.ones(3))
        program(jax.numpy.ones(4))
        after = count_programs().since(before)
        assert [call for call in calls if call[1] == "triple"] == [("begins", "triple"), ("ends", "triple", True)]
        assert after.compiled >= 2
        assert after.cached == 0
        assert after.seconds > 0


def test_an_evaluation_takes_its_cache_from_the_variable(monkeypatch, capsys, tmp_path):
    """The commands that have no configuration."""
    (tmp_path / "file").touch()
    monkeypatch.setenv(compilation.VARIABLE, str(tmp_path / "file"))
    for command, arguments in {
        "evaluate": ["--problems", "2"],
        "sample": [],
        "analyze": ["--completions", "2"],
        "warmup": ["--folder", tmp_path / "model"],
        "export": [tmp_path, "--to", tmp_path / "out"],
    }.items():
        assert "the compilation cache cannot be kept in" in refused(capsys, f"{command}.py", *arguments), command


class TestMemory:
    @pytest.mark.parametrize(("seconds", "times"), [(0.0, 1), (1e9, 0)])
    def test_a_long_compilation_gives_back_what_it_freed(self, monkeypatch, seconds, times):
        given: list[None] = []
        monkeypatch.setattr(compilation, "TRIM_SECONDS", seconds)
        monkeypatch.setattr(compilation, "return_freed_memory", lambda: given.append(None))
        count_programs()
        program = jax.jit(lambda x: x * 3.0 + seconds).lower(1.0)
        given.clear()
        program.compile()
        assert len(given) == times

    def test_another_c_library_is_left_alone(self, monkeypatch):
        compilation.return_freed_memory()
        monkeypatch.setattr(compilation.ctypes, "CDLL", lambda name: object())
        compilation.return_freed_memory()
