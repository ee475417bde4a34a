"""Tokenizers of folders as people have them: what transformers is trusted with is checked, and errors name the file."""

import json
import shutil
from pathlib import Path

import pytest

from egrsd_jax.data.literal import text_ids
from egrsd_jax.data.problems import Problem
from egrsd_jax.data.prompts import (
    PROBLEM_ALONE,
    PromptTemplates,
    encode_student,
    encode_teacher,
    thinking_note,
    user_turn,
)
from egrsd_jax.data.tokenizer import check_token_ids, cuts_otherwise, load_tokenizer
from egrsd_jax.sample.prompts import Prompt, encode_prompt
from tests.model_folders import BYTES, CHAT_TEMPLATE, MARKS, SMALL, change, write_folder

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 11422654\n"
ALONE = PromptTemplates(PROBLEM_ALONE, "{problem} {solution}")
IM_START, IM_END, THINK = (len(BYTES) + MARKS.index(mark) for mark in ("<|im_start|>", "<|im_end|>", "<think>"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return write_folder(tmp_path_factory.mktemp("models") / "whole")


@pytest.fixture
def folder(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "model"))


def with_template(folder: Path, template: str):
    (folder / "chat_template.jinja").write_text(template)
    return load_tokenizer(folder)[0]


class TestFiles:
    def test_whole_folder(self, folder):
        tokenizer, stops = load_tokenizer(folder)
        assert stops == (len(BYTES), IM_END)
        rendered = "<|im_start|>user\n6 * 7<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
        assert encode_student(tokenizer, ALONE, Problem("1", "6 * 7", "", "")) == tokenizer.encode(rendered)

    def test_missing_vocabulary(self, folder):
        (folder / "tokenizer.json").unlink()
        with pytest.raises(FileNotFoundError, match=r"has no tokenizer\.json"):
            load_tokenizer(folder)

    def test_vocabulary_that_needs_a_package(self, folder, monkeypatch):
        (folder / "tokenizer.json").rename(folder / "tokenizer.model")
        monkeypatch.setattr("egrsd_jax.data.tokenizer.find_spec", lambda name: None)
        with pytest.raises(ValueError, match=r"in tokenizer\.model alone, .*pip install sentencepiece"):
            load_tokenizer(folder)

    @pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "config.json"])
    def test_git_lfs_pointer(self, folder, name):
        (folder / name).write_text(POINTER)
        with pytest.raises(ValueError, match=f"{name} is a Git LFS pointer.*git lfs pull"):
            load_tokenizer(folder)

    @pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "generation_config.json"])
    @pytest.mark.parametrize("content", ['{"eos_token_id": [2, 1', "", "[]", "\x80"])
    def test_cut_short_or_no_object(self, folder, name, content):
        (folder / name).write_bytes(content.encode("latin-1"))
        with pytest.raises(ValueError, match=name):
            load_tokenizer(folder)

    @pytest.mark.parametrize("eos", ["<|im_end|>", [2.5], -1, True])
    def test_eos_that_is_no_token_id(self, folder, eos):
        (folder / "generation_config.json").write_text("{}")
        change(folder / "generation_config.json", eos_token_id=eos)
        with pytest.raises(ValueError, match=r"generation_config\.json: eos_token_id is"):
            load_tokenizer(folder)

    def test_tokenizer_json_of_another_kind(self, folder):
        (folder / "tokenizer.json").write_text('{"model": {"type": "BPE"}}')
        with pytest.raises(ValueError, match=r"transformers makes no tokenizer of tokenizer\.json"):
            load_tokenizer(folder)

    def test_eos_of_the_models_own_configuration(self, folder):
        for eos, own in ([IM_END, THINK, 151645], (THINK,)), (THINK, (THINK,)), (151645, ()), (None, ()):
            change(folder / "config.json", eos_token_id=eos)
            assert load_tokenizer(folder)[1] == (len(BYTES), IM_END, *own)
        (folder / "generation_config.json").write_text("{}")
        assert load_tokenizer(folder)[1] == (len(BYTES), IM_END)


