"""Faults on purpose: what becomes of a run, an evaluation or completions that something happens to.

    python benchmarks/faults.py --seed 0 --trials 100          # an hour or two on two cores
    python benchmarks/faults.py --seed 0 --trials 10 --only damage

A trial starts a small command, does something to it (SIGKILL, Ctrl-C, SIGTERM, a full disk, a second command on the
same folder, a damaged file, other inputs), and starts the same command again until it ends or refuses. It must end in
one of three ways: the `same` numbers bit for bit as without the fault; `refused`, in one line that names a file and how
to fix it; or `named`, where a damaged row or evaluation is set aside with a line that says so and all else is the same.
A traceback, a stranger's file that is gone, or any other end is a failure, and the exit code is their number.
"""

import argparse
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from egrsd_jax.runs.checksums import checkpoint_steps  # noqa: E402

LIMIT = 900.0  # seconds of one process
STARTS = 12  # of one command until it has to end
STRANGER = "notes.txt"  # in the folder, and not the command's
TRAIN = (
    *("--train.batch_size=4", "--train.micro_batch_size=4", "--train.checkpoint_every=2", "--train.sample_every=1"),
    *(
        "--train.keep_checkpoints=2",
        "--train.steps=6",
        "--rollout.samples_per_problem=2",
        "--rollout.max_new_tokens=16",
    ),
    *("--evaluation.problems=4", "--evaluation.samples=1", "--evaluation.max_new_tokens=16", "--evaluation.every=3"),
    *("--data.path={data}", "--run.dir={folder}", "--run.name=run"),
)
SHORT = ("--problems=8", "--samples=2", "--max_new_tokens=16", "--max_rows=4")
COMMANDS = {
    "train, LoRA": ("train", *TRAIN, "--lora.rank=4"),
    "train, all weights": ("train", *TRAIN, "--lora.rank=0"),
    "evaluate": ("evaluate", "--benchmarks=arithmetic", *SHORT, "--to={folder}/run"),
    "sample": ("sample", "--file={prompts}", "--to={folder}/run/c.jsonl", "--max_new_tokens=16", "--max_rows=2"),
}
REMEDY = re.compile(
    r"put (it|them|back)|give|wait for|make room|raise the limit|resumes|move|remove|restart|sampled again"
)


@dataclass
class Trial:
    """One command in a folder of its own, and all that it printed."""

    command: str
    folder: Path
    arguments: list[str]
    start: Callable[..., subprocess.Popen]
    output: str = ""
    codes: list[int] = field(default_factory=list)

    @property
    def run(self) -> Path:
        """The folder that it writes."""
        return self.folder / "run"

    def begin(self, **options: Any) -> subprocess.Popen:
        """Starts the command; what it prints goes to a file, which no reader can hold up."""
        log = (self.folder / "output.txt").open("ab")
        return self.start(self.arguments, stdout=log, stderr=subprocess.STDOUT, **options)

    def end(self, process: subprocess.Popen) -> int:
        """Waits for a process."""
        code = process.wait(LIMIT)
        self.codes.append(code)
        self.output = (self.folder / "output.txt").read_text(errors="replace")
        return code

    def finish(self, *, more: Sequence[str] = ()) -> int:
        """The same command until it ends by itself; its last exit code."""
        self.arguments += more
        for _ in range(STARTS):
            if (code := self.end(self.begin())) >= 0:
                return code
        raise AssertionError(f"it did not end in {STARTS} starts")


