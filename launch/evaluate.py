"""Evaluates a model, an adapter or a run: `python launch/evaluate.py [--model MODEL | --run RUN_FOLDER] [...]`."""

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the checkout that this file stands in, installed or not

from egrsd_jax.command_line import OneLineParser, exit_with  # noqa: E402
from egrsd_jax.evaluate.benchmarks import BENCHMARKS  # noqa: E402
from egrsd_jax.evaluate.settings import Settings  # noqa: E402

PROGRAM = "evaluate.py"
NOTHING = "without it the benchmark's own, which are the paper's: "


def main() -> None:
    """Arguments to settings to one call, and what it found on the terminal."""
    given = vars(_parser().parse_args())
    old = given.pop("regrade")
    try:
        settings = Settings(**given)
        if old is not None and settings != Settings(benchmarks=settings.benchmarks):
            raise ValueError("--regrade draws nothing; beside it only --benchmarks is taken")
    except ValueError as error:
        exit_with(PROGRAM, str(error))
    if settings.server is not None:  # it may share its accelerator with this machine, of which jax would take most
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from egrsd_jax.evaluate.run import evaluate, regrade  # imported late: --help and mistakes need no jax
    from egrsd_jax.report.evaluation import show, write_report
    from egrsd_jax.verify.process import WorkerCannotStart

    try:
        evaluated = evaluate(settings) if old is None else regrade(old, settings.benchmarks)
        write_report(evaluated)
    except (ValueError, OSError, WorkerCannotStart) as error:
        exit_with(PROGRAM, str(error))
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from the samples that are there", file=sys.stderr)
        raise SystemExit(130) from None
    show(evaluated)


def _parser() -> OneLineParser:
    parser = OneLineParser(prog=PROGRAM, description=__doc__, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    what = parser.add_argument_group("what is evaluated")
    what.add_argument("--model", help="a folder, a hub repository, or arithmetic, the built-in model and the default")
    what.add_argument("--run", type=Path, metavar="FOLDER", help="instead: a training run, its newest checkpoint")
    what.add_argument("--step", type=int, help="the checkpoint of the run to take")
    what.add_argument("--adapter", type=Path, metavar="FOLDER", help="a PEFT adapter on top of the model")
    what.add_argument("--dtype", choices=("float32", "bfloat16"), help="float32 for arithmetic, else bfloat16")
    what.add_argument("--mesh", type=int, nargs=3, metavar=("DATA", "FSDP", "TENSOR"), action=_Tuple, help="devices")
    server = parser.add_argument_group("with a server: vLLM, SGLang or transformers serve")
    server.add_argument("--server", metavar="URL", help="draws the completions; --model gives its tokenizer alone")
    server.add_argument("--served", metavar="NAME", help="the model's name there, where it has several")
    server.add_argument("--served_adapter", metavar="NAME", help="an adapter that it has loaded")
    server.add_argument("--in_flight", type=int, metavar="N", help="requests that it has at once; 64")
    on = parser.add_argument_group("on what")
    on.add_argument("--benchmarks", nargs="+", action=_Tuple, metavar="NAME", help=", ".join(BENCHMARKS))
    on.add_argument("--data", type=Path, metavar="FOLDER", help="files of the benchmarks, instead of the hub")
    on.add_argument("--file", dest="files", action=_Files, metavar="NAME=FILE", help="one benchmark's, or your own")
    on.add_argument("--problems", type=int, metavar="N", help="only the first N problems of each")
    how = parser.add_argument_group("how")
    how.add_argument("--samples", type=int, metavar="K", help=f"completions of a problem; {NOTHING}4")
    how.add_argument("--temperature", type=float, help=f"{NOTHING}1.0")
    how.add_argument("--top_p", type=float, help=f"{NOTHING}0.95; arithmetic 1.0")
    how.add_argument("--top_k", type=int, help=f"{NOTHING}0, no limit")
    how.add_argument("--max_new_tokens", type=int, help=f"{NOTHING}32,768; arithmetic 96")
    how.add_argument("--thinking", action=argparse.BooleanOptionalAction, help=f"{NOTHING}on")
    how.add_argument("--prompt", help="template of the user's turn, with {problem}")
    how.add_argument("--seed", type=int, help="0")
    how.add_argument("--slots", type=int, help="completions drawn side by side; 16, arithmetic 256")
    where = parser.add_argument_group("where")
    where.add_argument("--to", type=Path, metavar="FOLDER", help="by default runs/evaluation-MODEL-seedN")
    where.add_argument(
        "--regrade", type=Path, default=None, metavar="FOLDER", help="grade an earlier evaluation's samples again"
    )
    return parser


class _Tuple(argparse.Action):
    def __call__(self, parser, namespace, values, option_string=None):  # noqa: ARG002  (argparse's own names)
        """Keeps a list as the tuple that a frozen value holds."""
        setattr(namespace, self.dest, tuple(values or ()))


class _Files(argparse.Action):
    def __call__(self, parser, namespace, values, option_string=None):  # noqa: ARG002  (argparse's own names)
        """NAME=FILE joins those that were given before; without --benchmarks these are the benchmarks."""
        name, equals, file = str(values).partition("=")
        if not (name and equals and file):
            parser.error(f"--file {values}: give NAME=FILE, such as gsm8k=test.jsonl")
        namespace.files = {**getattr(namespace, "files", {}), name: Path(file)}


if __name__ == "__main__":
    main()
