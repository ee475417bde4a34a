"""The tokenizer of a model folder, and the token ids that end a completion.

transformers makes a tokenizer of whatever files it meets, of none as well. So it is asked for what every run relies on:
that two problems read differently, that a text comes back, that tokenizer.json is read as it is, and that the model has
an embedding for every token in use.
"""

import datetime
import math
import os
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from egrsd_jax.data.literal import added_tokens
from egrsd_jax.data.prompts import render_chat, stop_token_ids, user_turn
from egrsd_jax.side_files import read_fields, refuse_lfs_pointer

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
FILES_BESIDE_WEIGHTS = ("config.json", "generation_config.json", *TOKENIZER_FILES)
AS_STORED = ("PreTrainedTokenizerFast", "TokenizersBackend")  # classes that take tokenizer.json as it is
_VOCABULARIES = (("tokenizer.json",), ("vocab.json", "merges.txt"), ("tokenizer.model",), ("vocab.txt",))
_TEXTS = ("What is 12 - 5 * 3?", "What is 6 * 7 + 480?")  # the built-in tasks' tokenizers read the digits alone
# Cut in other places by most pairs of pre-tokenizers: numbers, blank lines, contractions, accents in two characters.
_PROBE = "Let f(x) = 1234567 - x_{10}^2.\n\n\tIt ISN'T cafe\u0301,  I'll say: 日本 480%...\r\n    return 3.14  \n"
# Chat templates of Llama 3.1 and later write today's date: a run that is resumed tomorrow would have other prompts. All
# see the day that these templates themselves take without a clock.
_DATE = datetime.date(2024, 7, 26)
_DATED = "".join(f"|replace('%{code}', '{_DATE.strftime(f'%{code}')}')" for code in "aAbBdejmyYHIMSp")
_STRFTIME_NOW = f"{{%- macro strftime_now(format) -%}}{{{{ format{_DATED} }}}}{{%- endmacro -%}}"


def load_tokenizer(folder: Path) -> tuple["PreTrainedTokenizerBase", tuple[int, ...]]:
    """The tokenizer of a checkpoint folder and the ids that end a completion.

    Raises FileNotFoundError or ValueError, one line, that names the file or the token: a file that is missing, cut
    short or a Git LFS pointer, a tokenizer that loses text, a token that the model has no embedding for.
    """
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # that torch is missing is how it should be
    _check_files(folder)
    tokenizer = _as_stored(folder, _from_transformers(folder))
    _check_template(folder, tokenizer)
    tokenizer = _without_clock(tokenizer)
    _check_reads_text(folder, tokenizer)
    stops = stop_token_ids(tokenizer, generation_eos(folder))
    _check_embedded(folder, tokenizer, stops)
    return tokenizer, stops


def cuts_otherwise(folder: Path) -> bool:
    """Whether transformers, by the class that a folder names, cuts text otherwise than its tokenizer.json says."""
    config = folder / "tokenizer_config.json"
    if not (config.is_file() and (folder / "tokenizer.json").is_file()):
        return False
    if read_fields(config).get("tokenizer_class") in AS_STORED:
        return False
    tokenizer = _from_transformers(folder)
    return _as_stored(folder, tokenizer) is not tokenizer


def check_token_ids(
    tokenizer: "PreTrainedTokenizerBase", prompts: Iterable[Sequence[int]], vocab_size: int, what: str
) -> None:
    """Raises ValueError that names the first token of `what` that a model of `vocab_size` has no embedding for."""
    highest = max((max(prompt, default=0) for prompt in prompts), default=0)
    if highest >= vocab_size:
        raise ValueError(
            f"{what} holds the token {tokenizer.convert_ids_to_tokens(highest)!r}, which is {highest}, and the model's "
            f"embedding has {vocab_size} rows (vocab_size of config.json); leave the token out, or take the model with "
            "the tokenizer that it was trained with"
        )


def _check_files(folder: Path) -> None:
    if not (folder / "tokenizer_config.json").is_file():
        raise FileNotFoundError(
            f"{folder} has no tokenizer_config.json; a model folder holds its tokenizer's files too"
        )
    present = [names for names in _VOCABULARIES if all((folder / name).is_file() for name in names)]
    if not present:
        raise FileNotFoundError(
            f"{folder} has no tokenizer.json, which holds the tokenizer's vocabulary; copy or download it again from "
            "where the model is from"
        )
    if present == [("tokenizer.model",)] and find_spec("sentencepiece") is None:  # transformers asks for tiktoken then
        raise ValueError(
            f"{folder} has its vocabulary in tokenizer.model alone, which is read with the package sentencepiece: pip "
            "install sentencepiece, or take the tokenizer.json from where the model is from"
        )
    for name in (*TOKENIZER_FILES, "config.json"):  # which transformers reads too, for the model's type
        if (file := folder / name).is_file():
            refuse_lfs_pointer(file)
            if file.suffix == ".json" and name != "tokenizer.json":  # megabytes: it is read once, and by transformers
                read_fields(file)


def _from_transformers(folder: Path) -> "PreTrainedTokenizerBase":
    from transformers import AutoTokenizer  # imported late: two seconds

    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # tokenizers raises Exception itself
        if (folder / "tokenizer.json").is_file():
            read_fields(folder / "tokenizer.json")
        files = ", ".join(name for name in TOKENIZER_FILES if (folder / name).is_file())
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise ValueError(f"{folder}: transformers makes no tokenizer of {files}: {reason}") from error


