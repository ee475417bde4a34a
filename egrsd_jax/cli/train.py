"""Trains a model on its own completions."""

import sys
from collections.abc import Sequence

from egrsd_jax.command_line import exit_with, parse_config


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
            exit_with(program, str(error))
        train(run)
    except (FloatingPointError, OSError, WorkerCannotStart) as error:
        exit_with(program, str(error))
    except KeyboardInterrupt:
        resumes = "the same command resumes from the newest checkpoint, or starts again where there is none"
        print(f"\nstopped; {resumes}", file=sys.stderr)
        raise SystemExit(130) from None
