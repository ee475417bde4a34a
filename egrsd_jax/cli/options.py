"""Options that several commands share."""

import argparse
from pathlib import Path

from egrsd_jax.command_line import OneLineParser


def settings_parser(program: str, description: str | None) -> OneLineParser:
    """A parser that returns only what was given, so that a settings type alone holds the defaults."""
    return OneLineParser(prog=program, description=description, allow_abbrev=False, argument_default=argparse.SUPPRESS)


def add_policy_options(parser: OneLineParser, title: str) -> None:
    """Which weights: a model, with or without an adapter, or a checkpoint of a run."""
    group = parser.add_argument_group(title)
    group.add_argument("--model", help="a folder, a hub repository, or arithmetic, the built-in model and the default")
    group.add_argument("--run", type=Path, metavar="FOLDER", help="instead: a training run, its newest checkpoint")
    group.add_argument("--step", type=int, help="the checkpoint of the run to take")
    group.add_argument("--base", metavar="FOLDER", help="where the run's model is now, if it was moved")
    group.add_argument("--adapter", type=Path, metavar="FOLDER", help="a PEFT adapter on top of the model")
    group.add_argument("--dtype", choices=("float32", "bfloat16"), help="float32 for arithmetic, else bfloat16")
    group.add_argument(
        "--weights_dtype", choices=("float32", "bfloat16"), help="of what is multiplied with when sampling; --dtype"
    )


class AsTuple(argparse.Action):
    """Stores a list of values as the tuple that a frozen settings type holds."""

    def __call__(self, parser, namespace, values, option_string=None):  # noqa: ARG002  (argparse's own names)
        """Stores the tuple."""
        setattr(namespace, self.dest, tuple(values or ()))
