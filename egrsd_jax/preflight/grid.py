"""What a grid of runs costs and whether it can start, before a machine is rented: data, templates, lengths, memory,
disk, number of runs, hours. Nothing is trained, and no weights are read."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from egrsd_jax.config import Config
from egrsd_jax.data.tokenizer import load_tokenizer
from egrsd_jax.model.config import ModelConfig
from egrsd_jax.model.hf.hub import resolve_folder
from egrsd_jax.objective.methods import METHODS
from egrsd_jax.objective.settings import privilege
from egrsd_jax.plan.estimate import (
    EFFICIENCY,
    Estimate,
    Lengths,
    Machine,
    checkpoint_bytes,
    estimate,
    evaluation_seconds,
)
from egrsd_jax.plan.shapes import model_shape
from egrsd_jax.preflight.checks import turns as turn_checks
from egrsd_jax.preflight.checks.line import Line
from egrsd_jax.preflight.templates import read_turns
from egrsd_jax.preflight.write import COLOURS
from egrsd_jax.train.problems import encode_fitting, needs_solution, read_problems

PLANNED = Lengths(512, 4096, 0)  # prompts where the data cannot be read here: those that launch/plan.py takes


@dataclass(frozen=True)
class Run:
    """A cell of a grid: its name, its configuration, whether it is done, samples that it is evaluated on in addition to
    those of training, and how many of them are decoded at once."""

    name: str
    config: Config
    done: bool
    samples: int = 0
    rows: int = 16


class Inputs(NamedTuple):
    """What the runs of one data set, model and prompts have in common: mean and greatest tokens of their prompts, and
    lines on what was checked."""

    mean: Lengths
    longest: Lengths
    lines: list[Line]


def dry_run(runs: Sequence[Run], machines: Sequence[Machine], folder: Path, evaluated_tokens: int) -> bool:
    """Checks and prints everything; returns whether the grid can start and fits the machines named."""
    console = Console(highlight=False)
    checked = {key: _inputs(config) for key, config in {_key(run.config): run.config for run in runs}.items()}
    for table in _input_tables(runs, checked):
        console.print(table)
    fine = all(line.judgement != "stop" for inputs in checked.values() for line in inputs.lines)
    left = [run for run in runs if not run.done]
    shapes = {path: model_shape(path) for path in dict.fromkeys(run.config.model.path for run in runs)}
    costs = {
        on: [_cost(run, shapes[run.config.model.path], checked[_key(run.config)], on) for run in left]
        for on in machines
    }
    console.print(f"{len(runs)} runs, {len(runs) - len(left)} of them done, in {escape(str(folder))}", soft_wrap=True)
    if machines:
        console.print(_cost_table(left, costs, shapes, evaluated_tokens))
        console.print(
            f"hours are the least that arithmetic and memory traffic take, over {EFFICIENCY:g}, a guess of what a run "
            f"reaches. Evaluations are counted with {evaluated_tokens:,} tokens a sample",
            soft_wrap=True,
            style="dim",
        )
    fine &= all(cost.fits for costs_on in costs.values() for cost in costs_on)
    return _disk(left, shapes, folder, console) and fine


def _key(config: Config) -> str:
    """What prompts and their lengths depend on."""
    method = METHODS[config.method.name]
    cap = config.rollout.max_new_tokens if method.writer == "reference" else 0
    batch = config.train.batch_size // config.rollout.samples_per_problem
    shown = privilege(config.method), needs_solution(config), cap, batch
    return repr((config.model.path, asdict(config.data), asdict(config.prompt), shown))


def _inputs(config: Config) -> Inputs:
    """Reads data, tokenizer and template as a run does before its first step."""
    cap = float(config.rollout.max_new_tokens)
    planned = PLANNED._replace(completion=cap)
    try:
        problems, notes = read_problems(config)
        folder = resolve_folder(config.model.path, weights=False)
        tokenizer, stop_ids = load_tokenizer(folder)
        encoded = encode_fitting(config, tokenizer, problems, notes)
        thinking = config.prompt.student_thinking
        if privilege(config.method) not in ("none", "concise"):
            thinking = config.prompt.teacher_thinking
        prompts = encoded.student_prompts[0], encoded.teacher_prompts[0]
        turns = read_turns(tokenizer, folder, stop_ids, config.prompt, *prompts, thinking)
    except (ValueError, OSError) as error:
        longest = planned._replace(teacher=float(config.data.max_prompt_tokens))
        reason = " ".join(str(error).split())
        return Inputs(planned, longest, [Line("inputs", "data, tokenizer, prompts", "cannot be used", "stop", reason)])
    student, teacher = (
        [len(prompt) for prompt in column] for column in (encoded.student_prompts, encoded.teacher_prompts)
    )
    taken = config.train.steps * (config.train.batch_size // config.rollout.samples_per_problem)
    value = (
        f"{len(student):,} problems, each taken {taken / len(student):.2g} times; student's prompts "
        f"{fmean(student):,.0f} tokens ({max(student):,} at most), teacher's {fmean(teacher):,.0f} ({max(teacher):,})"
    )
    data = Line("inputs", "data, tokenizer, prompts", value, "look" if notes else "go", "; ".join(notes) or "all fit")
    teaches = METHODS[config.method.name].teacher
    lines = [data, turn_checks.end_of_turn(turns), turn_checks.opening(turns, teaches=teaches)]
    return Inputs(
        Lengths(fmean(student), fmean(teacher), cap),
        Lengths(max(student), max(teacher), cap),
        lines,
    )


def _cost(run: Run, model: ModelConfig, inputs: Inputs, on: Machine) -> Estimate:
    shape = model.replace(dtype=run.config.model.dtype)
    return estimate(run.config, shape, inputs.mean, inputs.longest, on)


def _input_tables(runs: Sequence[Run], checked: dict[str, Inputs]) -> list[Table]:
    """One table for all runs of which the same is said."""
    tables: dict[str, tuple[Table, int, str]] = {}
    for run in runs:
        lines = checked[_key(run.config)].lines
        what = f"{run.config.model.path} on {run.config.data.path}, privilege {privilege(run.config.method)}"
        same = repr((what, [(line.value, line.reason) for line in lines]))
        if same not in tables:
            table = Table(title_justify="left", box=None, show_header=False, pad_edge=False)
            for _ in range(3):
                table.add_column(overflow="fold")
            for line in lines:
                value = f"{escape(line.value)}\n[dim]{escape(line.reason)}[/]"
                table.add_row(f"[{COLOURS[line.judgement]}]{line.judgement}[/]", escape(line.title), value)
            tables[same] = table, 0, what
        table, count, _ = tables[same]
        tables[same] = table, count + 1, what
    for table, count, what in tables.values():
        table.title = escape(f"{what}: {count} {'run' if count == 1 else 'runs'}")
    return [table for table, *_ in tables.values()]


def _cost_table(
    left: Sequence[Run], costs: dict[Machine, list[Estimate]], shapes: dict[str, ModelConfig], tokens: int
) -> Table:
    table = Table(title=f"{len(left)} runs that are left", title_justify="left")
    for column in ("machine", "train, h", "evaluate, h", "together, h", "chip hours", "GiB a device, of", ""):
        table.add_column(column, justify="left" if column == "machine" else "right")
    for on, estimates in costs.items():
        train = sum(run.config.train.steps * cost.step for run, cost in zip(left, estimates, strict=True)) / 3600
        evaluated = sum(
            evaluation_seconds(
                run.config, shapes[run.config.model.path], samples=run.samples, rows=run.rows, tokens=tokens, on=on
            )
            for run in left
        )
        evaluated /= 3600
        most = max((cost.memory for cost in estimates), default=0.0)
        fits = all(cost.fits for cost in estimates)
        hours = [train, evaluated, train + evaluated, (train + evaluated) * on.chips]
        memory = f"{most / 2**30:.1f} of {on.chip.memory / 2**30:.1f}"
        verdict = "[green]fits[/]" if fits else "[bold red]too large[/]"
        table.add_row(on.name, *(f"{number:,.1f}" for number in hours), memory, verdict)
    return table


def _disk(left: Sequence[Run], shapes: dict[str, ModelConfig], folder: Path, console: Console) -> bool:
    """Prints what the checkpoints take; returns whether there is room for them."""
    needed = sum(checkpoint_bytes(run.config, shapes[run.config.model.path]) for run in left)
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(there).free
    fits = needed <= free
    verdict = "fits" if fits else "too little: fewer train.keep_checkpoints, or another --run.dir"
    console.print(
        f"checkpoints take {needed / 1e9:,.1f} GB at most, and {escape(str(there))} has {free / 1e9:,.1f} GB free: "
        f"[{'green' if fits else 'bold red'}]{verdict}[/]",
        soft_wrap=True,
    )
    return fits
