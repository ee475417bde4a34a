"""The way in: which command runs, under which name its messages come, and what may be imported for it."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import egrsd_jax
from egrsd_jax.cli import main as cli
from egrsd_jax.cli.main import COMMANDS, DISTRIBUTIONS, MODULES, main

ROOT = Path(__file__).resolve().parents[2]


def refused(capsys, *argv: str, program: str | None = None) -> str:
    with pytest.raises(SystemExit) as stop:
        main(argv, program=program)
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert error.count("\n") == 1
    return error


def modules_after(code: str) -> set[str]:
    """What a fresh process has imported after some code."""
    show = "; print(chr(10).join(['', *sys.modules]))"
    command = [sys.executable, "-c", f"import sys; {code}{show}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.splitlines())


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
def test_the_overview_names_every_command(argv, capsys):
    main(argv)
    text = capsys.readouterr().out
    for command, what in COMMANDS.items():
        assert f"\n  {command} " in text
        assert what in text


def test_there_is_a_module_and_a_launcher_for_every_command_and_no_others():
    launchers = {file.stem for file in (ROOT / "launch").glob("*.py")}
    modules = {file.stem for file in (ROOT / "egrsd_jax/cli").glob("*.py")} - {"__init__", "main", "options"}
    assert launchers == modules == {MODULES.get(command, command) for command in COMMANDS}


def test_the_version(capsys):
    main(["--version"])
    assert capsys.readouterr().out == f"egrsd-jax {egrsd_jax.__version__}\n"


def test_an_unknown_command_is_one_line_with_the_nearest(capsys):
    assert refused(capsys, "trian") == "egrsd: error: there is no command trian; the nearest is train\n"
    assert "the commands are train, preflight, evaluate, " in refused(capsys, "zzz")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0
    assert text.startswith(f"usage: egrsd {command} ")
    assert "launch/" not in text
    assert not re.search(rf"\b({'|'.join(COMMANDS)})\.py", text)


@pytest.mark.parametrize("command", COMMANDS)
def test_mistakes_are_one_line_under_the_name_that_was_typed(command, capsys):
    argument = {"ablate": "nowhere"}.get(command, "--nonsense=1")
    for program in (None, f"{command}.py"):
        error = refused(capsys, command, argument, program=program)
        assert error.startswith(f"{program or f'egrsd {command}'}: error: ")


def test_the_launchers_of_a_checkout_and_the_module_run_the_same_commands(tmp_path):
    for start, name in (([str(ROOT / "launch/train.py")], "train.py"), (["-m", "egrsd_jax", "train"], "egrsd train")):
        folder = ROOT if start[0] == "-m" else tmp_path
        command = [sys.executable, *start, "--gamma=1"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
        assert done.returncode == 2
        assert done.stderr == f"{name}: error: there is no option --gamma; the nearest is --method.gamma\n"


def test_the_overview_needs_nothing_but_the_standard_library():
    imported = modules_after("from egrsd_jax.cli.main import main; main([])")
    assert {"jax", "numpy", "yaml", "jsonargparse"} & imported == set()


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_needs_jax_to_explain_itself(command):
    code = f"from egrsd_jax.cli.main import main\ntry: main(['{command}', '--help'])\nexcept SystemExit: pass\nprint()"
    assert "jax" not in modules_after(f"exec({code!r})")


def test_what_is_not_installed_is_one_line_with_the_command_that_installs_it(capsys, monkeypatch, tmp_path):
    def missing(name):
        raise ModuleNotFoundError("No module named 'jsonargparse'", name="jsonargparse")

    monkeypatch.setattr(cli, "import_module", missing)
    monkeypatch.chdir(ROOT)
    begin = "egrsd train: error: jsonargparse is not installed;"
    assert refused(capsys, "train") == f"{begin} pip install -r requirements.txt installs it\n"
    monkeypatch.chdir(tmp_path)
    assert refused(capsys, "train") == f"{begin} pip install -r {ROOT / 'requirements.txt'} installs it\n"
    monkeypatch.setattr(egrsd_jax, "__file__", str(tmp_path / "egrsd_jax/__init__.py"))  # as an installed package
    assert refused(capsys, "train") == f"{begin} pip install 'jsonargparse[signatures]' installs it\n"


def test_the_installed_dependencies_are_those_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {requirement.partition(">=")[0] for requirement in project["dependencies"]}
    assert {name.strip("'") for name in DISTRIBUTIONS.values()} == names


def test_a_report_of_no_folder_says_so(capsys, tmp_path):
    nowhere = tmp_path / "nothere"
    assert refused(capsys, "report", str(nowhere)) == f"egrsd report: error: there is no folder {nowhere}\n"


def test_a_stop_before_the_first_checkpoint_promises_none(capsys, monkeypatch):
    def stop(config):
        raise KeyboardInterrupt

    monkeypatch.setattr("egrsd_jax.train.setup.prepare", stop)
    with pytest.raises(SystemExit) as stopped:
        main(["train"])
    assert stopped.value.code == 130
    assert "newest checkpoint, or starts again where there is none" in capsys.readouterr().err


def test_a_module_of_our_own_that_is_missing_is_no_missing_extra(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(cli, "import_module", missing)
    with pytest.raises(ModuleNotFoundError):
        main(["train"])


@pytest.mark.skipif(sys.platform == "win32", reason="pipes end otherwise there")
def test_help_for_a_reader_that_stops_reading_ends_quietly():
    command = f"{sys.executable} -m egrsd_jax train --help | head -n 1"
    done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.stdout.count("\n"), done.stderr) == (1, "")
