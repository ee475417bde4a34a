"""Completions of a user's own prompts: text as it comes, files resumed, and mistakes reported in one line."""

import json
import subprocess
from functools import cache
from pathlib import Path

import jax
import pytest

from egrsd_jax.data.tokenizer import load_tokenizer
from egrsd_jax.evaluate.settings import Settings
from egrsd_jax.model.hf.hub import resolve_folder
from egrsd_jax.model.sharding import make_mesh
from egrsd_jax.rollout.requests import complete
from egrsd_jax.runs.files import SettingsMismatch
from egrsd_jax.sample.prompts import Prompt, encode_prompt, read_prompts
from egrsd_jax.sample.screen import Screen
from egrsd_jax.sample.session import complete_file, completions_path, open_session, show_each, stream
from egrsd_jax.sample.settings import SampleSettings
from egrsd_jax.sample.text import Piece, ThinkingText
from tests.commands import ROOT, command_line, environment, refused

PROBLEM = "7 + 5 * 3 - 8 + 6"
LINES = "1 + 2 + 3 + 4 + 5\n\n2 * 3 + 4 - 1 + 2\n3 - 4 + 1 * 2 + 2\n"


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    monkeypatch.setattr("egrsd_jax.sample.session.make_mesh", lambda *_: make_mesh(devices=jax.devices()[:1]))


@pytest.fixture
def arithmetic():
    return tokenizer_of(resolve_folder("arithmetic"))


@pytest.fixture
def prompts(tmp_path) -> Path:
    file = tmp_path / "prompts.txt"
    file.write_text(LINES)
    return file


@cache
def tokenizer_of(folder: Path):
    return load_tokenizer(folder)[0]


def chunks(values, size):
    return [values[start : start + size] for start in range(0, len(values), size)]


@pytest.mark.parametrize("size", range(1, 9))
def test_thinking_is_told_from_the_answer_however_it_comes(size):
    text, thinking = "a <b<think>1 < 2</thin</think> 5<th", ThinkingText()
    pieces = [piece for chunk in chunks(text, size) for piece in thinking.add(chunk)] + thinking.end()
    assert "".join(piece.text for piece in pieces) == text
    assert "".join(piece.text for piece in pieces if piece.thinking) == "<think>1 < 2</thin</think>"


def test_thinking_that_the_prompt_began():
    assert ThinkingText(thinking=True).add("1</think>2") == [
        Piece("1", True),
        Piece("</think>", True),
        Piece("2", False),
    ]


class TestScreen:
    PIECES = (Piece("<think>[red]x\x1b[2J", True), Piece("[/y]\n", False))

    def test_a_terminal_is_not_commanded(self, capsys, monkeypatch):
        monkeypatch.setenv("FORCE_COLOR", "1")
        Screen().show(self.PIECES)
        assert capsys.readouterr().out == "\x1b[2m<think>[red]x[2J\x1b[0m[/y]\n"

    def test_a_pipe_gets_the_text_as_it_is(self, capsys):
        screen = Screen()
        screen.show(self.PIECES)
        screen.end_line()
        assert capsys.readouterr().out == "<think>[red]x\x1b[2J[/y]\n"


def test_streamed_text_is_the_completion(capsys):
    session = open_session(SampleSettings(Settings(seed=3), prompt=PROBLEM))
    completion = stream(session, Screen())
    said = capsys.readouterr()
    assert said.out == session.text(completion) + "\n"
    assert f"{len(completion.tokens)} tokens in" in said.err
    assert "it ended by itself\n" in said.err
    assert session.engine.max_rows == 1


@pytest.mark.slow
def test_the_command_without_options_says_what_the_engine_draws():
    command = command_line("sample.py", "--temperature", "0")
    found = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    session = open_session(SampleSettings(Settings(temperature=0.0)))
    (completion,) = complete(session.engine, session.requests(session.places))
    assert found.stdout == session.text(completion) + "\n"
    assert f"a held-out problem: {session.prompts[0].text}\n" in found.stderr


