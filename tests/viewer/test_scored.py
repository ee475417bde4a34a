"""Texts of tokens, and the file that scored completions are kept in."""

from dataclasses import replace

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from egrsd_jax.data.tokenizer import load_tokenizer
from egrsd_jax.model.hf.hub import resolve_folder
from egrsd_jax.viewer.scored import ScoredCompletion, read_scored, token_texts, write_scored

ONE = ScoredCompletion(
    problem="7+5",
    text="2 é",
    answer=None,
    reference_answer="2",
    correct=False,
    stopped=True,
    reward=0.0,
    advantage=-0.5,
    step=0,
    tokens=[1, 2],
    token_texts=["2", " é<|im_end|>"],
    student_logp=[-0.1, -0.2],
    teacher_logp=[-0.3, -0.1],
    teacher_entropy=[0.5, 0.1],
    student_entropy=[0.4, 0.2],
    delta=[-0.2, 0.1],
    weight=[1.2, 0.9],
    gate=[0.85, 0.97],
    gate_lookahead=[0.97, 0.97],
    entropy_lookahead=[0.1, 0.1],
    regime=["pivot", "lock"],
    teacher_top=[[("2", -0.3), ("é", -1.5)], [(" é", -0.1), ("$", -3.0)]],
    student_top=None,
)


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


def test_what_is_written_is_read(tmp_path):
    both = [ONE, replace(ONE, problem="other", teacher_top=None, student_entropy=None)]
    write_scored(tmp_path / "scored.jsonl", both)
    assert read_scored(tmp_path / "scored.jsonl") == both


def test_a_line_that_is_no_completion_is_named(tmp_path):
    file = tmp_path / "scored.jsonl"
    with pytest.raises(FileNotFoundError, match="`egrsd analyze` writes one"):
        read_scored(file)
    write_scored(file, [ONE])
    with file.open("a") as stream:
        stream.write('{"problem": "x"}\n')
    with pytest.raises(ValueError, match="line 2, is not a scored completion"):
        read_scored(file)
