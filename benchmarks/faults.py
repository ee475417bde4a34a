"""Faults on purpose: what becomes of a run, an evaluation, completions or a grid that something happens to.

    python benchmarks/faults.py --seed 0 --trials 100 --folder /tmp/faults               # half an hour on one core
    python benchmarks/faults.py --seed 0 --trials 100 --folder /tmp/faults --minutes 5   # in pieces: resume, and stop
    python benchmarks/faults.py --seed 0 --trials 20 --only damage --commands evaluate

A trial starts a small command, does something to it (SIGKILL, Ctrl-C, SIGTERM, a full, read-only or vanished disk, a
second command on the same folder, a damaged file, other inputs), and starts the same command again until it ends or
refuses. It must end in one of three ways: the `same` numbers bit for bit as without the fault; `refused`, in one line
that names a file and how to fix it; or `named`, where rows of the file that was damaged are missing, no more than were
damaged, a line says so, and all else is the same. A traceback, a stranger's file that is gone, or any other end is a
failure, and the exit code is their number.

Faults and commands take turns in a fixed order, so that the beginning of a campaign has some of each, and a trial's
random numbers depend on the seed and its number. What each ended in is added to `results.jsonl` in the folder at once:
a campaign that was stopped resumes there, and `--again` repeats the trials that failed.
"""

import argparse
import json
import math
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.fault_kinds import can_mount, faults, unmount_under
from benchmarks.fault_trial import COMMANDS, content, prepare, starter, verdict

ORDER = (  # kills and damage more often than the others: there is most that can be hit
    *("kill", "damage", "signal", "full disk", "two at once", "damage", "file size", "kill", "read-only disk"),
    *("damage", "changed", "vanished disk"),
)
ENDS = ("same", "refused", "named", "FAILED")


class Planned(NamedTuple):
    """A trial that is to be: its number, the fault, how many of this fault came before it, and the command."""

    number: int
    fault: str
    turn: int
    command: str


class Ended(NamedTuple):
    """A trial that was: `what` was done and `end`, which begins with one of `ENDS`; `output` is all that it printed."""

    planned: Planned
    what: str
    end: str
    output: str


