"""A small model's folder as transformers writes it, to be changed as people's folders are: a token per byte."""

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from egrsd_jax.model.config import ModelConfig
from egrsd_jax.model.hf.hub import save_pretrained
from tests.model.examples import CONFIG, random_params

MARKS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>", "<think>", "</think>")
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
BYTES = {symbol: at for at, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
SMALL = CONFIG.replace(vocab_size=len(BYTES) + len(MARKS), num_layers=2)


def write_tokenizer(folder: Path, *, chat_template: str = CHAT_TEMPLATE, **special: str) -> None:
    """The tokenizer's files: one token a byte, then `MARKS`."""
    core = Tokenizer(models.BPE(dict(BYTES), []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_tokens([AddedToken(mark, special=mark.startswith("<|"), normalized=False) for mark in MARKS])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, chat_template=chat_template, **({"eos_token": "<|im_end|>"} | special)
    )
    tokenizer.save_pretrained(folder)


def write_folder(folder: Path, config: ModelConfig = SMALL, **tokenizer: str) -> Path:
    """A whole model's folder: tokenizer, config.json, random weights."""
    save_pretrained(folder, config, random_params(config))
    write_tokenizer(folder, **tokenizer)
    return folder


def change(file: Path, **fields: object) -> None:
    """Sets fields of a JSON file; `...` takes one away."""
    content = {**json.loads(file.read_text()), **fields}
    file.write_text(json.dumps({name: value for name, value in content.items() if value is not ...}))
