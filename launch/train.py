"""Trains a model on its own completions: `python launch/train.py [--config FILE] [--FIELD VALUE ...]`."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the checkout that this file stands in, installed or not

from egrsd_jax.command_line import exit_with, parse_config  # noqa: E402


def main() -> None:
    """Arguments to configuration to one call."""
    config = parse_config(
        sys.argv[1:], program="train.py", description=__doc__, default=ROOT / "configs/arithmetic.yaml"
    )
    from egrsd_jax.train.loop import train  # imported late: --help and mistakes need no jax
    from egrsd_jax.train.setup import prepare
    from egrsd_jax.verify.process import WorkerCannotStart

    try:
        try:
            run = prepare(config)
        except (ValueError, OSError) as error:
            exit_with("train.py", str(error))
        train(run)
    except (FloatingPointError, OSError, WorkerCannotStart) as error:
        exit_with("train.py", str(error))
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from the newest checkpoint", file=sys.stderr)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
