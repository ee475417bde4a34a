"""Makes the built-in model from nothing, in minutes: `python launch/warmup.py --folder DIR [--FIELD VALUE ...]`."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the checkout that this file stands in, installed or not


def main() -> None:
    """Arguments to settings to one call."""
    from jsonargparse import ArgumentParser

    from egrsd_jax.command_line import exit_with
    from egrsd_jax.warmup import WarmupSettings, warm_up

    parser = ArgumentParser(prog="warmup.py", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where the model's folder is written")
    parser.add_class_arguments(WarmupSettings, as_group=False)
    fields = vars(parser.parse_args())
    folder = fields.pop("folder")
    try:
        warm_up(WarmupSettings(**fields), folder, say=lambda line: print(line, flush=True))
    except RuntimeError as error:
        exit_with("warmup.py", str(error))


if __name__ == "__main__":
    main()