def test_several_samples_share_the_prompt_and_differ(capsys):
    session = open_session(SampleSettings(Settings(samples=3, max_new_tokens=20), prompt=PROBLEM, stop=("never",)))
    texts = {session.text(completion) for completion in show_each(session, Screen())}
    said = capsys.readouterr().out
    assert len(texts) > 1
    assert all(f"{text}\n" in said for text in texts)
    assert said.count("20 tokens, cut off at --max_new_tokens 20, and no stop text came") == 3
    assert [name for name in session.engine.used if "prefill" in name] == ["prefill 1 prompts of 16"]


def test_a_stop_text_ends_it_and_is_told(capsys):
    settings = SampleSettings(Settings(temperature=0.0), prompt=PROBLEM, stop=(";",))
    completion = stream(open_session(settings), Screen())
    said = capsys.readouterr()
    assert completion.ended == "stop"
    assert said.out.count(";") == 1
    assert said.out.endswith(";\n")
    assert "a stop text ended it" in said.err


def rows(file: Path) -> list[dict]:
    """What a file holds but for the seconds, in the order of its prompts."""
    found = [json.loads(line) for line in file.read_text().splitlines()]
    return sorted(({**row, "seconds": 0} for row in found), key=lambda row: (row["id"], row["sample"]))


def test_a_file_is_gone_on_with_and_nothing_is_mixed(prompts, capsys):
    def settings(**given) -> SampleSettings:
        return SampleSettings(Settings(**{"samples": 2, "max_new_tokens": 30, "max_rows": 4, **given}), file=prompts)

    to = complete_file(open_session(settings()))
    assert to == completions_path(settings()) == prompts.with_name("prompts.completions.jsonl")
    whole = rows(to)
    assert [(row["id"], row["sample"]) for row in whole] == [(line, k) for line in "134" for k in (0, 1)]
    assert whole[0]["prompt"] == "1 + 2 + 3 + 4 + 5"
    assert all(row["tokens"] == 30 or row["ended"] == "end" for row in whole)

    lines = to.read_bytes().splitlines(keepends=True)
    to.write_bytes(b"".join(lines[:3]) + lines[3][:20])
    complete_file(open_session(settings()))
    assert to.read_bytes().startswith(b"".join(lines[:3]))
    assert rows(to) == whole
    assert "resuming from 3 of 6" in " ".join(capsys.readouterr().out.split())

    complete_file(open_session(settings(samples=3)))
    more = rows(to)
    assert len(more) == 9
    assert [row for row in more if row["sample"] < 2] == whole
    with pytest.raises(SettingsMismatch, match=r"top_p was 1.0 and is 0.9; give those settings"):
        complete_file(open_session(settings(top_p=0.9)))
    prompts.write_text(LINES.replace("5", "6"))
    with pytest.raises(SettingsMismatch, match="prompts was"):
        complete_file(open_session(settings()))
    assert rows(to) == more


def test_a_file_of_another_program_is_not_touched(prompts):
    other = completions_path(SampleSettings(file=prompts))
    other.write_text("mine")
    with pytest.raises(ValueError, match="nothing is overwritten"):
        complete_file(open_session(SampleSettings(file=prompts)))
    assert other.read_text() == "mine"


def test_conversations_of_a_file(arithmetic, tmp_path):
    file = tmp_path / "rows.jsonl"
    turns = [{"role": "system", "content": "7 + 7"}, {"role": "user", "content": "1 + 2"}]
    file.write_text(json.dumps({"prompt": turns}) + "\n")
    [prompt] = read_prompts(SampleSettings(file=file), built_in=None)
    assert prompt == Prompt("1", "1 + 2", f"{file}, prompt 1", "7 + 7")
    begin = "<|im_start|> <|unknown|> {} <|im_end|> <|im_start|> user 1 + 2 <|im_end|>"
    assert arithmetic.decode(encode_prompt(arithmetic, prompt)).startswith(begin.format("7 + 7"))
    assert arithmetic.decode(encode_prompt(arithmetic, prompt, system="5 + 5")).startswith(begin.format("5 + 5"))