def _without_clock(tokenizer: "PreTrainedTokenizerBase") -> "PreTrainedTokenizerBase":
    """With a chat template, or several by name, in which it is always the same day."""

    def dated(template: str) -> str:
        return _STRFTIME_NOW + template if "strftime_now" in template else template

    templates: Any = tokenizer.chat_template
    if isinstance(templates, str):
        tokenizer.chat_template = dated(templates)
    elif isinstance(templates, dict):
        tokenizer.chat_template = {name: dated(template) for name, template in templates.items()}
    return tokenizer


def _check_template(folder: Path, tokenizer: "PreTrainedTokenizerBase") -> None:
    templates: Any = tokenizer.chat_template
    named = templates if isinstance(templates, dict) else {"default": templates}
    if not all(isinstance(template, str | None) for template in named.values()):
        raise ValueError(f"{folder / 'tokenizer_config.json'}: chat_template is {templates!r:.80}; it is a text")
    if "default" not in named:
        raise ValueError(
            f"{folder} has the chat templates {', '.join(map(repr, named))}, and none is 'default': put the one to use "
            "into it as chat_template.jinja"
        )


def _as_stored(folder: Path, tokenizer: "PreTrainedTokenizerBase") -> "PreTrainedTokenizerBase":
    """The tokenizer, or where its class cuts text otherwise than tokenizer.json says, the one that takes the file as it
    is: GPT2Tokenizer puts its own pre-tokenizer there, and SmolLM2's numbers are no longer read digit by digit."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        return tokenizer
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    stored = Tokenizer.from_file(str(file))
    stored.no_truncation()
    stored.no_padding()
    if stored.encode(_PROBE, add_special_tokens=False).ids == tokenizer.encode(_PROBE, add_special_tokens=False):
        return tokenizer
    return PreTrainedTokenizerFast.from_pretrained(folder)


def _check_reads_text(folder: Path, tokenizer: "PreTrainedTokenizerBase") -> None:
    """Two problems must not read alike, and a text whose words are all known must come back."""
    encoded = [tokenizer.encode(text, add_special_tokens=False) for text in _TEXTS]
    again = f"{folder}: copy or download tokenizer.json, vocab.json and merges.txt again from where the model is from"
    if encoded[0] == encoded[1]:
        raise ValueError(f"{again}: their tokenizer reads {_TEXTS[0]!r} and {_TEXTS[1]!r} as the same tokens")
    for text, ids in zip(_TEXTS, encoded, strict=True):
        back = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        if tokenizer.unk_token_id not in ids and "".join(str(back).split()) != "".join(text.split()):
            raise ValueError(f"{again}: their tokenizer loses text; {text!r} comes back as {back!r}")


def generation_eos(folder: Path) -> int | list[int] | None:
    """`eos_token_id` of a folder's generation_config.json, or as in transformers of its config.json where it has none;
    None without both. Raises ValueError where it is no token id."""
    file = folder / "generation_config.json"
    file = file if file.is_file() else folder / "config.json"
    fields = read_fields(file) if file.is_file() else {}
    eos = fields.get("eos_token_id")
    ids = eos if isinstance(eos, list) else [eos]
    if eos is not None and any(type(token) is not int or token < 0 for token in ids):
        raise ValueError(f"{file}: eos_token_id is {eos!r}; it is a token id or a list of them")
    size = fields.get("vocab_size", math.inf)  # of config.json; a shape that was made small keeps a large one's ids
    if isinstance(eos, int) and eos >= size:
        return None
    return [token for token in eos if token < size] if isinstance(eos, list) else eos


def _check_embedded(folder: Path, tokenizer: "PreTrainedTokenizerBase", stops: tuple[int, ...]) -> None:
    """Raises ValueError for a token beyond the embedding that text, the chat template or the end of a turn would use.

    Added tokens that nothing uses, such as one that only pads, may be beyond it, as in transformers.
    """
    size = _vocab_size(folder)
    if size is None:
        return
    added = added_tokens(tokenizer)
    beyond = {token: at for token, at in tokenizer.get_vocab().items() if at >= size}
    used = {*stops, *(at for token, at in beyond.items() if token not in added)}
    if beyond and tokenizer.chat_template is not None:
        for thinking in (False, True):
            used |= {
                *tokenizer.encode(render_chat(tokenizer, user_turn(_TEXTS[0]), thinking), add_special_tokens=False)
            }
    if lost := sorted(at for at in used if at >= size):
        token = tokenizer.convert_ids_to_tokens(lost[0])
        raise ValueError(
            f"{folder}: the tokenizer's {token!r} is token {lost[0]}, and the model's embedding has {size} rows "
            "(vocab_size of config.json); take the tokenizer that the model was trained with, or a model whose "
            "embedding was resized to it"
        )


def _vocab_size(folder: Path) -> int | None:
    """None where the folder holds a tokenizer alone."""
    file = folder / "config.json"
    size: Any = read_fields(file).get("vocab_size") if file.is_file() else None
    return size if isinstance(size, int) else None