def strike(trial: Trial, rng: random.Random) -> None:
    """One to three SIGKILLs, each at a random moment: of the start, or after something has appeared in the folder."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        _signalled(trial, rng, signal.SIGKILL)


def interrupt(trial: Trial, rng: random.Random) -> None:
    """Ctrl-C or SIGTERM at a random moment, the first seconds included: its own exit code, and one line."""
    number = rng.choice((signal.SIGINT, signal.SIGTERM))
    code = _signalled(trial, rng, number)
    assert code in (0, 128 + number) or (code == -number and not trial.output), f"{number.name}: exit code {code}"
    if code == 128 + number:
        assert "stopped" in trial.output.splitlines()[-1], "it was stopped and did not say so"


def fill(trial: Trial, rng: random.Random) -> None:
    """A file cannot grow beyond a size: what a full disk is where no small file system can be mounted."""
    size = rng.choice((1000, 4000, 20_000, 60_000, 200_000))
    code = trial.end(trial.begin(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))))
    assert code in (0, 1), f"a file of at most {size} bytes: exit code {code}"
    if code:
        last = trial.output.strip().splitlines()[-1]
        assert "error:" in last, last
        assert REMEDY.search(last), last


def fill_disk(trial: Trial, rng: random.Random) -> None:
    """A small tmpfs that is full at a random moment; room is made afterwards."""
    megabytes = rng.choice((1, 2, 3, 5, 8))
    trial.run.rename(trial.folder / "aside")
    trial.run.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(trial.run)]
    subprocess.run(mount, check=True)
    try:
        for file in (trial.folder / "aside").iterdir():
            shutil.copy2(file, trial.run)
        code = trial.end(trial.begin())
        assert code in (0, 1), f"a disk of {megabytes} MB: exit code {code}"
        if code:
            last = trial.output.strip().splitlines()[-1]
            assert "error:" in last, last
            assert REMEDY.search(last), last
        subprocess.run(["mount", "-o", "remount,size=200m", str(trial.run)], check=True)
        trial.finish()
        shutil.rmtree(trial.folder / "aside")
        shutil.copytree(trial.run, trial.folder / "aside")
    finally:
        subprocess.run(["umount", str(trial.run)], check=True)
        trial.run.rmdir()
        (trial.folder / "aside").rename(trial.run)


def damage(trial: Trial, rng: random.Random) -> None:
    """The command ends, or is killed half-way; then one file that it left is truncated, zeroed, has a bit flipped or a
    line doubled, or is gone."""
    if rng.random() < 0.5:
        trial.finish()
    else:
        _signalled(trial, rng, signal.SIGKILL)
    files = sorted(file for file in trial.run.rglob("*") if file.is_file() and file.name != STRANGER)
    files = [file for file in files if "tensorboard" not in file.parts]
    if not files:
        return
    file, how = rng.choice(files), rng.choice(("truncated", "zeroed", "bit flipped", "gone", "line doubled"))
    content = file.read_bytes()
    place = rng.randrange(max(len(content), 1))
    if how == "truncated":
        file.write_bytes(content[:place])
    elif how == "zeroed":
        file.write_bytes(bytes(len(content)))
    elif how == "bit flipped" and content:
        file.write_bytes(content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :])
    elif how == "gone":
        file.unlink()
    elif lines := content.splitlines(keepends=True):
        number = rng.randrange(len(lines))
        file.write_bytes(b"".join([*lines[: number + 1], *lines[number:]]))
    trial.output += f"[{file.relative_to(trial.run)}: {how}]\n"


def double(trial: Trial, rng: random.Random) -> None:
    """The same command twice at once: one of them does the work, and the other is refused and names it."""
    first = trial.begin()
    time.sleep(rng.uniform(0.0, 2.0))
    codes = sorted(trial.end(process) for process in (first, trial.begin()))
    assert codes in ([0, 0], [0, 2]), f"exit codes {codes}"
    if codes == [0, 2]:
        assert "is being written by" in trial.output, "the second was refused for another reason"


def change(trial: Trial, rng: random.Random) -> None:
    """A row of the data, or a setting, is another when the command is started again; then it is put back."""
    _signalled(trial, rng, signal.SIGKILL)
    has_begun = any(trial.run.rglob("config.yaml")) or any(trial.run.rglob("*.jsonl*"))
    kind = "data" if trial.command.startswith("train") and rng.random() < 0.5 else "setting"
    data, kept = trial.folder / "data.jsonl", [*trial.arguments]
    rows = data.read_bytes()
    if kind == "data":
        data.write_bytes(rows.replace(b'"problem": "', b'"problem": "1 + ', 1))
    else:
        trial.arguments.append("--seed=7")
    code = trial.end(trial.begin(timeout=None)) if has_begun else 2
    trial.arguments = kept
    data.write_bytes(rows)
    assert code == 2, f"another {kind}: exit code {code}"


FAULTS: dict[str, Callable[[Trial, random.Random], None]] = {
    "kill": strike,
    "signal": interrupt,
    "file size": fill,
    "disk": fill_disk,
    "damage": damage,
    "two at once": double,
    "changed": change,
}


def _signalled(trial: Trial, rng: random.Random, number: signal.Signals) -> int:
    """Starts the command and sends a signal at a random moment; its exit code."""
    process = trial.begin()
    before = len(_files(trial.run))
    when = rng.choice(("start", "file", "file", "file"))
    count, wait = rng.randrange(1, 60), rng.uniform(0, 5)
    began = time.monotonic()
    while process.poll() is None and time.monotonic() - began < LIMIT:
        passed = time.monotonic() - began
        if passed > wait if when == "start" else len(_files(trial.run)) - before >= count or passed > 120:
            break
        time.sleep(0.002)
    process.send_signal(number)
    return trial.end(process)


def _files(folder: Path) -> list[str]:
    return [name for _, _, names in os.walk(folder) for name in names]


def content(trial: Trial) -> dict[str, Any]:
    """What a command leaves that depends on its settings alone: rows and evaluations without seconds, and arrays."""
    left: dict[str, Any] = {}
    for file in sorted(trial.run.glob("*.jsonl")):
        rows = [json.loads(line) for line in file.read_bytes().splitlines()]
        left[file.name] = sorted(json.dumps(_timeless(row), sort_keys=True) for row in rows)
    for file in [*trial.run.glob("evaluation_step*.json"), *trial.run.glob("results.json")]:
        left[file.name] = _timeless(json.loads(file.read_bytes()))
    if steps := checkpoint_steps(trial.run / "checkpoints"):
        left["checkpoint"] = _arrays(trial.run / "checkpoints" / str(steps[-1]))
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
    """`same`, `refused` or `named`. Raises AssertionError for every other end."""
    assert "Traceback" not in trial.output, "a traceback"
    assert (trial.run / STRANGER).read_text() == "mine", f"{STRANGER} is gone"
    last = trial.output.strip().splitlines()[-1]
    if code != 0:
        assert code in (1, 2), f"exit code {code}"
        assert "error:" in last, f"it ended with {code} and: {last}"
        assert str(trial.folder) in last, f"the refusal names no file: {last}"
        assert REMEDY.search(last), f"the refusal has no remedy: {last}"
        return "refused"
    left = content(trial)
    different = [name for name in wanted.keys() | left.keys() if wanted.get(name) != left.get(name)]
    if not different:
        return "same"
    for name in different:
        assert name in trial.output, f"{name} is another, and nothing says so"
        if isinstance(left.get(name), list):
            assert set(left[name]) <= set(wanted.get(name, ())), f"{name} has rows that were never written"
        else:
            assert name not in left, f"{name} is another"
    return "named"


def prepare(folder: Path, command: str, start: Callable[..., subprocess.Popen]) -> Trial:
    """A new folder with a command's inputs, and a file in it that is not the command's."""
    (folder / "run").mkdir(parents=True)
    (folder / "run" / STRANGER).write_text("mine")
    inputs = {"folder": folder, "data": folder / "data.jsonl", "prompts": folder / "prompts.txt"}
    numbers = [(a, b) for a in range(2, 6) for b in range(3, 7)]
    rows = [
        {"problem": f"{a} + {b}", "solution": rf"{a} + {b} = {a + b} ; \boxed{{{a + b}}}", "answer": str(a + b)}
        for a, b in numbers
    ]
    inputs["data"].write_text("".join(json.dumps(row) + "\n" for row in rows))
    inputs["prompts"].write_text("".join(f"{a} + {b}\n" for a, b in numbers[:8]))
    return Trial(command, folder, [argument.format(**inputs) for argument in COMMANDS[command]], start)


def campaign(
    folder: Path,
    seed: int,
    trials: int,
    faults: Sequence[str],
    start: Callable[..., subprocess.Popen],
    commands: Sequence[str] = tuple(COMMANDS),
) -> Iterator[tuple[str, str, str, str]]:
    """Yields (fault, command, verdict, output) of every trial; a verdict that begins with `FAILED` is one."""
    rng, wanted = random.Random(seed), {}
    for number in range(trials):
        fault, command = faults[number % len(faults)], rng.choice([*commands])
        if command not in wanted:
            reference = prepare(folder / f"reference{len(wanted)}", command, start)
            assert reference.finish() == 0, reference.output
            wanted[command] = content(reference)
        trial = prepare(folder / f"trial{number}", command, start)
        try:
            FAULTS[fault](trial, random.Random(f"{seed} {number}"))
            end = verdict(trial, trial.finish(), wanted[command])
            shutil.rmtree(trial.folder)
        except (AssertionError, subprocess.TimeoutExpired) as failure:
            end = f"FAILED: {failure} ({trial.folder})"
        yield fault, command, end, trial.output


def start_with_cache(cache: Path) -> Callable[..., subprocess.Popen]:
    """How a command is started: as a user starts it, with programs shared between the trials."""
    shared = {"JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", **shared}

    def start(arguments: Sequence[str], **options: Any) -> subprocess.Popen:
        options.pop("timeout", None)
        launcher = str(ROOT / "launch" / f"{arguments[0]}.py")
        return subprocess.Popen([sys.executable, launcher, *arguments[1:]], env=environment, **options)

    return start


def main() -> None:
    """Arguments to one campaign, a line per trial, and a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument(
        "--only", choices=FAULTS, nargs="+", help="faults; all, without `disk` where nothing can be mounted"
    )
    parser.add_argument("--folder", type=Path, help="kept; by default a temporary one")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="faults_"))
    faults = given.only or [name for name in FAULTS if name != "disk" or os.geteuid() == 0]
    counts: Counter[tuple[str, str]] = Counter()
    for number, (fault, command, end, _) in enumerate(
        campaign(folder, given.seed, given.trials, faults, start_with_cache(folder / "programs"))
    ):
        print(f"{number:4} {fault:12} {command:20} {end}", flush=True)
        counts[fault, end.partition(":")[0]] += 1
    print("\n| fault | trials | same | refused | named | failed |\n|---|---|---|---|---|---|")
    for fault in faults:
        ends = [counts[fault, end] for end in ("same", "refused", "named", "FAILED")]
        print(f"| {fault} | {sum(ends)} | {' | '.join(map(str, ends))} |")
    raise SystemExit(min(99, sum(count for (_, end), count in counts.items() if end == "FAILED")))


if __name__ == "__main__":
    main()