@pytest.mark.parametrize(
    ("rows", "column"), [({"prompt": "a", "problem": "b"}, None), ({"problem": "a"}, None), ({"q": "a"}, "q")]
)
def test_rows_of_a_file(tmp_path, rows, column):
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({**rows, "id": "x"}) + "\n")
    assert read_prompts(SampleSettings(file=file, column=column), built_in=None) == [
        Prompt("x", "a", f"{file}, prompt x")
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.jsonl", '{"question": "a"}\n', "no column 'prompt'; .*its columns: 'question'"),
        ("rows.jsonl", '{"prompt": "a"}\n{"prompt": " "}\n', "line 2: the column 'prompt' is empty"),
        ("rows.jsonl", "{", "line 1: not valid JSON"),
        ("lines.txt", "\n \n", "lines.txt is empty; it has one prompt a line"),
    ],
)
def test_files_without_prompts(tmp_path, name, content, message):
    file = tmp_path / name
    file.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_prompts(SampleSettings(file=file), built_in="arithmetic")


def test_raw_prompts_are_what_is_read(arithmetic):
    assert arithmetic.decode(encode_prompt(arithmetic, Prompt("0", "1 + 2", "--prompt"), raw=True)) == "1 + 2"
    turn = encode_prompt(arithmetic, Prompt("0", "1 + 2", "--prompt"), thinking=False)
    assert arithmetic.decode(turn) == "<|im_start|> user 1 + 2 <|im_end|> <|im_start|> assistant <think> </think>"
    for text, message in ((" ", "has no token"), ("1 plus 2", "does not know every word of '1 plus 2'")):
        with pytest.raises(ValueError, match=message):
            encode_prompt(arithmetic, Prompt("0", text, "--prompt"), raw=True)


def test_a_prompt_of_a_file_that_cannot_be_read_is_named(prompts):
    prompts.write_text("1 + 2\n1 plus 2\n")
    with pytest.raises(ValueError, match=r"prompts.txt, line 2: this model's tokenizer does not know"):
        open_session(SampleSettings(file=prompts))


def test_a_prompt_that_the_model_cannot_hold():
    with pytest.raises(ValueError, match=r"--prompt has [\d,]+ tokens, which with --max_new_tokens 96 is over"):
        open_session(SampleSettings(prompt=" + ".join("1" * 1000)))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"prompt": " "}, "--prompt is empty"),
        ({"prompt": "", "raw": True}, "--prompt is empty"),
        ({"prompt": "a", "file": Path("a.txt")}, "not both"),
        ({"raw": True}, "--raw needs"),
        ({"raw": True, "prompt": "a", "policy": Settings(thinking=False)}, "--raw leaves out the chat template"),
        ({"to": Path("a")}, "--to is for"),
        ({"column": "a"}, "--column is a column"),
        ({"file": Path("none.txt")}, "there is no such file"),
        ({"file": ROOT / "README.md"}, "ends in one of .txt"),
        ({"min_p": 2.0}, "min_p is 2.0; it must be between 0 and 1"),
        ({"stop": ("",)}, "stop is"),
    ],
)
def test_options_that_do_not_go_together(given, message):
    with pytest.raises(ValueError, match=message):
        SampleSettings(**given)


def test_only_the_built_in_model_has_problems_of_its_own():
    with pytest.raises(ValueError, match="give --prompt or --file"):
        read_prompts(SampleSettings(), built_in=None)


def test_a_mistake_is_one_line(capsys):
    error = refused(capsys, "sample.py", "--top_p", "2")
    assert error == "sample.py: error: --top_p is 2.0; it must be over 0 and at most 1 (1 is no limit)\n"
