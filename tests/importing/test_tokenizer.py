"""Tokenizers out of GGUF files against the tokenizers that they were made of, and templates without a system turn."""

import json
import random
from itertools import pairwise
from typing import Any

import pytest
from tokenizers import Tokenizer

from egrsd_jax.data.tokenizer import load_tokenizer
from egrsd_jax.importing.convert import import_model
from egrsd_jax.importing.gguf_file import GgufFile
from egrsd_jax.importing.template import without_default_system
from egrsd_jax.importing.tokenizer import make_tokenizer
from tests.importing.examples import SPECIAL, SYSTEM, TEMPLATE, TOKENS, write_gguf
from tests.model.examples import CONFIG, LLAMA

TEXTS = [
    "The cat sat at  12 tables;\n\n  34,567 cats  at $4.75.\t\n",
    "don't WON'T it's naïve cafe\u0301 ½ ² ٣ 日本語 😀\r\n  x=1+22-333*4444",
    "<|im_start|>user\n<think> 12 </think><|im_end|> trailing   ",
]


def imported(folder, config=None, **values):
    """The tokenizer as it is loaded from the folder of an imported file."""
    folder.mkdir(parents=True, exist_ok=True)
    write_gguf(folder / "model.gguf", config or LLAMA.replace(vocab_size=288, num_layers=1), **values)
    import_model(str(folder / "model.gguf"), folder / "made")
    return load_tokenizer(folder / "made")[0]


def test_qwens_tokenizer_comes_back_as_it_was(shared_data, tmp_path):
    """The first of its merges, which keeps the file small, with its normalizer, its cut and its added tokens."""
    source = json.loads((shared_data / "qwen3_tokenizer" / "tokenizer.json").read_text(encoding="utf-8"))
    count = 20_000
    model = source["model"]
    model["vocab"] = {token: index for token, index in model["vocab"].items() if index < count}
    pairs = [merge if isinstance(merge, list) else merge.split(" ") for merge in model["merges"]]
    model["merges"] = [pair for pair in pairs if "".join(pair) in model["vocab"]]
    for number, token in enumerate(source["added_tokens"]):
        token["id"] = count + number
    ours = Tokenizer.from_str(json.dumps(source))
    tokens = [token for token, _ in sorted(ours.get_vocab(with_added_tokens=True).items(), key=lambda item: item[1])]
    kinds = [1] * count + [3 if token["special"] else 4 for token in source["added_tokens"]]
    tokenizer = imported(
        tmp_path,
        CONFIG.replace(vocab_size=len(tokens), hidden_size=8, intermediate_size=8, num_layers=1),
        tokens=tokens,
        **{
            "tokenizer.ggml.token_type": kinds,
            "tokenizer.ggml.merges": [" ".join(pair) for pair in model["merges"]],
            "tokenizer.ggml.eos_token_id": tokens.index("<|im_end|>"),
            "tokenizer.ggml.padding_token_id": tokens.index("<|endoftext|>"),
            "tokenizer.ggml.bos_token_id": None,
        },
    )
    for text in TEXTS:
        ids = ours.encode(text).ids
        assert tokenizer.encode(text) == ids
        for skip in (False, True):
            assert tokenizer.decode(ids, skip_special_tokens=skip) == ours.decode(ids, skip_special_tokens=skip)
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")


@pytest.mark.parametrize(
    ("pre", "text", "pieces"),
    [
        ("smollm", "at  12  cat", ["at", "ĠĠ", "1", "2", "Ġ", "Ġcat"]),  # each digit alone, before spaces are cut
        ("gpt-2", "at  12  cat", ["at", "Ġ", "Ġ", "12", "Ġ", "Ġcat"]),
        ("qwen2", "at  12  cat", ["at", "Ġ", "Ġ", "1", "2", "Ġ", "Ġcat"]),
        ("deepseek-r1-qwen", "12cat", ["1", "2", "c", "at"]),
        ("llama-bpe", "at 1212  cat", ["at", "Ġ", "12", "1", "2", "Ġ", "Ġcat"]),  # up to three digits
        ("smaug-bpe", "at 1212  cat", ["at", "Ġ", "12", "1", "2", "Ġ", "Ġcat"]),
    ],
)
def test_text_is_cut_as_the_name_says(pre, text, pieces, tmp_path):
    assert imported(tmp_path, **{"tokenizer.ggml.pre": pre}).tokenize(text) == pieces


def test_a_cut_that_the_file_does_not_name_can_be_chosen(tmp_path):
    write_gguf(tmp_path / "a.gguf", LLAMA.replace(vocab_size=288), **{"tokenizer.ggml.pre": None})
    file = GgufFile(tmp_path / "a.gguf", "a.gguf")
    assert make_tokenizer(file, 288, pre="smollm").tokenize("12") == ["1", "2"]
    write_gguf(tmp_path / "b.gguf", LLAMA.replace(vocab_size=288))
    with pytest.raises(ValueError, match=r"b\.gguf names the pre-tokenizer 'smollm' itself; leave 'qwen2' out"):
        make_tokenizer(GgufFile(tmp_path / "b.gguf", "b.gguf"), 288, pre="qwen2")


def test_special_tokens_are_whole_and_padding_rows_are_no_tokens(tmp_path):
    tokenizer = imported(tmp_path)
    assert tokenizer.tokenize("<|im_start|>at<|im_end|>") == ["<|im_start|>", "at", "<|im_end|>"]
    assert tokenizer.decode(tokenizer.encode("<|im_start|>at<|im_end|>"), skip_special_tokens=True) == "at"
    assert len(tokenizer) == len(TOKENS)
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (SPECIAL[1], SPECIAL[2], SPECIAL[0])


