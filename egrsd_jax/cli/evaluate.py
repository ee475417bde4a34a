"""Evaluates a model, an adapter or a run on benchmarks."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from egrsd_jax.cli.options import AsTuple, add_policy_options, settings_parser
from egrsd_jax.command_line import OneLineParser, exit_for, exit_with
from egrsd_jax.compilation import keep_programs
from egrsd_jax.data.prompts import AnswerFormat
from egrsd_jax.evaluate.benchmarks import BENCHMARKS
from egrsd_jax.evaluate.settings import PROMPTS, SERVER_KINDS, Settings

BY_DEFAULT = "by default the benchmark's own, which is the paper's: "


def main(argv: Sequence[str], program: str) -> None:
    """Arguments to settings to one call, and its results on the terminal."""
    given = vars(_parser(program).parse_args(argv))
    old = given.pop("regrade")
    try:
        settings = Settings(**given)
        if old is not None and settings != Settings(benchmarks=settings.benchmarks):
            raise ValueError("--regrade samples nothing; the only option it takes is --benchmarks")
    except ValueError as error:
        exit_with(program, str(error))
    if settings.server is not None:  # it may share its accelerator with this machine, of which jax would take most
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from egrsd_jax.evaluate.run import evaluate, regrade  # imported late: --help and mistakes need no jax
    from egrsd_jax.report.evaluation import show, write_report
    from egrsd_jax.verify.process import WorkerCannotStart

    try:
        if old is None and settings.server is None:
            print(keep_programs(), file=sys.stderr)
        evaluated = evaluate(settings) if old is None else regrade(old, settings.benchmarks)
        write_report(evaluated)
    except (ValueError, OSError, WorkerCannotStart) as error:
        exit_for(program, error)
    show(evaluated)


def _parser(program: str) -> OneLineParser:
    parser = settings_parser(program, __doc__)
    add_policy_options(parser, "what is evaluated")
    parser.add_argument("--mesh", type=int, nargs=3, metavar=("DATA", "FSDP", "TENSOR"), action=AsTuple, help="devices")
    server = parser.add_argument_group("with a server: vLLM, SGLang, transformers serve, or another by its kind")
    server.add_argument("--server", metavar="URL", help="samples the completions; --model gives its tokenizer alone")
    server.add_argument("--served", metavar="NAME", help="the model's name there, where it has several")
    server.add_argument("--served_adapter", metavar="NAME", help="an adapter that it has loaded")
    server.add_argument("--in_flight", type=int, metavar="N", help="requests that it has at once; 64")
    server.add_argument(
        "--server_kind", choices=SERVER_KINDS, help="how it is spoken to, where it does not say what it is"
    )
    server.add_argument(
        "--server_wait", type=float, metavar="S", help="seconds of waits between a request's tries; 300"
    )
    server.add_argument("--server_timeout", type=float, metavar="S", help="seconds that it may be silent; 3600")
    on = parser.add_argument_group("on what")
    on.add_argument("--benchmarks", nargs="+", action=AsTuple, metavar="NAME", help=", ".join(BENCHMARKS))
    on.add_argument("--data", type=Path, metavar="FOLDER", help="files of the benchmarks, instead of the hub")
    on.add_argument("--file", dest="files", action=_Files, metavar="NAME=FILE", help="one benchmark's, or your own")
    on.add_argument("--problem_column", metavar="NAME", help="in a --file; problem")
    on.add_argument("--answer_column", metavar="NAME", help="in a --file; answer")
    on.add_argument("--solution_column", metavar="NAME", help="in a --file whose answers are the solutions' last box")
    on.add_argument("--tolerance_column", metavar="NAME", help="in a --file: by how much a number may differ")
    on.add_argument("--split", metavar="NAME", help="of a --file that is a data set on the hub; test")
    on.add_argument("--configuration", metavar="NAME", help="of a --file that is a data set on the hub")
    on.add_argument("--problems", type=int, metavar="N", help="only the first N problems of each")
    how = parser.add_argument_group("how")
    how.add_argument("--samples", type=int, metavar="K", help=f"completions of a problem; {BY_DEFAULT}4")
    how.add_argument("--temperature", type=float, help=f"{BY_DEFAULT}1.0")
    how.add_argument("--top_p", type=float, help=f"{BY_DEFAULT}0.95; arithmetic 1.0")
    how.add_argument("--top_k", type=int, help=f"{BY_DEFAULT}0, no limit")
    how.add_argument("--max_new_tokens", type=int, help=f"{BY_DEFAULT}32,768; arithmetic 96")
    how.add_argument("--thinking", action=argparse.BooleanOptionalAction, help=f"{BY_DEFAULT}on")
    how.add_argument(
        "--prompt", help=f"template of the user's turn, with {{problem}}, or one by name: {', '.join(PROMPTS)}"
    )
    how.add_argument("--system", metavar="TEXT", help="the system's turn before it; by default a --run's own, if any")
    how.add_argument(
        "--answer_format", choices=get_args(AnswerFormat), help="where answers are; a --run's own, or boxed"
    )
    how.add_argument("--seed", type=int, help="0")
    how.add_argument("--max_rows", type=int, help="completions decoded together, at most; 16, arithmetic 256")
    how.add_argument("--slots", dest="max_rows", type=int, help=argparse.SUPPRESS)  # the earlier spelling
    where = parser.add_argument_group("where")
    where.add_argument("--to", type=Path, metavar="FOLDER", help="by default runs/evaluation-MODEL-seedN")
    where.add_argument(
        "--regrade", type=Path, default=None, metavar="FOLDER", help="grade an earlier evaluation's samples again"
    )
    return parser


class _Files(argparse.Action):
    def __call__(self, parser, namespace, values, option_string=None):  # noqa: ARG002  (argparse's own names)
        """NAME=FILE joins those that were given before; without --benchmarks these are the benchmarks."""
        name, equals, file = str(values).partition("=")
        if not (name and equals and file):
            parser.error(f"--file {values}: give NAME=FILE, such as gsm8k=test.jsonl")
        namespace.files = {**getattr(namespace, "files", {}), name: Path(file)}
