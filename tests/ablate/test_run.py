"""Running a grid with substitutes for train.py and evaluate.py: done, failed, killed, resumed, shared."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from egrsd_jax.ablate.grid import Grid, read_grid
from egrsd_jax.ablate.progress import GridProgress
from egrsd_jax.ablate.run import run_grid
from egrsd_jax.ablate.state import check_folders, read_failure, settings_that_differ, state_of
from egrsd_jax.runs.lock import FolderGone

ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / "configs/arithmetic.yaml"
# What the commands write as far as grids read it; `broken` in a name fails, `mute` writes nothing, `slow` takes long.
COMMANDS = """
import sys, time, yaml
from dataclasses import asdict
from pathlib import Path
name, *arguments = sys.argv[1:]
if name == "evaluate":
    to = Path(arguments[arguments.index("--to") + 1])
    to.mkdir()
    (to / "arguments").write_text(" ".join(arguments))
    (to / "results.json").write_text("{}")
    sys.exit()
from egrsd_jax.command_line import parse_config
config = parse_config(arguments, program="train.py", description=None)
folder = Path(config.run.dir) / config.run.name
(folder / "starts").open("a").write("x")
if "broken" in folder.name and not (folder / "mended").exists():
    sys.exit("no such model")
(folder / "config.yaml").write_text(yaml.safe_dump(asdict(config)))
if "slow" in folder.name and not (folder / "mended").exists():
    (folder / "checkpoints/1").mkdir(parents=True)
    (folder / "checkpoints/1/commit_success.txt").touch()
    time.sleep(600)
from egrsd_jax.runs.rows import append_rows, heal
if not heal(folder / "metrics.jsonl", ("step",)).rows:
    append_rows(folder / "metrics.jsonl", [{"step": 0}, {"step": 1}])
if "mute" not in folder.name:
    (folder / f"evaluation_step{config.train.steps}.json").write_text("{}")