def test_a_text_begins_with_its_token_where_the_file_says_so(tmp_path):
    plain = imported(tmp_path / "without").encode("at")
    tokenizer = imported(tmp_path / "with", **{"tokenizer.ggml.add_bos_token": True})
    assert tokenizer.encode("at") == [1, *plain]
    assert tokenizer.encode("at", add_special_tokens=False) == plain


@pytest.mark.parametrize(("pre", "begins"), [("llama-bpe", True), ("smollm", False)])
def test_where_the_file_does_not_say_how_a_text_begins_it_is_as_in_llama_cpp(pre, begins, tmp_path):
    """Of Llama 3 alone; transformers' own tokenizer of it does the same."""
    tokenizer = imported(tmp_path, **{"tokenizer.ggml.add_bos_token": None, "tokenizer.ggml.pre": pre})
    assert (tokenizer.encode("at")[0] == 1) is begins


def test_llama_3s_ends_of_a_turn_end_a_completion_whatever_the_file_names(tmp_path):
    tokens = [*TOKENS[:2], "<|eot_id|>", *TOKENS[3:], "<|end_of_text|>"]
    tokens += [f"[PAD{number}]" for number in range(len(tokens), 288)]
    at = tokens.index("<|end_of_text|>")
    kinds = [
        3 if index in (0, 1, 2, at) else 5 if token.startswith("[PAD") else 1 for index, token in enumerate(tokens)
    ]
    values: dict[str, Any] = {"tokenizer.ggml.token_type": kinds, "tokenizer.ggml.eos_token_id": at}
    imported(tmp_path, tokens=tokens, **values)
    generation = json.loads((tmp_path / "made" / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [2, at]


def test_sentence_piece_merges_the_pair_with_the_best_score(tmp_path):
    letters = ["▁", *"abc"]
    source = random.Random(0)
    joined = sorted({"".join(source.choices(letters, k=length)) for length in (2, 2, 2, 3, 4) for _ in range(12)})
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters, *joined]
    scores = (
        [0.0] * 259 + [-1000.0] * len(letters) + [-float(n) for n in source.sample(range(len(joined)), len(joined))]
    )
    tokenizer = imported(
        tmp_path,
        LLAMA.replace(vocab_size=len(tokens), num_layers=1),
        tokens=tokens,
        **{
            "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.pre": None,
            "tokenizer.ggml.scores": scores,
            "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * (len(letters) + len(joined)),
            "tokenizer.ggml.merges": None,
            "tokenizer.ggml.padding_token_id": None,
            "tokenizer.ggml.add_bos_token": True,
            "tokenizer.chat_template": None,
        },
    )
    score_of = dict(zip(tokens, scores, strict=True))
    for _ in range(200):
        text = "".join(source.choices(" abc", k=source.randint(1, 12)))
        pieces = by_score("▁" + text.replace(" ", "▁"), score_of)
        assert tokenizer.tokenize(text) == pieces, text
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text
    assert tokenizer.encode("a")[0] == 1
    assert tokenizer.tokenize("é")[1:] == ["<0xC3>", "<0xA9>"]


def by_score(text: str, score_of: dict[str, float]) -> list[str]:
    """SentencePiece's rule, one merge at a time: the joined token with the best score, the leftmost of equals."""
    pieces = list(text)
    while True:
        pairs = [(-score_of[a + b], i) for i, (a, b) in enumerate(pairwise(pieces)) if a + b in score_of]
        if not pairs:
            return pieces
        _, at = min(pairs)
        pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]


def rendered(tokenizer, *messages: tuple[str, str]) -> str:
    turns = [{"role": role, "content": text} for role, text in messages]
    return tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)


OTHER = (  # the form of Qwen2.5's
    "{%- if messages[0]['role'] == 'system' %}{{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}"
    "{%- else %}{{- '<|im_start|>system\\nBe kind.<|im_end|>\\n' }}{%- endif %}"
    "{%- for message in messages %}{%- if message.role != 'system' %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)


@pytest.mark.parametrize("template", [TEMPLATE, OTHER], ids=["smollm2", "qwen2.5"])
def test_a_default_system_turn_is_left_out_and_nothing_else(template, tmp_path):
    tokenizer = imported(tmp_path, **{"tokenizer.chat_template": template})
    before = rendered(tokenizer, ("user", "Hi"))
    own = rendered(tokenizer, ("system", "Own."), ("user", "Hi"))
    assert before.startswith(SYSTEM)
    tokenizer.chat_template = without_default_system(tokenizer)
    assert rendered(tokenizer, ("user", "Hi")) == before.removeprefix(SYSTEM)
    assert rendered(tokenizer, ("system", "Own."), ("user", "Hi")) == own


ALWAYS = (  # a turn before every conversation, one with a system turn of its own too: no default
    "{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{% for message in messages %}"
    "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}{% endfor %}"
)


@pytest.mark.parametrize(
    "template",
    [None, "{% for m in messages %}{{ m.content }}{% endfor %}", ALWAYS],
    ids=["none", "plain", "always"],
)
def test_where_there_is_no_default_system_turn_it_is_one_line(template, tmp_path):
    write_gguf(tmp_path / "a.gguf", LLAMA.replace(vocab_size=288), **{"tokenizer.chat_template": template})
    with pytest.raises(ValueError, match=r"no default system turn|no chat template"):
        import_model(str(tmp_path / "a.gguf"), tmp_path / "made", default_system=False)
