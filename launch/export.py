"""Makes of a run a model for transformers, or an adapter for peft: `python launch/export.py RUN_FOLDER --to DIR`."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the checkout that this file stands in, installed or not
os.environ.setdefault("JAX_PLATFORMS", "cpu")  # additions and files: no accelerator has to be free for it

from egrsd_jax.command_line import OneLineParser, exit_with  # noqa: E402

PROGRAM = "export.py"


def main() -> None:
    """Arguments to one call."""
    parser = OneLineParser(prog=PROGRAM, description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN_FOLDER", help="the folder that launch/train.py left, runs/NAME")
    parser.add_argument(
        "--to", type=Path, required=True, metavar="DIR", help="folder to make; it must not hold anything"
    )
    parser.add_argument(
        "--what",
        choices=("merged", "adapter"),
        default="merged",
        help="the whole model, or the adapter in PEFT's format",
    )
    parser.add_argument("--step", type=int, help="the checkpoint to take; by default the newest")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        help="of what is written; by default the run's model.param_dtype, and float32 for an adapter",
    )
    parser.add_argument("--push", metavar="OWNER/NAME", help="upload the folder to the Hugging Face hub as well")
    arguments = parser.parse_args()
    from egrsd_jax.export import export_run  # imported late: --help and mistakes need no jax

    try:
        made = export_run(**vars(arguments))
    except (ValueError, OSError) as error:
        exit_with(PROGRAM, str(error))
    files = [file for file in arguments.to.iterdir() if file.is_file()]
    megabytes = sum(file.stat().st_size for file in files) / 1e6
    print(f"{arguments.to}: {made.what}, {made.dtype}, step {made.step}; {len(files)} files, {megabytes:,.1f} MB")
    if arguments.push:
        print(f"pushed to https://huggingface.co/{arguments.push} (private, if it is new)")


if __name__ == "__main__":
    main()