"""


@pytest.fixture
def home(tmp_path) -> Path:
    (tmp_path / "commands.py").write_text(COMMANDS)
    return tmp_path


def grid(folder: Path, cells: str, *options: str, more: str = "") -> Grid:
    file = folder / "mine.yaml"
    file.write_text(f"base: {BASE}\nset: {{train.steps: 3}}\ncells: {cells}\n{more}")
    return read_grid(file, ["--run.dir", str(folder), *options])


def run(found: Grid, home: Path, jobs: int = 2) -> int:
    with GridProgress(len(found.cells), jobs) as progress:
        return run_grid(found, progress, jobs=jobs, command=[sys.executable, str(home / "commands.py")])


def states(found: Grid) -> dict[str, str]:
    return {cell.arm: state_of(found, cell).kind for cell in found.cells}


def starts(found: Grid) -> dict[str, int]:
    return {cell.arm: len((found.folder_of(cell) / "starts").read_text()) for cell in found.cells}


@pytest.mark.slow
def test_a_failed_cell_is_recorded_stops_no_other_and_is_tried_again_by_the_same_command(home, capsys):
    found = grid(home, "{a: {}, broken: {}, mute: {}, b: {}}")
    assert set(states(found).values()) == {"waiting"}
    assert run(found, home) == 2
    assert states(found) == {"a": "done", "broken": "failed", "mute": "failed", "b": "done"}
    folder = found.folder_of(found.cells[1])
    failure = read_failure(folder)
    assert failure is not None
    assert (failure["exit_code"], failure["output"]) == (1, "no such model")
    assert state_of(found, found.cells[1]).note == "exit code 1: no such model"
    assert "wrote no evaluation_step3.json" in state_of(found, found.cells[2]).note
    assert starts(found) == {"a": 1, "broken": 1, "mute": 1, "b": 1}
    assert "2 done, 2 failed of 4 cells" in " ".join(capsys.readouterr().out.split())

    (folder / "mended").touch()
    assert run(found, home) == 1
    assert starts(found) == {"a": 1, "broken": 2, "mute": 2, "b": 1}
    assert states(found)["broken"] == "done"
    assert read_failure(folder) is None
    assert list(found.folder.glob("*/claim*")) == []


@pytest.mark.slow
def test_a_killed_grid_takes_its_processes_along_and_goes_on(home):
    found = grid(home, "{a: {}, slow: {}, b: {}}")
    process = elsewhere(home)
    child = json.loads((found.folder / "slow-seed0/claim0.json").read_bytes())["child"]
    assert run(found, home) == 0  # another process joins, does what is free, and leaves the rest
    assert states(found) == {"a": "done", "slow": "running", "b": "done"}
    process.kill()
    process.wait()
    if sys.platform != "linux":  # elsewhere a child outlives its parent
        os.kill(child, signal.SIGKILL)
    wait_until(lambda: states(found)["slow"] == "begun")
    assert state_of(found, found.cells[1]).note == "step 1 of 3"
    (found.folder / "slow-seed0/mended").touch()
    assert run(found, home) == 0
    assert states(found) == {"a": "done", "slow": "done", "b": "done"}
    assert starts(found) == {"a": 1, "slow": 2, "b": 1}


@pytest.mark.slow
def test_an_interrupted_grid_stops_its_processes_and_gives_cells_back(home):
    found = grid(home, "{a: {}, slow: {}, b: {}}")
    process = elsewhere(home)
    child = json.loads((found.folder / "slow-seed0/claim0.json").read_bytes())["child"]
    process.send_signal(signal.SIGINT)
    process.wait()
    assert list(found.folder.glob("*/claim*")) == []
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    assert states(found) == {"a": "done", "slow": "begun", "b": "waiting"}


@pytest.mark.slow
def test_damaged_rows_of_a_cell_that_is_done_are_found_and_set_aside_by_its_training(home):
    found = grid(home, "{a: {}, b: {}}")
    assert run(found, home) == 0
    rows = found.folder_of(found.cells[0]) / "metrics.jsonl"
    rows.write_bytes(rows.read_bytes().replace(b"1", b"7"))
    assert states(found) == {"a": "begun", "b": "done"}
    assert run(found, home) == 0
    assert states(found) == {"a": "done", "b": "done"}
    assert starts(found) == {"a": 2, "b": 1}
    assert rows.with_name("metrics.jsonl.damaged").read_text() == '{"step": 7}\n'
    (found.folder_of(found.cells[1]) / ".evaluation_step1.json.crc").write_text("01234567\n")  # and no evaluation
    assert states(found) == {"a": "done", "b": "begun"}


@pytest.mark.slow
def test_a_grid_whose_folder_is_gone_begins_nothing_in_its_place(home, monkeypatch):
    found, away = grid(home, "{slow: {}, b: {}}"), home / "away"
    monkeypatch.setattr(GridProgress, "show", lambda *_: away.exists() or found.folder.rename(away))
    with pytest.raises(FolderGone, match=f"^{found.folder} is no longer the folder of this grid: .*; bring it back"):
        run(found, home, jobs=1)
    assert not found.folder.exists()
    away.rename(found.folder)
    assert list(found.folder.glob("b-seed0/*")) == []


def test_benchmarks_follow_the_training_and_are_not_drawn_twice(home):
    more = "evaluate: {benchmarks: [aime24, minerva], samples: 2, thinking: false, steps: [2, 3]}"
    found = grid(home, "{a: {train.checkpoint_every: 1}}", more=more)
    assert run(found, home) == 0
    folder = found.folder / "a-seed0"
    assert (folder / "benchmarks_step2/arguments").read_text() == (
        f"--run {folder} --step 2 --to {folder}/benchmarks_step2 --benchmarks aime24 minerva --samples 2 --no-thinking"
    )
    (folder / "benchmarks_step3/results.json").unlink()
    (folder / "benchmarks_step3/arguments").unlink()
    (folder / "benchmarks_step3").rmdir()
    assert states(found) == {"a": "begun"}
    assert run(found, home) == 0
    assert starts(found) == {"a": 1}
    assert states(found) == {"a": "done"}


def test_a_folder_that_was_begun_with_other_settings_is_refused(home):
    run(grid(home, "{a: {}}"), home)
    check_folders(grid(home, "{a: {}}", "--train.steps", "5"))  # more steps resume from there
    with pytest.raises(ValueError, match=r"a-seed0 was begun with other settings: method.gamma was 0.3 and is 0.5"):
        check_folders(grid(home, "{a: {}}", "--method.gamma", "0.5"))
    with pytest.raises(ValueError, match=r"it is at step 3, and train\.steps is 2"):
        check_folders(grid(home, "{a: {}}", "--train.steps", "2"))


def test_a_configuration_of_a_run_that_cannot_be_read_is_one_line(tmp_path):
    (tmp_path / "mine.yaml").write_text("base: arithmetic\nset: {evaluation.path: arithmetic}\n")
    [cell] = read_grid(tmp_path / "mine.yaml").cells
    for content, message in ((b"train: 3\n", "train is 3; it must be a mapping"), (b"\xff", "is not UTF-8 text")):
        (tmp_path / "config.yaml").write_bytes(content)
        [line] = settings_that_differ(tmp_path, cell)
        assert line.startswith("its config.yaml is no run's: ")
        assert message in line


def elsewhere(home: Path) -> subprocess.Popen:
    """The same grid in another process, which has come to its slow cell."""
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "  # where the tests ignore it
        "from pathlib import Path; from egrsd_jax.ablate.grid import read_grid; "
        "from egrsd_jax.ablate.run import run_grid; from egrsd_jax.ablate.progress import GridProgress; "
        f"grid = read_grid(Path({str(home / 'mine.yaml')!r}), ['--run.dir', {str(home)!r}]); "
        f"run_grid(grid, GridProgress(3), command=[sys.executable, {str(home / 'commands.py')!r}])"
    )
    quiet = subprocess.DEVNULL
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=quiet, stderr=quiet)
    wait_until(lambda: (home / "mine/slow-seed0/checkpoints/1").exists())
    return process


def wait_until(holds) -> None:
    for _ in range(300):
        if holds():
            return
        time.sleep(0.1)
    raise AssertionError("it did not come about in 30 seconds")
