"""One trial of `faults.py`: a small command in a folder of its own, what it leaves, and how it may end."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from egrsd_jax.runs.checksums import checkpoint_steps, damage, recorded_steps  # noqa: E402
from egrsd_jax.runs.lock import holder  # noqa: E402

LIMIT = 900.0  # seconds of one process
STARTS = 12  # of one command until it has to end
STRANGER = "notes.txt"  # in the folder, and not the command's
TRAIN = {
    "train.batch_size": 4,
    "train.micro_batch_size": 4,
    "train.steps": 4,
    "train.checkpoint_every": 1,
    "train.keep_checkpoints": 2,
    "train.sample_every": 1,
    "rollout.samples_per_problem": 2,
    "rollout.max_new_tokens": 16,
    "evaluation.problems": 4,
    "evaluation.samples": 1,
    "evaluation.max_new_tokens": 16,
    "evaluation.every": 2,
}
PLACE = ("--run.dir={folder}", "--run.name=run")
SHORT = ("--problems=8", "--samples=2", "--max_new_tokens=16", "--max_rows=4")
OPTIONS = tuple(f"--{name}={value}" for name, value in TRAIN.items())
COMMANDS = {
    "train, LoRA": ("train", *OPTIONS, "--data.path={data}", *PLACE, "--lora.rank=4"),
    "evaluate": ("evaluate", "--benchmarks=arithmetic", *SHORT, "--to={folder}/run"),
    "train, all weights": ("train", *OPTIONS, "--data.path={data}", *PLACE, "--lora.rank=0"),
    "sample": ("sample", "--file={prompts}", "--to={folder}/run/c.jsonl", "--max_new_tokens=16", "--max_rows=2"),
    "ablate": ("ablate", "{grid}", *PLACE),
}
GRID = {"base": str(ROOT / "configs" / "arithmetic.yaml"), "grid": {"lora.rank": [0, 4]}}
REMEDY = re.compile(
    r"put (it|them|back)|give|wait for|make (room|it)|raise the limit|resumes|move|remove|restart|sampled again"
)
PR_SET_PDEATHSIG = 1


@dataclass
class Trial:
    """One command in a folder of its own, and all that it printed."""

    command: str
    folder: Path
    arguments: list[str]
    start: Callable[..., subprocess.Popen]
    output: str = ""
    codes: list[int] = field(default_factory=list)
    what: list[str] = field(default_factory=list)  # what was done to it, in words
    damaged: str = ""  # of these rows, which are then the only ones that may be missing
    may_lose: int = 0  # how many of them
    writer: subprocess.Popen | None = None  # of what a process with limited files prints

    @property
    def run(self) -> Path:
        """The folder that it writes."""
        return self.folder / "run"

    def begin(self, *, file_size: int = 0) -> subprocess.Popen:
        """Starts the command, whose files can grow to a number of bytes; 0 is no limit. What it prints goes to a file,
        which no reader can hold up; of a limited one by way of a process that has no limit."""
        with (self.folder / "output.txt").open("ab") as log:
            if not file_size:
                return self.start(self.arguments, stdout=log, stderr=subprocess.STDOUT)
            self.writer = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=log)
            assert self.writer.stdin is not None
            with self.writer.stdin as pipe:
                return self.start(self.arguments, stdout=pipe, stderr=subprocess.STDOUT, file_size=file_size)

    def end(self, process: subprocess.Popen) -> int:
        """Waits for a process, and for those that a grid has started."""
        code = process.wait(LIMIT)
        if self.writer is not None:
            self.writer.wait(LIMIT)
            self.writer = None
        began = time.monotonic()
        while any(holder(cell, name) for cell in self.cells() for name in ("claim", "lock")):
            assert time.monotonic() - began < LIMIT, "a cell's process does not end"
            time.sleep(0.1)
        self.codes.append(code)
        outputs = [self.folder / "output.txt", *self.run.glob("*/output.txt")]
        self.output = "".join(file.read_text(errors="replace") for file in reversed(outputs) if file.is_file())
        return code

    def finish(self) -> int:
        """The same command until it ends by itself; its last exit code."""
        for _ in range(STARTS):
            if (code := self.end(self.begin())) >= 0:
                return code
        raise AssertionError(f"it did not end in {STARTS} starts")

    def cells(self) -> list[Path]:
        """The folders of a grid's cells."""
        return sorted(self.run.glob("rank*-seed*/")) if self.command == "ablate" else []

    def last_line(self) -> str:
        """The line with which the command ended; of a grid, in which its last cell failed."""
        lines = self.output.strip().splitlines()
        errors = [line for line in lines if "error:" in line]
        return errors[-1] if self.command == "ablate" and errors else lines[-1]


def prepare(folder: Path, command: str, start: Callable[..., subprocess.Popen]) -> Trial:
    """A new folder with a command's inputs, and a file in it that is not the command's."""
    (folder / "run").mkdir(parents=True)
    (folder / "run" / STRANGER).write_text("mine")
    names = {"data": "data.jsonl", "prompts": "prompts.txt", "grid": "grid.json"}
    inputs = {"folder": folder} | {kind: folder / name for kind, name in names.items()}
    numbers = [(a, b) for a in range(2, 6) for b in range(3, 7)]
    rows = [
        {"problem": f"{a} + {b}", "solution": rf"{a} + {b} = {a + b} ; \boxed{{{a + b}}}", "answer": str(a + b)}
        for a, b in numbers
    ]
    inputs["data"].write_text("".join(json.dumps(row) + "\n" for row in rows))
    inputs["prompts"].write_text("".join(f"{a} + {b}\n" for a, b in numbers[:8]))
    inputs["grid"].write_text(json.dumps(GRID | {"set": TRAIN | {"train.steps": 2, "data.path": str(inputs["data"])}}))
    return Trial(command, folder, [argument.format(**inputs) for argument in COMMANDS[command]], start)


