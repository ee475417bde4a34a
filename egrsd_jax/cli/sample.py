"""Completes a prompt on the terminal, or a file of prompts."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from egrsd_jax.cli.options import add_policy_options, settings_parser
from egrsd_jax.command_line import OneLineParser, exit_for, exit_with
from egrsd_jax.compilation import CompilationNotices, keep_programs, listening
from egrsd_jax.evaluate.settings import Settings
from egrsd_jax.runs import stopping
from egrsd_jax.sample.settings import SampleSettings

# Fields of an evaluation's settings; the other options are SampleSettings' own.
POLICY = ("model", "run", "step", "base", "adapter", "dtype", "weights_dtype", "seed", "samples", "max_rows")
POLICY += ("temperature", "top_p", "top_k", "max_new_tokens", "thinking", "system")


def main(argv: Sequence[str], program: str) -> None:
    """Arguments to settings to one call."""
    given = vars(_parser(program).parse_args(argv))
    programs = given.pop("programs", False)
    try:
        policy = Settings(**{name: given.pop(name) for name in POLICY if name in given})
        settings = SampleSettings(policy, **{**given, "stop": tuple(given.get("stop", ()))})
    except ValueError as error:
        exit_with(program, str(error))
    from egrsd_jax.sample import session as sampling  # imported late: --help and mistakes need no jax
    from egrsd_jax.sample.screen import Screen

    screen = Screen()
    try:
        if not programs:
            screen.say(keep_programs())
        session = sampling.open_session(settings)
        if session.note is not None:
            screen.say(session.note)
        if programs:
            print("\n".join(session.engine.program_names()))
        elif settings.file is not None:
            stopping.resumes("the same command resumes after the completions that are stored")
            to = sampling.complete_file(session)
            print(f"{to}: all {len(session.places):,} completions are there")
        else:
            if settings.prompt is None:
                screen.say(f"a held-out problem: {session.prompts[0].text}")
            with listening(CompilationNotices(screen.say)):
                (sampling.stream if settings.samples == 1 else sampling.show_each)(session, screen)
    except (ValueError, OSError) as error:
        exit_for(program, error)


def _parser(program: str) -> OneLineParser:
    parser = settings_parser(program, __doc__)
    add_policy_options(parser, "with what")
    on = parser.add_argument_group("of what")
    on.add_argument("--prompt", metavar="TEXT", help="a user's turn; a built-in model has problems of its own")
    on.add_argument(
        "--file", type=Path, help="many prompts: .txt, one per line; .jsonl, .csv, .parquet and such, one per row"
    )
    on.add_argument("--column", metavar="NAME", help="of the rows; prompt, or problem where there is no prompt")
    on.add_argument("--to", type=Path, metavar="FILE", help="completions of --file; NAME.completions.jsonl next to it")
    on.add_argument("--raw", action="store_true", help="the prompt is all that the model reads: no chat template")
    on.add_argument("--thinking", action=argparse.BooleanOptionalAction, help="the chat template's; on")
    on.add_argument("--system", metavar="TEXT", help="a system's turn before each prompt")
    how = parser.add_argument_group("how")
    how.add_argument("--temperature", type=float, help="1.0; 0 takes the most likely token")
    how.add_argument("--top_p", type=float, help="0.95; arithmetic 1.0")
    how.add_argument("--top_k", type=int, help="0, no limit")
    how.add_argument("--min_p", type=float, help="0, no limit")
    how.add_argument("--max_new_tokens", type=int, help="1,024; arithmetic 96")
    how.add_argument("--stop", action="append", metavar="TEXT", help="ends a completion, which holds it; repeatable")
    how.add_argument("--seed", type=int, help="0")
    how.add_argument("--samples", type=int, metavar="N", help="completions of each prompt, which is read once; 1")
    engine = parser.add_argument_group("the engine")
    engine.add_argument("--max_rows", type=int, help="completions decoded together, at most; 16, arithmetic 256")
    engine.add_argument("--slots", dest="max_rows", type=int, help=argparse.SUPPRESS)  # the earlier spelling
    engine.add_argument("--cache_dtype", choices=("float32", "bfloat16", "int8"), help="the model's dtype")
    engine.add_argument("--programs", action="store_true", help="only list the programs that may be compiled")
    return parser