class TestText:
    def test_pre_tokenizer_that_a_class_of_transformers_replaces(self, folder):
        """GPT2Tokenizer has its own, and SmolLM2's file one that cuts numbers into digits."""
        rarest = max(BYTES, key=lambda symbol: BYTES[symbol])
        vocabulary = {**BYTES, "48": BYTES[rarest]}
        del vocabulary[rarest]
        byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
        digits = {"type": "Digits", "individual_digits": True}
        change(
            folder / "tokenizer.json",
            model={"type": "BPE", "vocab": vocabulary, "merges": [["4", "8"]]},
            pre_tokenizer={"type": "Sequence", "pretokenizers": [digits, byte_level]},
        )
        change(folder / "tokenizer_config.json", tokenizer_class="GPT2Tokenizer")
        change(folder / "config.json", model_type="llama")
        assert cuts_otherwise(folder)
        tokenizer, stops = load_tokenizer(folder)
        assert tokenizer.encode("480", add_special_tokens=False) == [BYTES[digit] for digit in "480"]
        assert stops == (len(BYTES), IM_END)
        change(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
        assert not cuts_otherwise(folder)
        assert load_tokenizer(folder)[0].encode("480", add_special_tokens=False) == [BYTES[digit] for digit in "480"]

    def test_tokenizer_that_reads_nothing(self, folder):
        change(folder / "tokenizer.json", model={"type": "BPE", "vocab": {}, "merges": []})
        with pytest.raises(ValueError, match="as the same tokens"):
            load_tokenizer(folder)

    def test_tokenizer_that_loses_letters(self, folder):
        letters = {symbol: at for symbol, at in BYTES.items() if not symbol.islower()}
        change(folder / "tokenizer.json", model={"type": "BPE", "vocab": letters, "merges": []})
        with pytest.raises(ValueError, match="loses text"):
            load_tokenizer(folder)

    def test_bos_that_is_also_unk(self, folder):
        change(folder / "tokenizer_config.json", bos_token="<|endoftext|>", unk_token="<|endoftext|>")
        tokenizer = with_template(folder, "{{ bos_token }}" + CHAT_TEMPLATE)
        ids = encode_prompt(tokenizer, Prompt("0", "What is 6*7?", "--prompt"))
        assert ids[0] == tokenizer.unk_token_id
        raw = encode_prompt(tokenizer, Prompt("0", "<|endoftext|>What is 6*7?", "--prompt"), raw=True)
        assert raw[0] == tokenizer.unk_token_id


class TestEmbedding:
    @pytest.mark.parametrize(
        ("rows", "token"),
        [(SMALL.vocab_size - 1, "</think>"), (len(BYTES) + 1, r"<\|im_start\|>"), (100, ".*")],
        ids=["of the template", "of turns", "of text"],
    )
    def test_used_token_beyond_it(self, folder, rows, token):
        change(folder / "config.json", vocab_size=rows)
        with pytest.raises(ValueError, match=f"'{token}' is token [0-9]+, and the model's embedding has {rows} rows"):
            load_tokenizer(folder)

    def test_unused_token_beyond_it(self, folder):
        change(folder / "config.json", vocab_size=SMALL.vocab_size - 2)
        tokenizer = with_template(folder, CHAT_TEMPLATE.partition("{% if enable")[0] + "{% endif %}")
        check_token_ids(tokenizer, [[1, THINK - 1]], SMALL.vocab_size - 2, "a prompt")
        with pytest.raises(ValueError, match=r"a prompt holds the token '</think>'.* embedding has 260 rows"):
            check_token_ids(tokenizer, [[1], [THINK + 1, THINK]], SMALL.vocab_size - 2, "a prompt")


class TestTemplate:
    @pytest.mark.parametrize(
        ("template", "reason"),
        [
            ("{{ raise_exception('a system message is required') }}", "a system message is required"),
            ("{{ messages[0]['content'] + 1 }}", "can only concatenate str"),
            ("{% for m in messages %}{{ m.content }}", "unknown tag|Unexpected end"),
            ("{{ messages[0].name.first }}", "no attribute 'name'"),
        ],
    )
    def test_that_raises(self, folder, template, reason):
        with pytest.raises(ValueError, match=f"its chat template refuses the conversation: .*({reason})"):
            encode_prompt(with_template(folder, template), Prompt("0", "6 * 7", "--prompt"))

    def test_that_wants_a_system_turn_gets_it(self, folder):
        wants = "{% if messages[0].role != 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHAT_TEMPLATE
        tokenizer = with_template(folder, wants)
        with pytest.raises(ValueError, match=r"prompt\.system or --system"):
            encode_student(tokenizer, ALONE, Problem("1", "6 * 7", "", ""))
        ids = encode_prompt(tokenizer, Prompt("0", "6 * 7", "--prompt"), system="Be brief.")
        assert tokenizer.decode(ids).startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n6 * 7")

    def test_that_writes_todays_date(self, folder):
        """As Llama 3.2's does; prompts are the same tomorrow."""
        dated = "{% set day = strftime_now('%d %b %Y, %A %j') if strftime_now is defined else '' %}Today: {{ day }}\n"
        tokenizer = with_template(folder, dated + CHAT_TEMPLATE)
        prompt = str(tokenizer.decode(encode_student(tokenizer, ALONE, Problem("1", "6 * 7", "", ""))))
        assert prompt.startswith("Today: 26 Jul 2024, Friday 208\n<|im_start|>user\n6 * 7<|im_end|>")
        (folder / "additional_chat_templates").mkdir()
        (folder / "additional_chat_templates" / "tool_use.jinja").write_text("{{ strftime_now('%Y') }}")
        named = load_tokenizer(folder)[0]
        assert str(named.decode(encode_student(named, ALONE, Problem("1", "6 * 7", "", "")))) == prompt
        assert named.apply_chat_template(user_turn("6"), chat_template="tool_use", tokenize=False) == "2024"

    @pytest.mark.parametrize(
        ("template", "message"),
        [
            ([{"name": "rag", "template": CHAT_TEMPLATE}], "has the chat templates 'rag', and none is 'default'"),
            (3, "chat_template is 3; it is a text"),
        ],
    )
    def test_that_is_none_to_begin_with(self, folder, template, message):
        (folder / "chat_template.jinja").unlink(missing_ok=True)
        file = folder / "tokenizer_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"chat_template": template}))
        with pytest.raises(ValueError, match=message):
            load_tokenizer(folder)

    @pytest.mark.parametrize("template", ["one text", "{% for m in messages %}{{ m.content[0].text }}{% endfor %}"])
    def test_that_leaves_the_problem_out(self, folder, template):
        with pytest.raises(ValueError, match=r"its chat template leaves out the user's turn '6 [*] 7'"):
            encode_student(with_template(folder, template), ALONE, Problem("1", "6 * 7", "", ""))

    @pytest.mark.parametrize(
        ("template", "student", "words"),
        [
            (CHAT_TEMPLATE, False, None),
            (CHAT_TEMPLATE.partition("{% if enable")[0] + "<think>\n{% endif %}", False, "opens <think>"),
            (CHAT_TEMPLATE.partition("{% if enable")[0] + "<think>\n{% endif %}", True, None),
            (CHAT_TEMPLATE.partition("{% if enable")[0] + "{% endif %}", True, "never opens a thought"),
            (CHAT_TEMPLATE.partition("{% if enable")[0] + "<think></think>{% endif %}", True, "never opens a thought"),
            (CHAT_TEMPLATE.partition("{% if enable")[0] + "{% endif %}", False, None),
        ],
    )
    def test_that_ignores_enable_thinking(self, folder, template, student, words):
        note = thinking_note(with_template(folder, template), {"prompt.student_thinking": student})
        if words is None:
            assert note is None
        else:
            assert words in note
            assert f"prompt.student_thinking {str(student).lower()} has no effect" in note


class TestControlTokensInTexts:
    """`<|im_end|>` in a problem is nine characters."""

    @pytest.mark.parametrize("text", ["a<|im_end|>b", "<think>", "</think> 5 <|im_start|>user\nHi", "<|im_end|>" * 3])
    def test_are_text(self, folder, text):
        tokenizer = load_tokenizer(folder)[0]
        control = sorted(
            token for token in encode_student(tokenizer, ALONE, Problem("1", "x", "", "")) if token >= len(BYTES)
        )
        for encode, turns in ((encode_student, ()), (encode_teacher, ()), (encode_student, ((text, text),))):
            templates = PromptTemplates(PROBLEM_ALONE, "{problem} {solution}", teacher_thinking=False, examples=turns)
            ids = encode(tokenizer, templates, Problem("1", text, f"so {text}", "", system=text if turns else ""))
            more = [IM_START, IM_END] * (3 if turns else 0)
            assert sorted(token for token in ids if token >= len(BYTES)) == sorted([*control, *more])
            plain = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
            assert text in tokenizer.decode(ids)
            assert plain.ids != text_ids(tokenizer, text)
            assert tokenizer.decode(text_ids(tokenizer, text)) == text

    def test_of_a_template_stay_control_tokens(self, folder):
        tokenizer = load_tokenizer(folder)[0]
        templates = PromptTemplates("{problem}<think>", "{problem} {solution}", student_thinking=True)
        ids = encode_student(tokenizer, templates, Problem("1", "a<think>b", "", ""))
        assert ids.count(THINK) == 1

    def test_other_texts_have_the_tokenizers_own_ids(self, folder):
        tokenizer = load_tokenizer(folder)[0]
        for text in ("What is 6 * 7?", "  < | im_end | > \n\n", "\ue0000\ue001 é 中"):
            assert text_ids(tokenizer, text) == tokenizer.encode(text, add_special_tokens=False)


class TestTurnsBefore:
    def test_system_and_examples(self, folder):
        tokenizer = load_tokenizer(folder)[0]
        templates = PromptTemplates(
            "Q: {problem}",
            "{problem} {solution}",
            system="Be brief.",
            examples=(("1 + 1", "It is 2."), ("2", "{problem}")),
        )
        before = (
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nQ: 1 + 1<|im_end|>\n<|im_start|>assistant\n"
            "It is 2.<|im_end|>\n<|im_start|>user\nQ: 2<|im_end|>\n<|im_start|>assistant\n{problem}<|im_end|>\n"
        )
        problem = Problem("1", "6 * 7", "42", "42", system="Another.")
        student = before + "<|im_start|>user\nQ: 6 * 7<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
        teacher = before + "<|im_start|>user\n6 * 7 42<|im_end|>\n<|im_start|>assistant\n"
        assert tokenizer.decode(encode_student(tokenizer, templates, problem)) == student
        assert tokenizer.decode(encode_teacher(tokenizer, templates, problem)) == teacher

    def test_the_datas_own_system_turn(self, folder):
        tokenizer = load_tokenizer(folder)[0]
        ids = encode_student(tokenizer, ALONE, Problem("1", "6 * 7", "", "", system="Of the row."))
        assert tokenizer.decode(ids).startswith("<|im_start|>system\nOf the row.<|im_end|>\n<|im_start|>user\n6")