def plan(trials: int, order: Sequence[str], commands: Sequence[str]) -> list[Planned]:
    """The trials of a campaign: every fault with every command, in turns."""
    together, turns, planned = math.lcm(len(order), len(commands)), dict.fromkeys(order, 0), []
    for number in range(trials):
        fault = order[number % len(order)]
        # after `together` trials the turns would repeat themselves: they are shifted by one
        command = commands[(number + number // together) % len(commands)]
        planned.append(Planned(number, fault, turns[fault], command))
        turns[fault] += 1
    return planned


def campaign(
    folder: Path, seed: int, planned: Sequence[Planned], start: Callable[..., subprocess.Popen], *, mounts: bool
) -> Iterator[Ended]:
    """Yields every trial as it ends. `references` in the folder has what each command leaves without a fault."""
    kinds = faults(mounts=mounts)
    for trial_planned in planned:
        number, fault, turn, command = trial_planned
        wanted = _reference(folder, command, start)
        trial = prepare(_free(folder / "trial"), command, start)
        try:
            kinds[fault](trial, random.Random(f"{seed} {number}"), turn)
            end = verdict(trial, trial.finish(), wanted)
            shutil.rmtree(trial.folder)
        except (AssertionError, subprocess.SubprocessError, OSError, ValueError) as failure:
            kept = _moved(trial.folder, folder / f"failed{number}")
            end = f"FAILED: {failure} ({kept})"
        yield Ended(trial_planned, "; ".join(trial.what), end, trial.output)


def _reference(folder: Path, command: str, start: Callable[..., subprocess.Popen]) -> dict[str, Any]:
    """What a command leaves that nothing happens to. It is made where the trials are, so that all paths are theirs."""
    kept = folder / "references" / command
    file = kept.with_name(f"{command}.json")
    if not file.is_file():
        shutil.rmtree(kept, ignore_errors=True)
        reference = prepare(_free(folder / "trial"), command, start)
        assert reference.finish() == 0, reference.output
        wanted = content(reference)
        kept.parent.mkdir(exist_ok=True)
        reference.run.rename(kept)
        shutil.rmtree(reference.folder)
        file.write_text(json.dumps(wanted))
    return json.loads(file.read_bytes())


def _free(place: Path) -> Path:
    """The place, after what a killed campaign left there is gone."""
    if place.exists():
        unmount_under(place)
        shutil.rmtree(place)
    return place


def _moved(folder: Path, to: Path) -> Path:
    unmount_under(folder)
    shutil.rmtree(to, ignore_errors=True)
    return folder.rename(to)


def table(ends: Sequence[tuple[str, str]]) -> str:
    """How often a fault, or a command, came to which end: rows of (name, end)."""
    lines = []
    for name in dict.fromkeys(name for name, _ in ends):
        own = [end for other, end in ends if other == name]
        counts = [sum(end.startswith(kind) for end in own) for kind in ENDS]
        lines.append(f"| {name} | {len(own)} | {' | '.join(map(str, counts))} |")
    return "\n".join(lines)


def main() -> None:
    """Arguments to one campaign or a piece of it, a line per trial, and tables."""
    mounts = can_mount()
    names = [name for name in dict.fromkeys(ORDER) if name in faults(mounts=mounts)]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--only", choices=names, nargs="+", metavar="FAULT", help=f"{', '.join(names)}; all of them")
    parser.add_argument("--commands", choices=COMMANDS, nargs="+", metavar="COMMAND", help=f"{', '.join(COMMANDS)}")
    parser.add_argument("--folder", type=Path, help="kept, and resumed in; by default a temporary one")
    parser.add_argument("--minutes", type=float, default=math.inf, help="after which no trial begins; no limit")
    parser.add_argument("--again", action="store_true", help="repeat the trials that failed")
    given = parser.parse_args()
    folder = (given.folder or Path(tempfile.mkdtemp(prefix="faults_"))).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    order = [fault for fault in ORDER if fault in (given.only or names)]
    planned = plan(given.trials, order, given.commands or [*COMMANDS])
    results = folder / "results.jsonl"
    done = (
        {row["number"]: row for row in map(json.loads, results.read_text().splitlines())} if results.is_file() else {}
    )
    if any(row["seed"] != given.seed or [*planned[row["number"]]] != row["planned"] for row in done.values()):
        parser.error(f"{folder} has a campaign with other options; give those, or another --folder")
    if given.again:
        done = {number: row for number, row in done.items() if not row["end"].startswith("FAILED")}
    left, began = [trial for trial in planned if trial.number not in done], time.monotonic()
    ended = campaign(folder, given.seed, left, starter(folder), mounts=mounts)
    while len(done) < len(planned) and time.monotonic() - began < 60 * given.minutes:
        started = time.monotonic()
        trial, what, end, _ = next(ended)
        seconds = round(time.monotonic() - started, 1)
        row = {"seed": given.seed, "number": trial.number, "planned": [*trial]}
        done[trial.number] = row | {"what": what, "end": end, "seconds": seconds}
        with results.open("a") as file:
            file.write(json.dumps(done[trial.number]) + "\n")
        print(f"{trial.number:4} {trial.fault:15} {trial.command:20} {seconds:5.1f} s  [{what}]  {end}", flush=True)
    rows = [done[number] for number in sorted(done)]
    for column, place in (("fault", 1), ("command", 3)):
        print(f"\n| {column} | trials | same | refused | named | failed |\n|---|---|---|---|---|---|")
        print(table([(row["planned"][place], row["end"]) for row in rows]))
    print(f"\n{len(rows)} of {len(planned)} trials")
    raise SystemExit(min(99, sum(row["end"].startswith("FAILED") for row in rows)))


if __name__ == "__main__":
    main()
