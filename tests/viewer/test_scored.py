"""Texts of tokens, and the file that scored completions are kept in."""

from dataclasses import replace

import pytest

from egrsd_jax.viewer.scored import ScoredCompletion, read_scored, write_scored

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
