"""What a plan looks like: tables for a reader, and the same numbers as a dictionary."""

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from egrsd_jax.plan.cost import Cost
from egrsd_jax.plan.planning import Plan, Program, Roofline, Search, roofline
from egrsd_jax.plan.targets import GIB

MEMORY_ROWS = {
    "base": "base weights",
    "trained": "adapter",
    "optimizer": "optimizer, other state",
    "batch": "batch, results",
    "cache": "keys and values",
    "temporary": "activations, temporary",
    "total": "total",
}


def print_plan(plan: Plan, console: Console) -> None:
    """The whole plan."""
    console.print(escape(_headline(plan)), soft_wrap=True)
    console.print(_memory_table(plan))
    for line in _verdicts(plan):
        console.print(escape(line), soft_wrap=True)
    console.print(_cost_table(plan))
    if plan.target.chip is None:
        console.print("the limits of these devices are not known here, so there is no roofline", soft_wrap=True)
    for warning in plan.warnings:
        console.print(f"[yellow]warning:[/] {escape(warning)}", soft_wrap=True)


def plan_numbers(plan: Plan) -> dict[str, Any]:
    """The plan as plain numbers: bytes, FLOPs and seconds per chip."""
    programs = [_program_numbers(program) for program in _programs(plan)]
    parts = [{"part": name, **_cost_numbers(plan, cost)} for name, cost in _costs(plan)]
    searches = {"update": plan.update} | ({"longest": plan.longest} if plan.longest else {})
    largest = {name: search.fitting.rows if search.fitting else None for name, search in searches.items()}
    return {
        "target": plan.target.name,
        "chips": len(plan.target.devices) // (plan.target.chip.per_chip if plan.target.chip else 1),
        "devices": len(plan.target.devices),
        "memory_limit": plan.target.memory,
        "mesh": dict(plan.workload.mesh.shape),
        "rows": plan.workload.rows,
        "micro_batch": plan.workload.micro_batch,
        "fits": plan.fits,
        "largest_micro_batch": largest,
        "programs": programs,
        "costs": parts,
        "warnings": plan.warnings,
    }


def _headline(plan: Plan) -> str:
    workload, config = plan.workload, plan.workload.config
    mesh = " × ".join(f"{axis} {size}" for axis, size in workload.mesh.shape.items())
    what = "all weights" if config.lora.rank == 0 else f"LoRA r={config.lora.rank}"
    lengths = plan.update.shown.lengths
    return (
        f"{config.model.path}, {config.method.name}, {what}, on {plan.target.name}: {plan.target.chips}, "
        f"mesh {mesh}\n"
        f"{config.train.batch_size} completions per step in micro-batches of {workload.micro_batch}; positions: "
        f"student prompt {lengths.student:,}, teacher prompt {lengths.teacher:,}, completion {lengths.completion:,}; "
        f"rematerialise {workload.model.rematerialise}, attention {workload.model.attention}"
    )


def _programs(plan: Plan) -> list[Program]:
    longest = [plan.longest.shown] if plan.longest else []
    return [plan.update.shown, *longest, *([plan.rollout] if plan.rollout else [])]


def _memory_table(plan: Plan) -> Table:
    programs = _programs(plan)
    table = _table("memory per chip, GiB", _headings(plan))
    names = MEMORY_ROWS | ({"trained": "trained weights"} if plan.workload.config.lora.rank == 0 else {})
    for field, name in names.items():
        if field == "total":
            table.add_section()
        values = [getattr(program.memory, field, None) for program in programs]
        table.add_row(name, *("too large" if value is None else f"{value / GIB:.2f}" for value in values))
    if plan.target.memory is not None:
        table.add_row("of", *[f"{plan.target.memory / GIB:.2f}"] * len(programs))
    return table


def _headings(plan: Plan) -> list[str]:
    """What each program of the memory table is, in lines of a column's width."""
    return [
        f"{program.name}\n{program.rows} rows"
        + (f"\nteacher {program.lengths.teacher:,}" if program.name == "update" else "")
        for program in _programs(plan)
    ]


