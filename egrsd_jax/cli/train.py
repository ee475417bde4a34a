"""Trains a model on its own completions."""

from collections.abc import Sequence

from egrsd_jax.command_line import exit_for, parse_config


def main(argv: Sequence[str], program: str) -> None:
    """Arguments to configuration to one call."""
    config = parse_config(argv, program=program, description=__doc__)
    from egrsd_jax.train.loop import train  # imported late: --help and mistakes need no jax
    from egrsd_jax.train.setup import prepare
    from egrsd_jax.verify.process import WorkerCannotStart

    try:
        try:
            run = prepare(config)
        except (ValueError, OSError) as error:
            exit_for(program, error)
        train(run)
    except (FloatingPointError, OSError, WorkerCannotStart) as error:
        exit_for(program, error)