def content(trial: Trial) -> dict[str, Any]:
    """What a command leaves that depends on its settings alone: rows and evaluations without seconds, and arrays."""
    left: dict[str, Any] = {}
    for folder in (trial.run, *trial.cells()):
        place = "" if folder == trial.run else f"{folder.name}/"
        for file in sorted(folder.glob("*.jsonl")):
            rows = [json.loads(line) for line in file.read_bytes().splitlines()]
            left[place + file.name] = sorted(json.dumps(_timeless(row), sort_keys=True) for row in rows)
        for file in [*folder.glob("evaluation_step*.json"), *folder.glob("results.json")]:
            left[place + file.name] = _timeless(json.loads(file.read_bytes()))
        checkpoints = folder / "checkpoints"
        if steps := recorded_steps(checkpoints):
            wrong = damage(checkpoints, steps[-1])
            left[f"{place}checkpoints"] = wrong or _arrays(checkpoints / str(checkpoint_steps(checkpoints)[-1]))
    return left


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        changing = "seconds|programs|label|free"
        return {name: _timeless(inner) for name, inner in value.items() if not re.match(changing, name)}
    return [_timeless(inner) for inner in value] if isinstance(value, list) else value


def _arrays(checkpoint: Path) -> dict[str, str]:
    """Every array's bytes in hexadecimal, as orbax reads them."""
    import jax  # imported late: only checkpoints need it
    import numpy as np
    from orbax.checkpoint import v1 as ocp

    state: Any = ocp.load(str(checkpoint))
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return {jax.tree_util.keystr(path): np.asarray(leaf).tobytes().hex() for path, leaf in leaves}


def verdict(trial: Trial, code: int, wanted: dict[str, Any]) -> str:
    """`same`, `refused` or `named`, where rows of the file that was damaged are missing, which is said, and all else is
    the same. Raises AssertionError for every other end."""
    assert "Traceback" not in trial.output, "a traceback"
    assert (trial.run / STRANGER).read_text() == "mine", f"{STRANGER} is gone"
    if code != 0:
        assert code in (1, 2), f"exit code {code}"
        check_refusal(trial)
        return "refused"
    left = content(trial)
    different = [name for name in wanted.keys() | left.keys() if wanted.get(name) != left.get(name)]
    if not different:
        return "same"
    if trial.cells() and all(isinstance(left.get(name), str) for name in different):
        return "refused"  # a checkpoint of a cell that is done, which a grid reads no more: all that does refuses it
    for name in different:
        assert name == trial.damaged, f"{name} is another, and nothing was done to it"
        assert Path(name).name in trial.output, f"{name} is another, and nothing says so"
        rows = left.get(name, [])
        assert isinstance(rows, list), f"{name} is another"
        assert set(rows) <= set(wanted.get(name, ())), f"{name} has rows that were never written"
        lost = len(wanted[name]) - len(rows)
        assert lost <= trial.may_lose, f"{name} has lost {lost} rows, and {trial.may_lose} could be damaged"
    return "named"


def check_refusal(trial: Trial) -> None:
    """Raises AssertionError where the last line does not say what is wrong, with which file, and how to fix it."""
    last = trial.last_line()
    assert "error:" in last, f"it ended with {trial.codes[-1]} and: {last}"
    assert str(trial.folder) in last, f"the refusal names no file: {last}"
    assert REMEDY.search(last), f"the refusal has no remedy: {last}"


def signalled(trial: Trial, number: signal.Signals, moment: Iterator[bool]) -> int:
    """Starts the command and sends a signal when its moment has come; its exit code."""
    process = trial.begin()
    wait_for(process, moment)
    process.send_signal(number)
    return trial.end(process)


def wait_for(process: subprocess.Popen, moment: Iterator[bool]) -> None:
    """Returns when a moment has come, or the process has ended."""
    while process.poll() is None and not next(moment):
        time.sleep(0.002)


SITE = f"""
import importlib.machinery as machinery, os, resource
find = machinery.PathFinder.find_spec
machinery.PathFinder.find_spec = lambda name, *rest: None if name.partition(".")[0] == "torch" else find(name, *rest)
if os.environ.get("FAULTS_PARENT") == str(os.getppid()):
    try:
        import ctypes
        ctypes.CDLL(None).prctl({PR_SET_PDEATHSIG}, {int(signal.SIGKILL)})
    except (OSError, AttributeError):
        pass
    if size := int(os.environ.get("FAULTS_FILE_SIZE", 0)):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
"""


def starter(folder: Path) -> Callable[..., subprocess.Popen]:
    """How a command is started: as a user starts it, with compiled programs shared between the trials.

    A module that Python reads first hides torch, which the project does not need and whose import takes longer than all
    else; ends the process with a campaign that is killed; and limits the size of files.
    """
    site = folder / "site"
    site.mkdir(parents=True, exist_ok=True)
    (site / "sitecustomize.py").write_text(SITE)
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(folder / "programs"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONPATH": str(site),
        "FAULTS_PARENT": str(os.getpid()),
    }

    def start(arguments: Sequence[str], *, file_size: int = 0, **options: Any) -> subprocess.Popen:
        command = [sys.executable, str(ROOT / "launch" / f"{arguments[0]}.py"), *arguments[1:]]
        return subprocess.Popen(command, env={**environment, "FAULTS_FILE_SIZE": str(file_size)}, **options)

    return start
