"""Writes a run's model as a folder that transformers loads, or its adapter as one that peft loads."""

import os
from collections.abc import Sequence
from pathlib import Path

from egrsd_jax.command_line import OneLineParser, exit_for
from egrsd_jax.compilation import keep_programs


def main(argv: Sequence[str], program: str) -> None:
    """Arguments to one call."""
    parser = OneLineParser(prog=program, description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN_FOLDER", help="the folder of a training run, runs/NAME")
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="folder to make; it must be empty")
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
    parser.add_argument("--base", metavar="FOLDER", help="where the run's model is now, if it was moved")
    parser.add_argument("--push", metavar="OWNER/NAME", help="upload the folder to the Hugging Face hub as well")
    arguments = parser.parse_args(argv)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # additions and files: no accelerator has to be free for it
    from egrsd_jax.export import export_run  # imported late: --help and mistakes need no jax

    try:
        keep_programs()
        exported = export_run(**vars(arguments))
    except (ValueError, OSError) as error:
        exit_for(program, error)
    files = [file for file in arguments.to.iterdir() if file.is_file()]
    megabytes = sum(file.stat().st_size for file in files) / 1e6
    print(
        f"{arguments.to}: {exported.what}, {exported.dtype}, step {exported.step}; {len(files)} files, "
        f"{megabytes:,.1f} MB"
    )
    if arguments.push:
        print(f"pushed to https://huggingface.co/{arguments.push} (private, if it is new)")
