"""The tokenizer of a model folder, and the token ids that end a completion."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from egrsd_jax.data.prompts import stop_token_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "chat_template.jinja",
    "chat_template.json",
)


def load_tokenizer(folder: Path) -> tuple["PreTrainedTokenizerBase", tuple[int, ...]]:
    """The tokenizer of a checkpoint folder and the ids that end a completion."""
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # that torch is missing is how it should be
    from transformers import AutoTokenizer  # imported late: two seconds

    if not (folder / "tokenizer_config.json").is_file():
        raise FileNotFoundError(
            f"{folder} has no tokenizer_config.json; a model folder holds its tokenizer's files too"
        )
    tokenizer = AutoTokenizer.from_pretrained(folder)
    generation = folder / "generation_config.json"
    also = json.loads(generation.read_text(encoding="utf-8")).get("eos_token_id") if generation.is_file() else None
    return tokenizer, stop_token_ids(tokenizer, also)
