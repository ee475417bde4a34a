"""Text of tokens, a few at a time and one by one."""

from functools import cache
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from egrsd_jax.data.detokenizer import Detokenizer, token_texts
from egrsd_jax.data.tokenizer import load_tokenizer
from egrsd_jax.model.hf.hub import resolve_folder

MANY_BYTES = "naïve 漢字𠮷 👩‍👩‍👧 किताब\n\t– 𐎀𐎁 🏴󠁧󠁢󠁥󠁮󠁧󠁿 end"


@cache
def tokenizer_of(folder: Path):
    return load_tokenizer(folder)[0]


@pytest.fixture
def arithmetic():
    return tokenizer_of(resolve_folder("arithmetic"))


def pieces_of(tokenizer, tokens, size) -> tuple[list[str], str]:
    text = Detokenizer(tokenizer, skip_special_tokens=True)
    pieces = [text.add(tokens[start : start + size]) for start in range(0, len(tokens), size)]
    return pieces, text.end()


class TestDetokenizer:
    @pytest.mark.parametrize("size", [1, 2, 3, 7])
    def test_characters_of_several_tokens_come_whole(self, shared_data, size):
        tokenizer = tokenizer_of(shared_data / "qwen3_tokenizer")
        tokens = tokenizer.encode(MANY_BYTES, add_special_tokens=False)
        assert len(tokens) > 30
        pieces, rest = pieces_of(tokenizer, tokens, size)
        assert "".join(pieces) == MANY_BYTES
        assert not rest
        assert "\ufffd" not in "".join(pieces)
        assert sum(map(bool, pieces)) > len(tokens) / size / 3  # it comes as it is sampled, not at the end

    @pytest.mark.parametrize("size", [1, 2, 5])
    def test_bytes_that_are_no_character_are_not_lost(self, shared_data, size):
        tokenizer = tokenizer_of(shared_data / "qwen3_tokenizer")
        half = tokenizer.encode("𐎀", add_special_tokens=False)[:-1]
        tokens = [*half, *tokenizer.encode(" a 漢", add_special_tokens=False), *half]
        pieces, rest = pieces_of(tokenizer, tokens, size)
        assert "".join(pieces) + rest == tokenizer.decode(tokens)
        assert rest.strip("\ufffd") == ""
        assert rest

    @pytest.mark.parametrize("size", [1, 2, 5])
    def test_spaces_between_words_and_special_tokens(self, arithmetic, size):
        tokens = arithmetic.encode(r"<think> 1 + 2 = 3 </think> \boxed{3}<|im_end|>", add_special_tokens=False)
        pieces, rest = pieces_of(arithmetic, tokens, size)
        assert "".join(pieces) + rest == r"<think> 1 + 2 = 3 </think> \boxed{ 3 }"

    def test_a_copy_and_its_original_do_not_share_tokens(self, shared_data):
        tokenizer = tokenizer_of(shared_data / "qwen3_tokenizer")
        first, *rest = tokenizer.encode("𐎀", add_special_tokens=False)
        one = Detokenizer(tokenizer, skip_special_tokens=True)
        assert one.add([first]) == ""
        other = one.copy()
        assert other.add(rest) == "𐎀"
        assert one.add(rest) == "𐎀"


@pytest.fixture(scope="module")
def byte_level() -> PreTrainedTokenizerFast:
    """A token a byte, as byte-level BPE falls back to, and one special token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: index for index, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|im_end|>"])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False)


def test_characters_spread_over_tokens_come_with_their_last(byte_level):
    tokens = byte_level.encode("a é😀b<|im_end|>")
    assert len(tokens) == 10
    assert token_texts(byte_level, tokens) == ["a", " ", "", "é", "", "", "", "😀", "b", "<|im_end|>"]


def test_bytes_that_are_no_character_end_with_the_text_or_with_what_follows(byte_level):
    lead = byte_level.encode("é")[0]
    a = byte_level.encode("a")[0]
    assert token_texts(byte_level, [a, lead]) == ["a", "�"]
    assert "".join(token_texts(byte_level, [lead, lead, a, a])) == "��aa"


def test_blanks_between_the_built_in_models_words_stay():
    tokenizer, _ = load_tokenizer(resolve_folder("arithmetic"))
    tokens = tokenizer.encode("<think> 7 + 5 = 2 </think> \\boxed{ 2 }<|im_end|>", add_special_tokens=False)
    texts = token_texts(tokenizer, tokens)
    assert texts[:4] == ["<think>", " 7", " +", " 5"]
    assert "".join(texts) == tokenizer.decode(tokens)
    assert len(texts) == len(tokens)
