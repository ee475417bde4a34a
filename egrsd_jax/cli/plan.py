"""Computes whether a run fits a machine and what bounds it, without that machine.

Compiles the update and the rollout for the chips named, and runs neither; without --topology for this machine's
devices. With --rollout.server it leaves the rollout out: what a server holds is not on these chips. Takes every option
of training, and: --topology KIND:AxB[xC] (v5e, v5p, v6e or tpu7x), --student_prompt N and
--teacher_prompt N (tokens of the prompts, 512 and 4,096), --no_longest (leave out the update at
data.max_prompt_tokens), --read_data (also count the updates and the padding of
the data's own lengths), --json FILE. Exit code 0: it fits; 1: it does not; 2: a mistake in the options.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from egrsd_jax.command_line import OneLineParser, exit_for, exit_with, parse_config
from egrsd_jax.compilation import OFF, keep_programs

DOES_NOT_FIT = 1


def main(argv: Sequence[str], program: str) -> None:
    """Arguments to configuration and target to one call."""
    own, rest = _own_options(program).parse_known_args(argv)
    config = parse_config(rest, program=program, description=__doc__)
    for name in ("student_prompt", "teacher_prompt"):
        if getattr(own, name) < 1:
            exit_with(program, f"--{name} is {getattr(own, name)}; a prompt has at least one token")
    from egrsd_jax.plan.targets import compile_without_tpu, local_target, tpu_target

    if own.topology:
        compile_without_tpu()  # before jax is imported, which is why everything is imported late here
    keep_programs(OFF)  # seconds are of compiling; and what is compiled for other chips would be kept and never read
    try:
        target = tpu_target(own.topology) if own.topology else local_target()
        from rich.console import Console

        from egrsd_jax.plan.planning import make_plan
        from egrsd_jax.plan.table import plan_numbers, print_plan

        progress = Console(stderr=True, highlight=False)
        plan = make_plan(
            config,
            target,
            student_prompt=own.student_prompt,
            teacher_prompt=own.teacher_prompt,
            longest=own.longest,
            say=lambda line: progress.print(line, soft_wrap=True, markup=False),
        )
        data = None
        if own.read_data:
            from egrsd_jax.plan.padding import data_padding, padding_lines

            data = data_padding(plan.workload)
        if own.json:
            numbers = plan_numbers(plan) | ({"data": data._asdict()} if data else {})
            own.json.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    except (ValueError, OSError) as error:
        exit_for(program, error)
    print_plan(plan, console := Console(highlight=False))
    if data is not None:
        for line in padding_lines(data):
            console.print(line, soft_wrap=True, markup=False)
    if not plan.fits:
        raise SystemExit(DOES_NOT_FIT)


def _own_options(program: str) -> OneLineParser:
    parser = OneLineParser(prog=program, add_help=False, allow_abbrev=False)
    parser.add_argument("--topology")
    parser.add_argument("--student_prompt", type=int, default=512)
    parser.add_argument("--teacher_prompt", type=int, default=4096)
    parser.add_argument("--no_longest", dest="longest", action="store_false")
    parser.add_argument("--read_data", action="store_true")
    parser.add_argument("--json", type=Path)
    return parser