def _table(title: str, columns: list[str]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _verdicts(plan: Plan) -> list[str]:
    """What fits, in words."""
    limit = plan.target.memory
    lines = []
    for search in [plan.update, *([plan.longest] if plan.longest else [])]:
        what = f"update with teacher prompts of {search.configured.lengths.teacher:,} positions"
        lines.append(f"{what}: {_verdict(search, plan.workload.rows, limit)}")
    if (rollout := plan.rollout) is None:
        server = plan.workload.config.rollout.server
        return [*lines, f"completions are sampled by {server}, whose weights and cache are not counted here"]
    fits = "fits" if rollout.fits(limit) else f"does not fit{_reason(rollout)}; lower rollout.slots"
    times = f", {plan.workload.rollouts} times per step" if plan.workload.rollouts > 1 else ""
    lines.append(
        f"rollout of {rollout.rows} completions decoded together{times}: {fits if limit is not None else 'compiles'}"
    )
    return lines


def _verdict(search: Search, rows: int, limit: float | None) -> str:
    if limit is None:
        return "compiles; how much memory there is is not known"
    configured, fitting = search.configured, search.fitting
    if fitting is None:
        return f"does not fit with the smallest micro-batch{_reason(configured)}; take more chips or a smaller model"
    largest = (
        f"the largest micro-batch that fits is {fitting.rows}{', the whole batch' if fitting.rows == rows else ''}"
    )
    if configured.fits(limit):
        return f"fits; {largest}"
    return f"does not fit with micro-batches of {configured.rows}{_reason(configured)}; {largest}"


def _reason(program: Program) -> str:
    if program.memory is None:
        return f" ({program.compiled.refused})"
    return f" ({program.memory.total / GIB:.2f} GiB)"


def _costs(plan: Plan) -> list[tuple[str, Cost]]:
    """The parts of a step whose costs are shown, those of the programs that were compiled."""
    parts = [("update", plan.update.shown)]
    costs = [(name, program.compiled.cost) for name, program in parts if program.memory is not None]
    if plan.rollout is None or plan.rollout.compiled.loop is None:
        return costs
    turns = plan.workload.config.rollout.max_new_tokens
    whole, turn = plan.rollout.compiled.cost, plan.rollout.compiled.loop
    return [*costs, ("prefill", whole + turn.times(-turns)), ("one token", turn), (f"{turns:,} tokens", whole)]


def _cost_table(plan: Plan) -> Table:
    """One column per part; the last rows are the least seconds by each limit of the chip, and the limit that binds."""
    costs = [cost for _, cost in _costs(plan)]
    table = _table("cost per chip, and the least seconds by each limit", [name for name, _ in _costs(plan)])
    rows = {
        "TFLOP": [f"{cost.flops / 1e12:,.3f}" for cost in costs],
        "GB of memory moved": [f"{cost.bytes / 1e9:,.2f}" for cost in costs],
        "FLOP per byte": [f"{_intensity(cost):,.0f}" for cost in costs],
        "GB sent": [f"{sum(cost.sent.values()) / 1e9:,.3f}" for cost in costs],
    }
    kinds = sorted({kind for cost in costs for kind, count in cost.sent.items() if count})
    rows |= {f"  {kind}": [f"{cost.sent[kind] / 1e9:,.3f}" for cost in costs] for kind in kinds}
    for name, cells in rows.items():
        table.add_row(name, *cells)
    if (chip := plan.target.chip) is not None:
        lines = [roofline(cost, chip) for cost in costs]
        table.add_section()
        for limit in Roofline._fields:
            table.add_row(f"{limit}, s", *(_seconds(getattr(line, limit)) for line in lines))
        table.add_row("at least, s", *(_seconds(line.seconds) for line in lines))
        table.add_row("bound by", *(line.binds for line in lines))
    return table


def _seconds(value: float) -> str:
    return f"{value:,.1f}" if value >= 100 else f"{value:.3g}"


def _intensity(cost: Cost) -> float:
    return cost.flops / cost.bytes if cost.bytes else 0.0


def _program_numbers(program: Program) -> dict[str, Any]:
    memory = program.memory
    return {
        "name": program.name,
        "rows": program.rows,
        "lengths": program.lengths._asdict(),
        "memory": None if memory is None else memory._asdict() | {"total": memory.total},
        "refused": program.compiled.refused,
        "compile_seconds": program.compiled.seconds,
        "compile_processor_seconds": program.compiled.processor_seconds,
        "program_bytes": program.compiled.text_bytes,
    }


def _cost_numbers(plan: Plan, cost: Cost) -> dict[str, Any]:
    numbers: dict[str, Any] = {"flops": cost.flops, "bytes": cost.bytes, "sent": dict(cost.sent)}
    if plan.target.chip is not None:
        line = roofline(cost, plan.target.chip)
        numbers |= {"seconds": line._asdict(), "binds": line.binds}
    return numbers
